//! What an effect means in commands and files: the one place that knows, so that what `execute` runs and what
//! `stor plan --script` prints cannot differ.
//!
//! Pure. Imports `model` only; running and quoting belong in `execute` and `host`.

use std::path::Path;

use crate::model::path::PathError;
use crate::model::{
    AbsPath, BlockSpec, Command, Effect, FileSpec, ImageLocation, ImageSpec, Secret, SecretId,
};

/// Deadline for copying or preparing an image on the host.
const IMAGE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(600);
/// What `qemu-img` says of an image that does not exist (strerror(ENOENT) in the C locale).
pub const NO_SUCH_FILE: &str = "No such file or directory";

/// Says why an effect has no commands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// The image's partial name is longer than a path may be.
    #[error("image has no room for a partial file beside it")]
    Partial(#[source] PathError),
    /// libgfapi offers `qemu-img` no way to give a file its name only once it is complete.
    #[error("image {location} cannot be filled from a file: its storage is not mounted on the host")]
    SourceUnmounted {
        /// Where the image goes.
        location: String,
    },
}

/// One action on the step's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<'a> {
    /// Runs a command.
    Run(Command),
    /// Runs a read-only command that must fail and say [`NO_SUCH_FILE`]; any other end stops the step.
    MustBeAbsent {
        /// The command.
        probe: Command,
        /// What must not exist yet.
        subject: String,
    },
    /// Writes a file whole.
    WriteFile(&'a FileSpec),
    /// Sets or removes a marked block.
    EditBlock(&'a BlockSpec),
    /// Copies a file of the machine that runs stor to a path that does not exist.
    CopyIn {
        /// The local file.
        source: &'a Path,
        /// The path on the host.
        target: AbsPath,
    },
    /// Defines, builds, starts and autostarts a pool through libvirt.
    EnsurePool {
        /// Pool name.
        name: &'a str,
        /// Pool XML.
        xml: &'a str,
    },
    /// Stops and undefines a pool through libvirt.
    RemovePool {
        /// Pool name.
        name: &'a str,
    },
    /// Defines a secret through libvirt and sets its value.
    EnsureSecret {
        /// UUID.
        id: SecretId,
        /// Secret XML.
        xml: &'a str,
        /// The value.
        value: &'a Secret,
    },
    /// Writes the stamp of a secret's value; what a person typed cannot be stamped.
    Stamp(&'a FileSpec),
    /// Undefines a secret through libvirt.
    RemoveSecret {
        /// UUID.
        id: SecretId,
    },
    /// Defines a domain through libvirt.
    DefineGuest {
        /// Domain name.
        name: &'a str,
        /// Domain XML.
        xml: &'a str,
    },
    /// Undefines a domain through libvirt.
    UndefineGuest {
        /// Domain name.
        name: &'a str,
    },
}

/// An effect in actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion<'a> {
    /// What runs, in order, up to the first failure.
    pub actions: Vec<Action<'a>>,
    /// What runs afterwards, whether the actions succeeded or not.
    pub cleanup: Vec<Command>,
}

impl<'a> Expansion<'a> {
    fn of(actions: impl IntoIterator<Item = Action<'a>>) -> Self {
        Self { actions: actions.into_iter().collect(), cleanup: Vec::new() }
    }
}

/// Says what `effect` does, in order.
///
/// # Errors
/// [`ExpandError`] for an effect that no sequence of commands can carry out safely.
pub fn expand(effect: &Effect) -> Result<Expansion<'_>, ExpandError> {
    Ok(match effect {
        Effect::Run(commands) => Expansion::of(commands.iter().cloned().map(Action::Run)),
        Effect::WriteFile(file) => Expansion::of([Action::WriteFile(file)]),
        Effect::RemoveFiles(paths) => Expansion::of([Action::Run(remove(paths))]),
        Effect::EditBlock(block) => Expansion::of([Action::EditBlock(block)]),
        Effect::EnsurePool { name, xml } => Expansion::of([Action::EnsurePool { name, xml }]),
        Effect::RemovePool { name } => Expansion::of([Action::RemovePool { name }]),
        Effect::EnsureSecret { id, xml, value, stamp } => {
            Expansion::of([Action::EnsureSecret { id: *id, xml, value }, Action::Stamp(stamp)])
        }
        Effect::RemoveSecret { id, stamp } => {
            Expansion::of([Action::RemoveSecret { id: *id }, Action::Run(remove([stamp]))])
        }
        Effect::DefineGuest { name, xml } => Expansion::of([Action::DefineGuest { name, xml }]),
        Effect::UndefineGuest { name } => Expansion::of([Action::UndefineGuest { name }]),
        Effect::CreateImage(image) => create_image(image)?,
    })
}

fn remove<'p>(paths: impl IntoIterator<Item = &'p AbsPath>) -> Command {
    Command::new("rm").args(["-f", "--"]).args(paths.into_iter().map(AbsPath::as_str))
}

fn create_image(image: &ImageSpec) -> Result<Expansion<'_>, ExpandError> {
    match &image.location {
        ImageLocation::File(path) => create_file(image, path),
        // An export's images are made on its server, as files.
        ImageLocation::Device(_)
        | ImageLocation::Gluster { .. }
        | ImageLocation::Nfs { .. }
        | ImageLocation::Iscsi { .. } => create_remote(image),
    }
}

