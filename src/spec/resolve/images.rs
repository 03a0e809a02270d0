//! Images. Imports what `resolve` imports.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::cluster::ImageEntry;
use super::super::files;
use super::super::input::{At, Entries};
use super::super::problem::{Problem, Problems};
use super::super::raw::{RawFormat, RawImage};
use super::{Storages, lookup, named, optional};
use crate::model::{ImageFormat, ImageId, StorageId};

/// Resolves the images; an image with a problem keeps its name, so that its guests are not blamed for it.
pub fn resolve(
    raw: Entries<ImageId, RawImage>,
    storage: (&BTreeMap<StorageId, ()>, &Storages),
    base: &Path,
    problems: &mut Problems,
) -> BTreeMap<ImageId, Option<ImageEntry>> {
    let entries = named("images", raw, problems);
    entries
        .into_iter()
        .map(|(At { value: id, .. }, raw)| (id.clone(), image(id, &raw, storage, base, problems)))
        .collect()
}

fn image(
    id: ImageId,
    raw: &RawImage,
    (known, resolved): (&BTreeMap<StorageId, ()>, &Storages),
    base: &Path,
    problems: &mut Problems,
) -> Option<ImageEntry> {
    let storage = raw.storage.parse_at(format_args!("image {id}: storage"), problems).filter(|at| {
        lookup(known, &at.value, "storage", at.place, format_args!("image {id}"), problems).is_some()
    });
    let size = raw.size.parse(format_args!("image {id}: size"), problems);
    let format = match raw.format {
        None | Some(RawFormat::Raw) => ImageFormat::Raw,
        Some(RawFormat::Qcow2) => ImageFormat::Qcow2,
    };
    let subject = format!("image {id}: source");
    let source = match optional(raw.source.as_ref(), &subject, problems) {
        None => None,
        Some(at) => {
            if let Some(id) = storage.as_ref().map(|storage| &storage.value)
                && resolved.get(id).is_some_and(|storage| !storage.takes_sources())
            {
                problems.add(|| {
                    let message = format!("{subject}: storage {id} is mounted nowhere, so nothing can be copied into it");
                    Problem::new(at.place, message)
                        .hint("write access: mount for the storage, or leave out source and fill the image yourself")
                });
            }
            let path = files::locate(&at, base, &subject, problems)?;
            files::check_source(&path, &at, format, size, &subject, problems);
            Some(path)
        }
    };
    Some(ImageEntry { id, storage: storage?.value, size: size?, format, source })
}
