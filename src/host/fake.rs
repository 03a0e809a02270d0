//! A host in memory: a file tree, a lock, a program that answers commands, and faults on demand.
//!
//! Holds state like a real host does and knows nothing of storage or libvirt: what a command means says the
//! [`Machine`] that the test brings, with [`coreutils`] for the plain file commands. Not for production use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Holder, Host, HostError, LockGuard, LockKind, block};
use crate::model::{
    AbsPath, Answer, BlockSpec, Command, FileContent, FileSpec, HostId, Output, Query, Stdin,
};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// What it holds.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// The files and directories of a fake host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    files: BTreeMap<AbsPath, File>,
    directories: BTreeSet<AbsPath>,
}

impl Files {
    /// One file.
    #[must_use]
    pub fn get(&self, path: &AbsPath) -> Option<&File> {
        self.files.get(path)
    }
    /// The text of a file; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self, path: &AbsPath) -> Option<String> {
        self.files.get(path).map(|file| String::from_utf8_lossy(&file.content).into_owned())
    }
    /// Sets a file and makes its parent directories.
    pub fn put(&mut self, path: &AbsPath, content: impl Into<Vec<u8>>, mode: u32) {
        self.make_directory(&path.parent());
        self.files.insert(path.clone(), File { content: content.into(), mode });
    }
    /// Removes a file; tells whether it was there.
    pub fn remove(&mut self, path: &AbsPath) -> bool {
        self.files.remove(path).is_some()
    }
    /// Makes a directory with its parents.
    pub fn make_directory(&mut self, path: &AbsPath) {
        let mut at = path.clone();
        while self.directories.insert(at.clone()) {
            at = at.parent();
        }
    }
    /// Removes a directory when it is empty; tells whether it did.
    pub fn remove_directory(&mut self, path: &AbsPath) -> bool {
        let below = |other: &AbsPath| other != path && other.is_within(path);
        let full = self.files.keys().any(below) || self.directories.iter().any(below);
        !full && self.directories.remove(path)
    }
    /// Tells whether a directory exists.
    #[must_use]
    pub fn is_directory(&self, path: &AbsPath) -> bool {
        path.as_str() == "/" || self.directories.contains(path)
    }
    /// Tells whether a file or directory exists.
    #[must_use]
    pub fn exists(&self, path: &AbsPath) -> bool {
        self.files.contains_key(path) || self.is_directory(path)
    }
    /// All files, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&AbsPath, &File)> {
        self.files.iter()
    }
}

/// What commands mean on a fake host: its state besides files, and how programs read and change it.
pub trait Machine: Send {
    /// Runs one command to its end. Queries come here too and must not change anything.
    fn run(&mut self, command: &Command, files: &mut Files) -> Answer;
}

impl<F: FnMut(&Command, &mut Files) -> Answer + Send> Machine for F {
    fn run(&mut self, command: &Command, files: &mut Files) -> Answer {
        self(command, files)
    }
}

/// Makes an answer with this status and standard output.
#[must_use]
pub fn answer(status: i32, stdout: impl Into<String>) -> Answer {
    Answer { status: Some(status), stdout: stdout.into(), stderr: String::new() }
}

/// Makes an answer of a command that failed with this message on standard error.
#[must_use]
pub fn failure(status: i32, stderr: impl Into<String>) -> Answer {
    Answer { status: Some(status), stdout: String::new(), stderr: stderr.into() }
}

/// Answers plain file commands (`cat mkdir rm rmdir ln sync true test`), `qemu-img create` and the program that makes images from the file
/// tree; `None` for others.
pub fn coreutils(command: &Command, files: &mut Files) -> Option<Answer> {
    let operands: Vec<&str> =
        command.args.iter().map(String::as_str).filter(|arg| !arg.starts_with('-')).collect();
    let paths: Vec<AbsPath> = operands.iter().filter_map(|text| AbsPath::new(*text).ok()).collect();
    if let ["-c", _, "stor-make-image", directory, name, format, size, _] =
        command.args.iter().map(String::as_str).collect::<Vec<_>>().as_slice()
    {
        return AbsPath::new(format!("{directory}/{name}")).ok().map(|image| {
            let text = match &command.stdin {
                Stdin::Text(text) => text.clone(),
                _ => format!("{format} {size}"),
            };
            make_image(&image, text, files)
        });
    }
    Some(match (command.program, paths.as_slice()) {
        ("cat", paths) => cat(paths, files),
        ("mkdir", paths) => {
            paths.iter().for_each(|path| files.make_directory(path));
            answer(0, "")
        }
        ("rm", paths) => {
            for path in paths {
                files.remove(path);
            }
            answer(0, "")
        }
        ("qemu-img", [image]) if operands.first() == Some(&"create") => {
            files.put(image, "", 0o644);
            answer(0, "")
        }
        ("rmdir", paths) => match paths.iter().find(|path| !files.remove_directory(path)) {
            Some(path) => failure(1, format!("rmdir: failed to remove '{path}': Directory not empty")),
            None => answer(0, ""),
        },
        ("ln", [from, to]) => link(from, to, files),
        // Owners are not emulated.
        ("chown" | "chmod", [path]) => answer(i32::from(!files.exists(path)), ""),
        ("sync" | "true", _) => answer(0, ""),
        // Nor are mounts.
        ("sh", _) if command.args.get(2).is_some_and(|name| name == "stor-mounted") => answer(0, ""),
        ("test", [path]) => answer(i32::from(!files.exists(path)), ""),
        _ => return None,
    })
}

