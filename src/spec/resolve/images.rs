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
use crate::storage::spec::{RefusedKey, StorageSpec};

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
    let format = match raw.format.map(|at| at.value) {
        None | Some(RawFormat::Raw) => ImageFormat::Raw,
        Some(RawFormat::Qcow2) => ImageFormat::Qcow2,
    };
    let subject = format!("image {id}: source");
    if let Some(spec) = storage.as_ref().and_then(|storage| resolved.get(&storage.value))
        && let Some(refusal) = spec.refuses(&id, format, size)
    {
        let place = match refusal.key {
            RefusedKey::Storage => raw.storage.place,
            RefusedKey::Format => raw.format.map_or(raw.storage.place, |at| at.place),
            RefusedKey::Size => raw.size.place,
        };
        problems.add(|| {
            let message = format!("image {id}: storage {}: {}", raw.storage.text, refusal.reason);
            Problem::new(place, message).hint(refusal.hint)
        });
    }
    let source = match optional(raw.source.as_ref(), &subject, problems) {
        None => None,
        Some(at) => {
            if let Some(id) = storage.as_ref().map(|storage| &storage.value)
                && let Some((reason, hint)) = resolved.get(id).and_then(StorageSpec::refuses_sources)
            {
                problems
                    .add(|| Problem::new(at.place, format!("{subject}: storage {id} {reason}")).hint(hint));
            }
            let path = files::locate(&at, base, &subject, problems)?;
            files::check_source(&path, &at, format, size, &subject, problems);
            Some(path)
        }
    };
    Some(ImageEntry { id, storage: storage?.value, size: size?, format, source })
}
