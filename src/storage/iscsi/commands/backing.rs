//! What is behind LUNs: files, logical volumes, devices. Pure.
//!
//! Sources: truncate(1), fallocate(1), lvcreate(8), lvextend(8), open(2).

use std::time::Duration;

use crate::model::{AbsPath, ByteSize, Command};
use crate::storage::iscsi::facts::backing::Identity;
use crate::storage::iscsi::spec::{Allocation, VolumeName};

/// Deadline for taking all blocks of a backing file.
const BACKING_DEADLINE: Duration = Duration::from_secs(600);
/// Looks once more at a device; a constant, see the file for its arguments.
const CHECK_DEVICE: &str = include_str!("backing/device.sh");
/// Removes a logical volume; a constant, see the file for its arguments.
const REMOVE_VOLUME: &str = include_str!("backing/remove.sh");

/// What a backing file is called until it is complete.
#[must_use]
pub fn partial(path: &AbsPath) -> String {
    format!("{}/.{}.stor-partial", path.parent(), path.file_name())
}

/// Removes an unfinished backing file that a run left which was interrupted.
#[must_use]
pub fn remove_partial(path: &AbsPath) -> Command {
    Command::new("rm").args(["-f", "--", &partial(path)])
}

/// Makes a backing file that does not exist. It gets its name by `ln`, which fails when the name is taken, and only once it is
/// complete and on disk.
#[must_use]
pub fn make_file(path: &AbsPath, size: ByteSize, allocation: Allocation) -> Vec<Command> {
    let directory = path.parent();
    let partial = partial(path);
    let remove = || remove_partial(path);
    vec![
        Command::new("mkdir").args(["-p", "--", directory.as_str()]),
        remove(),
        resize(&partial, size, allocation),
        Command::new("chmod").args(["0600", "--", &partial]),
        Command::new("sync").arg(&partial).deadline(BACKING_DEADLINE),
        Command::new("ln").args(["-T", "--", &partial, path.as_str()]),
        remove(),
        Command::new("sync").arg(directory.as_str()),
    ]
}

/// Lets a backing file grow; `>` keeps truncate(1) from ever making it smaller, and fallocate(1) never does.
#[must_use]
pub fn grow_file(path: &AbsPath, size: ByteSize, allocation: Allocation) -> Vec<Command> {
    vec![
        resize(path.as_str(), size, allocation),
        Command::new("sync").arg(path.as_str()).deadline(BACKING_DEADLINE),
    ]
}

fn resize(path: &str, size: ByteSize, allocation: Allocation) -> Command {
    let bytes = size.bytes();
    match allocation {
        Allocation::Sparse => Command::new("truncate").args([&format!("--size=>{bytes}"), "--", path]),
        Allocation::Full => Command::new("fallocate")
            .args(["--length", &bytes.to_string(), "--", path])
            .deadline(BACKING_DEADLINE),
    }
}

/// Fails unless a device is still the one that was looked at, and free.
#[must_use]
pub fn check_device(path: &AbsPath, identity: &Identity) -> Command {
    Command::new("sh").args(["-c", CHECK_DEVICE, "stor-check-device", path.as_str(), identity.as_str()])
}

/// Makes a logical volume. Signatures that its blocks still have from former volumes go, and its first blocks are zeros; other blocks keep
/// what was in them.
#[must_use]
pub fn make_volume(name: &VolumeName, size: ByteSize) -> Command {
    let size = format!("{}b", size.bytes());
    let how = ["--yes", "--quiet", "--wipesignatures", "y", "--zero", "y"];
    Command::new("lvcreate").args(how).args(["--size", &size, "--name", &name.name, "--", &name.group])
}

/// Lets a logical volume grow; lvextend(8) never makes it smaller.
#[must_use]
pub fn grow_volume(name: &VolumeName, size: ByteSize) -> Command {
    let size = format!("{}b", size.bytes());
    Command::new("lvextend").args(["--quiet", "--size", &size, "--", &name.to_string()])
}

/// Gives a logical volume its device.
#[must_use]
pub fn activate_volume(name: &VolumeName) -> Command {
    Command::new("lvchange").args(["--activate", "y", "--", &name.to_string()])
}

/// Removes a logical volume with its data; may run again.
#[must_use]
pub fn remove_volume(group: &str, name: &str) -> Command {
    Command::new("sh").args(["-c", REMOVE_VOLUME, "stor-remove-volume", group, name])
}
