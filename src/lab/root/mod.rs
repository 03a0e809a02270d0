//! The root: the file system that all hosts of all labs are layers over. Built once, kept in a cache.

mod build;
mod packages;
mod recipe;

use std::{
    fs::{self, File},
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

pub use build::RootStage;

use super::{LabError, LabEvent, guest, prerequisites, settings::Settings, state};
use crate::model::Cancel;

/// What the directory of an unfinished build begins with.
const UNFINISHED: &str = ".build-";

/// Gives the root that this version of stor needs, building it unless the cache has it.
///
/// Two builders do not fight: the second waits for the first. A build that is killed leaves nothing that counts.
///
/// # Errors
/// [`LabError::MissingTool`], [`LabError::Space`], [`LabError::Command`] when mmdebstrap or another tool fails,
/// [`LabError::Cancelled`].
pub(super) fn ensure(
    settings: &Settings,
    cancel: &Cancel,
    progress: &mut dyn FnMut(LabEvent),
) -> Result<PathBuf, LabError> {
    let root = settings.cache.join(recipe::key(&settings.mirror, guest::PROGRAM));
    if root.is_dir() {
        return Ok(root);
    }
    let cache = &settings.cache;
    fs::create_dir_all(cache).map_err(LabError::system(format!("make directory {}", cache.display())))?;
    prerequisites::check_build(settings)?;
    let _lock = lock(settings, cancel, progress)?;
    if root.is_dir() {
        return Ok(root);
    }
    let begun = Instant::now();
    for name in state::directory_names(cache)?.iter().filter(|name| name.starts_with(UNFINISHED)) {
        state::remove(&cache.join(name))?;
    }
    let workshop = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(cache)
        .map_err(LabError::system(format!("write in {}", cache.display())))?;
    // mmdebstrap makes the root owned and readable as a root must be; the place around it is nobody's business.
    let built = build::root(workshop.path(), &settings.mirror, cancel, progress).map_err(|error| {
        // Ctrl-C reaches the tools too, which then fail: what the user wants to hear is that the build stopped.
        if cancel.is_cancelled() { LabError::Cancelled } else { error }
    })?;
    fs::rename(&built, &root)
        .map_err(LabError::system(format!("name the finished root {}", root.display())))?;
    progress(LabEvent::RootBuilt { elapsed: begun.elapsed() });
    Ok(root)
}

fn lock(
    settings: &Settings,
    cancel: &Cancel,
    progress: &mut dyn FnMut(LabEvent),
) -> Result<Flock<File>, LabError> {
    let action = || format!("lock {}", settings.cache.display());
    let mut file = File::open(&settings.cache).map_err(LabError::system(action()))?;
    let mut told = false;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => return Err(LabError::errno(action())(errno)),
        };
        if cancel.is_cancelled() {
            return Err(LabError::Cancelled);
        }
        if !told {
            progress(LabEvent::RootAwaited);
            told = true;
        }
        sleep(Duration::from_millis(200));
    }
}
