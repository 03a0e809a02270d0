//! What an effect means in commands and files: the one place that knows, so that what `execute` runs and what
//! `stor plan --script` prints cannot differ.
//!
//! Pure. Imports `model` only; running and quoting belong in `execute` and `host`.

use std::path::Path;

use crate::model::{
    AbsPath, BlockSpec, Command, Effect, FileSpec, HostId, ImageLocation, ImageSpec, Secret, SecretId,
};

/// Deadline for copying or preparing an image on the host.
const IMAGE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(600);
/// Makes an image on a directory that other hosts write to; see the file for its arguments.
const MAKE_IMAGE: &str = include_str!("expand/image.sh");
/// What `qemu-img` says of an image that does not exist (strerror(ENOENT) in the C locale).
pub const NO_SUCH_FILE: &str = "No such file or directory";

/// Says why an effect has no commands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
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
    /// Runs a command whose standard input is a file of the machine that runs stor, with the file's length as its last argument.
    Feed {
        /// The local file.
        source: &'a Path,
        /// The command without its last argument.
        command: Command,
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
        /// Its UUID.
        uuid: &'a str,
        /// Who must not have it, nor use its images.
        hypervisors: &'a [HostId],
        /// Domain XML.
        xml: &'a str,
    },
    /// Undefines a domain through libvirt.
    UndefineGuest {
        /// Domain name.
        name: &'a str,
        /// Its UUID.
        uuid: &'a str,
    },
}

/// An effect in actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion<'a> {
    /// What runs, in order, up to the first failure.
    pub actions: Vec<Action<'a>>,
}

impl<'a> Expansion<'a> {
    fn of(actions: impl IntoIterator<Item = Action<'a>>) -> Self {
        Self { actions: actions.into_iter().collect() }
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
        Effect::DefineGuest { name, uuid, hypervisors, xml } => {
            Expansion::of([Action::DefineGuest { name, uuid, hypervisors, xml }])
        }
        Effect::UndefineGuest { name, uuid } => Expansion::of([Action::UndefineGuest { name, uuid }]),
        Effect::CreateImage(image) => create_image(image)?,
    })
}

fn remove<'p>(paths: impl IntoIterator<Item = &'p AbsPath>) -> Command {
    Command::new("rm").args(["-f", "--"]).args(paths.into_iter().map(AbsPath::as_str))
}

fn create_image(image: &ImageSpec) -> Result<Expansion<'_>, ExpandError> {
    match &image.location {
        ImageLocation::File(path) => Ok(create_file(image, path)),
        // An export's images are made on its server, as files.
        ImageLocation::Device(_)
        | ImageLocation::Gluster { .. }
        | ImageLocation::Nfs { .. }
        | ImageLocation::Iscsi { .. } => create_remote(image),
    }
}

/// One program, because between two the file could be replaced by another host that has the storage.
fn create_file<'a>(image: &'a ImageSpec, path: &AbsPath) -> Expansion<'a> {
    let (format, size) = (image.format.to_string(), image.size.bytes().to_string());
    let make = Command::new("sh")
        .args(["-c", MAKE_IMAGE, "stor-make-image", path.parent().as_str(), path.file_name()])
        .args([format, size])
        .deadline(IMAGE_DEADLINE);
    let make = match &image.source {
        None => Action::Run(make.arg("-")),
        Some(source) => Action::Feed { source, command: make },
    };
    Expansion::of(image.mounted.iter().cloned().map(Action::Run).chain([make]))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ImageFormat;

    fn image(location: ImageLocation, source: Option<&str>) -> Effect {
        let (format, size) = (ImageFormat::Raw, "1GiB".parse().unwrap());
        Effect::CreateImage(ImageSpec {
            location,
            format,
            size,
            source: source.map(Into::into),
            mounted: None,
        })
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
                Action::Feed { source, command } => format!("{command} <{}", source.display()),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn an_image_in_a_directory_is_made_by_one_program() {
        let first = MAKE_IMAGE.lines().next().unwrap();
        for (source, last) in [(None, " -"), (Some("base.img"), " <base.img")] {
            let effect = image(file("/mnt/web1.img"), source);
            let program = format!("sh -c {first} [...] stor-make-image /mnt web1.img raw 1073741824{last}");
            assert_eq!(words(&expand(&effect).unwrap()), [program]);
        }
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