fn cat(paths: &[AbsPath], files: &Files) -> Answer {
    let mut out = answer(0, "");
    for path in paths {
        match files.text(path) {
            Some(text) => out.stdout.push_str(&text),
            None => {
                out.status = Some(1);
                out.stderr.push_str(&format!("cat: {path}: No such file or directory\n"));
            }
        }
    }
    out
}

/// An image holds its format and its size, or what it was fed.
fn make_image(image: &AbsPath, text: String, files: &mut Files) -> Answer {
    if files.exists(image) {
        return failure(1, format!("{image}: File exists"));
    }
    let directory = image.parent();
    let left = |path: &AbsPath| {
        path.parent() == directory && path.file_name().starts_with(&format!(".{}.stor-", image.file_name()))
    };
    let left: Vec<AbsPath> = files.iter().map(|(path, _)| path).filter(|path| left(path)).cloned().collect();
    left.iter().for_each(|path| _ = files.remove(path));
    files.put(image, text, 0o600);
    answer(0, "")
}

fn link(from: &AbsPath, to: &AbsPath, files: &mut Files) -> Answer {
    if files.exists(to) {
        return failure(1, format!("ln: failed to create hard link '{to}': File exists"));
    }
    match files.get(from).cloned() {
        Some(file) => {
            files.put(to, file.content, file.mode);
            answer(0, "")
        }
        None => failure(1, format!("ln: failed to access '{from}': No such file or directory")),
    }
}

/// Whether a fault hits before an effect, which then did not happen, or after it, which then did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The connection is lost before the effect.
    Before,
    /// The connection is lost after the effect: it happened, and nobody was told.
    After,
}

/// Counts the effects of a whole fleet and breaks the connection at one of them; clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<FaultState>>);

#[derive(Debug, Default)]
struct FaultState {
    at: Option<(usize, When)>,
    trace: Vec<String>,
}

impl Faults {
    /// Breaks the connection once, at the `n`th effect counted from 0.
    #[must_use]
    pub fn at(n: usize, when: When) -> Self {
        Self(Arc::new(Mutex::new(FaultState { at: Some((n, when)), trace: Vec::new() })))
    }
    /// What was asked so far, each as `host: words`.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        held(&self.0).trace.clone()
    }
    /// Runs one effect, or breaks the connection before or after it.
    ///
    /// # Errors
    /// [`HostError::Unreachable`] where the fault hits, otherwise what the effect returns.
    pub fn around<T>(
        &self,
        host: &HostId,
        words: &str,
        effect: impl FnOnce() -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        let when = {
            let mut state = held(&self.0);
            let number = state.trace.len();
            state.trace.push(format!("{host}: {words}"));
            state.at.filter(|(at, _)| *at == number).map(|(_, when)| when)
        };
        match when {
            None => effect(),
            Some(When::Before) => Err(lost(host)),
            Some(When::After) => effect().and_then(|_| Err(lost(host))),
        }
    }
}

fn lost(host: &HostId) -> HostError {
    HostError::Unreachable { host: host.clone(), reason: "connection lost".to_owned(), hint: None }
}

fn held<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host in memory.
pub struct FakeHost {
    id: HostId,
    state: Mutex<State>,
    lock: Arc<Mutex<LockState>>,
    faults: Faults,
}

/// Who holds the host's lock.
#[derive(Debug, Default)]
struct LockState {
    /// Exclusively.
    alone: Option<String>,
    /// Beside each other.
    together: Vec<String>,
    /// What this stor took and has not let go, held or lost.
    taken: Vec<String>,
}

impl LockState {
    fn holders(&self, kind: LockKind) -> Option<String> {
        match kind {
            LockKind::Exclusive if !self.together.is_empty() => Some(self.together.join("; ")),
            LockKind::Exclusive | LockKind::Shared => self.alone.clone(),
        }
    }
    fn is_lost(&self) -> bool {
        let held = |text: &String| self.alone.as_ref() == Some(text) || self.together.contains(text);
        !self.taken.iter().all(held)
    }
    fn let_go(&mut self, text: &str) {
        self.alone = self.alone.take().filter(|alone| alone != text);
        if let Some(at) = self.together.iter().position(|other| other == text) {
            self.together.remove(at);
        }
    }
}

struct State {
    files: Files,
    machine: Box<dyn Machine>,
    down: Option<String>,
}