/// The image gets its name by `ln`, which fails when the name is taken, and only once it is complete and on disk;
/// `mv -n` would look first and rename later where the file system lacks RENAME_NOREPLACE, as FUSE ones do.
fn create_file<'a>(image: &'a ImageSpec, path: &AbsPath) -> Result<Expansion<'a>, ExpandError> {
    let directory = path.parent();
    let partial =
        directory.join(&format!(".{}.stor-partial", path.file_name())).map_err(ExpandError::Partial)?;
    let mut actions = vec![Action::Run(remove([&partial]))];
    match &image.source {
        None => actions.push(Action::Run(qemu_img_create(partial.as_str(), image))),
        Some(source) => {
            actions.push(Action::CopyIn { source, target: partial.clone() });
            actions.push(Action::Run(qemu_img_resize(partial.as_str(), image)));
        }
    }
    // Whoever may write to the directory is who QEMU runs as; nobody else has to read a guest's disk.
    let reference = format!("--reference={directory}");
    actions.push(Action::Run(Command::new("chown").args([&reference, "--", partial.as_str()])));
    actions.push(Action::Run(Command::new("chmod").args(["0600", "--", partial.as_str()])));
    actions.push(Action::Run(Command::new("sync").arg(partial.as_str()).deadline(IMAGE_DEADLINE)));
    actions.push(Action::Run(Command::new("ln").args(["-T", "--", partial.as_str(), path.as_str()])));
    actions.push(Action::Run(Command::new("sync").arg(directory.as_str())));
    Ok(Expansion { actions, cleanup: vec![remove([&partial])] })
}

fn create_remote(image: &ImageSpec) -> Result<Expansion<'_>, ExpandError> {
    let url = image.location.to_string();
    if image.source.is_some() {
        return Err(ExpandError::SourceUnmounted { location: url });
    }
    let format = image.format.to_string();
    let probe = Command::new("qemu-img").args(["info", "-f", &format, &url]).deadline(IMAGE_DEADLINE);
    let create = qemu_img_create(&url, image);
    Ok(Expansion::of([Action::MustBeAbsent { probe, subject: url }, Action::Run(create)]))
}

fn qemu_img_create(target: &str, image: &ImageSpec) -> Command {
    let (format, size) = (image.format.to_string(), image.size.bytes().to_string());
    Command::new("qemu-img").args(["create", "-q", "-f", &format, target, &size]).deadline(IMAGE_DEADLINE)
}

/// Grows the copy to the size of the file; `qemu-img` refuses to shrink without `--shrink`.
fn qemu_img_resize(target: &str, image: &ImageSpec) -> Command {
    let (format, size) = (image.format.to_string(), image.size.bytes().to_string());
    Command::new("qemu-img").args(["resize", "-q", "-f", &format, target, &size]).deadline(IMAGE_DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ImageFormat;

    fn image(location: ImageLocation, source: Option<&str>) -> Effect {
        let (format, size) = (ImageFormat::Raw, "1GiB".parse().unwrap());
        Effect::CreateImage(ImageSpec { location, format, size, source: source.map(Into::into) })
    }

    fn file(path: &str) -> ImageLocation {
        ImageLocation::File(AbsPath::new(path).unwrap())
    }

    fn words(expansion: &Expansion<'_>) -> Vec<String> {
        expansion
            .actions
            .iter()
            .map(|action| match action {
                Action::Run(command) => command.to_string(),
                Action::MustBeAbsent { probe, .. } => format!("absent: {probe}"),
                Action::CopyIn { source, target } => format!("copy {} {target}", source.display()),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_new_image_gets_its_name_last_and_never_by_overwriting() {
        let effect = image(file("/mnt/web1.img"), None);
        let expansion = expand(&effect).unwrap();
        assert_eq!(
            words(&expansion),
            [
                "rm -f -- /mnt/.web1.img.stor-partial",
                "qemu-img create -q -f raw /mnt/.web1.img.stor-partial 1073741824",
                "chown --reference=/mnt -- /mnt/.web1.img.stor-partial",
                "chmod 0600 -- /mnt/.web1.img.stor-partial",
                "sync /mnt/.web1.img.stor-partial",
                "ln -T -- /mnt/.web1.img.stor-partial /mnt/web1.img",
                "sync /mnt",
            ]
        );
        assert_eq!(expansion.cleanup[0].to_string(), "rm -f -- /mnt/.web1.img.stor-partial");
    }

    #[test]
    fn a_copied_image_is_grown_before_it_gets_its_name() {
        let effect = image(file("/mnt/web1.img"), Some("base.img"));
        let expansion = expand(&effect).unwrap();
        assert_eq!(words(&expansion)[1], "copy base.img /mnt/.web1.img.stor-partial");
        assert_eq!(words(&expansion)[2], "qemu-img resize -q -f raw /mnt/.web1.img.stor-partial 1073741824");
    }

    #[test]
    fn an_image_on_an_unmounted_volume_is_created_only_when_it_is_known_to_be_absent() {
        let gluster = |source| {
            let servers = vec!["10.0.0.1".to_owned()];
            image(ImageLocation::Gluster { servers, volume: "gfs".into(), path: "web1.img".into() }, source)
        };
        assert_eq!(
            words(&expand(&gluster(None)).unwrap()),
            [
                "absent: qemu-img info -f raw gluster://10.0.0.1/gfs/web1.img",
                "qemu-img create -q -f raw gluster://10.0.0.1/gfs/web1.img 1073741824",
            ]
        );
        assert!(matches!(expand(&gluster(Some("x"))), Err(ExpandError::SourceUnmounted { .. })));
    }
}