impl FakeHost {
    /// Makes a host without files.
    #[must_use]
    pub fn new(id: HostId, machine: Box<dyn Machine>, faults: Faults) -> Self {
        let state = State { files: Files::default(), machine, down: None };
        Self { id, state: Mutex::new(state), lock: Arc::default(), faults }
    }
    /// Looks at or changes the files from outside, as somebody on the host would.
    pub fn files<T>(&self, work: impl FnOnce(&mut Files) -> T) -> T {
        work(&mut held(&self.state).files)
    }
    /// Takes the host off the network for this reason, or puts it back.
    pub fn set_down(&self, reason: Option<&str>) {
        held(&self.state).down = reason.map(str::to_owned);
    }
    /// Takes the host's lock from outside, or frees it.
    pub fn set_lock(&self, holder: Option<&str>) {
        held(&self.lock).alone = holder.map(str::to_owned);
    }
    /// Ends the connection that holds the host's lock: it is free, and whoever took it does not know.
    pub fn lose_lock(&self) {
        let mut lock = held(&self.lock);
        (lock.alone, lock.together) = (None, Vec::new());
    }
    /// The host, if it is up and the lock that was taken is still held.
    fn locked(&self) -> Result<MutexGuard<'_, State>, HostError> {
        let state = self.up()?;
        match held(&self.lock).is_lost() {
            true => Err(HostError::LockLost { host: self.id.clone() }),
            false => Ok(state),
        }
    }
    fn up(&self) -> Result<MutexGuard<'_, State>, HostError> {
        let state = held(&self.state);
        match state.down.clone() {
            Some(reason) => Err(HostError::Unreachable { host: self.id.clone(), reason, hint: None }),
            None => Ok(state),
        }
    }
    fn protocol(&self, reason: impl ToString) -> HostError {
        HostError::Protocol { host: self.id.clone(), reason: reason.to_string() }
    }
}

struct FakeLock(Arc<Mutex<LockState>>, String);
impl LockGuard for FakeLock {}
impl Drop for FakeLock {
    fn drop(&mut self) {
        let mut lock = held(&self.0);
        lock.let_go(&self.1);
        if let Some(at) = lock.taken.iter().position(|taken| *taken == self.1) {
            lock.taken.remove(at);
        }
    }
}

impl Host for FakeHost {
    fn id(&self) -> &HostId {
        &self.id
    }

    fn query(&self, batch: &[Query]) -> Result<Vec<Answer>, HostError> {
        let mut state = self.up()?;
        let State { files, machine, .. } = &mut *state;
        Ok(batch.iter().map(|query| machine.run(query.command(), files)).collect())
    }

    fn lock(&self, holder: &Holder, batch: &[Query]) -> Result<(Box<dyn LockGuard>, Vec<Answer>), HostError> {
        drop(self.up()?);
        {
            let mut lock = held(&self.lock);
            if let Some(holder) = lock.holders(holder.kind) {
                return Err(HostError::Busy { host: self.id.clone(), holder });
            }
            match holder.kind {
                LockKind::Exclusive => lock.alone = Some(holder.text.clone()),
                LockKind::Shared => lock.together.push(holder.text.clone()),
            }
            lock.taken.push(holder.text.clone());
        }
        let guard = Box::new(FakeLock(Arc::clone(&self.lock), holder.text.clone()));
        Ok((guard, self.query(batch)?))
    }

    fn holds_lock(&self) -> Result<(), HostError> {
        self.locked().map(drop)
    }

    fn run(&self, command: &Command) -> Result<Output, HostError> {
        let mut state = self.locked()?;
        let State { files, machine, .. } = &mut *state;
        self.faults.around(&self.id, &command.to_string(), || {
            let ended = machine.run(command, files);
            super::judge(&self.id, command, ended)
        })
    }

    fn write_file(&self, file: &FileSpec) -> Result<(), HostError> {
        let mut state = self.locked()?;
        self.faults.around(&self.id, &format!("write {}", file.path), || {
            let content = match &file.content {
                FileContent::Text(text) => &**text,
                FileContent::Secret(secret) => secret.reveal(),
            };
            state.files.put(&file.path, content, file.mode.0);
            Ok(())
        })
    }

    fn feed(&self, command: &Command, source: &Path) -> Result<Output, HostError> {
        let mut state = self.locked()?;
        let State { files, machine, .. } = &mut *state;
        self.faults.around(&self.id, &format!("{command} <{}", source.display()), || {
            let content = std::fs::read(source).map_err(|source_error| HostError::Local {
                action: format!("read {}", source.display()),
                source: source_error,
            })?;
            let text = String::from_utf8_lossy(&content).into_owned();
            let command = command.clone().arg(content.len().to_string()).stdin(Stdin::Text(text));
            super::judge(&self.id, &command, machine.run(&command, files))
        })
    }

    fn edit_block(&self, spec: &BlockSpec, keys: &[String]) -> Result<(), HostError> {
        let mut state = self.locked()?;
        self.faults.around(&self.id, &format!("edit {}", spec.path), || {
            let lines = block::lines(spec, keys).map_err(|error| self.protocol(error))?;
            let old = state.files.get(&spec.path).cloned();
            if old.is_none() && lines.is_none() {
                return Ok(());
            }
            let (content, mode) = old.map_or((Vec::new(), spec.mode.0), |file| (file.content, file.mode));
            let new =
                block::splice(&content, spec, lines.as_deref()).map_err(|error| self.protocol(error))?;
            state.files.put(&spec.path, new, mode);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
