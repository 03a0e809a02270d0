//! What a disk's image really is, and every image below it: a query and pure readers.
//!
//! A host is asked for the first bytes of an image, which tell its format without a parser that the image's owner could attack, and
//! `qemu-img info --backing-chain` for what lies below it. The XML of a running guest tells the same; both count.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{Known, disk_path, disk_url, last_line};
use crate::libvirt::domain_xml::{ChainEnd, DiskSource, DiskSummary, Layer, LayerRole, stands_alone};
use crate::model::{Answer, Command, Query};
use crate::spec::Cluster;
use crate::storage::image_format::{self, Signature};

/// Closing a GlusterFS volume takes QEMU's own client ten seconds.
const DEADLINE: Duration = Duration::from_secs(40);

/// One image that a host is asked about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    /// Its path, or QEMU's URL.
    pub place: String,
    /// The format as which QEMU opens it; `None` where nothing can be below it.
    pub format: Option<String>,
}

/// What a host shows of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// What its first bytes are a sign of; unknown for one that QEMU reaches by URL.
    pub signature: Known<Signature>,
    /// The images below it, from top to bottom; empty where it was not asked for them.
    pub below: Known<Vec<Layer>>,
}

/// Asks a host about an image.
#[must_use]
pub fn query(image: &Image) -> Query {
    let format = image.format.as_deref().unwrap_or_default();
    let command = Command::new("sh").args(["-c", image_format::SHOW, "stor-image", format, &image.place]);
    Query::patient(command.deadline(DEADLINE))
}

/// Reads the answer to [`query`].
#[must_use]
pub fn read(image: &Image, answer: Option<&Answer>) -> ImageFacts {
    let unknown = |reason: String| ImageFacts { signature: Err(reason.clone()), below: Err(reason) };
    let Some(answer) = answer else { return unknown("it was not asked".to_owned()) };
    if answer.status.is_none() {
        return unknown("looking at it did not finish in time".to_owned());
    }
    let Some((head, chain)) = answer.stdout.split_once("==\n") else {
        return unknown(last_line(&answer.stderr));
    };
    let signature = match head.trim() {
        "" if !image.place.starts_with('/') => Err("its first bytes are not looked at".to_owned()),
        // An empty file has no bytes.
        text => Signature::read(text),
    };
    let below = match (&image.format, answer.ok()) {
        (None, _) => Ok(Vec::new()),
        (Some(_), true) => below(chain),
        (Some(_), false) => Err(last_line(&answer.stderr)),
    };
    ImageFacts { signature, below }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    filename: String,
    format: String,
    #[serde(default)]
    children: Vec<Child>,
    format_specific: Option<Specific>,
}

#[derive(Deserialize)]
struct Child {
    name: String,
    info: ChildInfo,
}

#[derive(Deserialize)]
struct ChildInfo {
    format: Option<String>,
}

#[derive(Deserialize)]
struct Specific {
    data: Option<SpecificData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SpecificData {
    data_file: Option<String>,
}

/// Reads `qemu-img info --backing-chain --output=json`: the first entry is the image itself.
fn below(text: &str) -> Known<Vec<Layer>> {
    let entries: Vec<Entry> =
        serde_json::from_str(text).map_err(|error| format!("`qemu-img info`: {error}"))?;
    let mut layers = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let device = entry.children.iter().any(|child| {
            child.name == "file"
                && child.info.format.as_deref().is_some_and(|format| format.starts_with("host_"))
        });
        if index > 0 {
            let source = source(&entry.filename, device);
            layers.push(Layer { source, format: Some(entry.format.clone()), role: LayerRole::Backing });
        }
        let data =
            entry.format_specific.as_ref().and_then(|specific| specific.data.as_ref()?.data_file.as_ref());
        if let Some(file) = data {
            let source = source(&beside(&entry.filename, file), false);
            layers.push(Layer { source, format: Some("raw".to_owned()), role: LayerRole::Data });
        }
    }
    if entries.is_empty() { Err("`qemu-img info` named no image".to_owned()) } else { Ok(layers) }
}

/// A name in an image's header is relative to the image (`path_combine` in QEMU).
fn beside(image: &str, name: &str) -> String {
    let named_whole =
        name.starts_with('/') || name.split('/').next().is_some_and(|first| first.contains(':'));
    match image.rsplit_once('/') {
        Some((directory, _)) if !named_whole => format!("{directory}/{name}"),
        _ => name.to_owned(),
    }
}

/// Where QEMU finds an image of this name.
fn source(name: &str, device: bool) -> DiskSource {
    let path = name.strip_prefix("file:").unwrap_or(name);
    if path.starts_with('/') {
        let path = path.to_owned();
        return if device || path.starts_with("/dev/") {
            DiskSource::Block(path)
        } else {
            DiskSource::File(path)
        };
    }
    let network = name.split_once("://").and_then(|(protocol, rest)| {
        let protocol = protocol.strip_suffix("+tcp").unwrap_or(protocol);
        let (host, place) = rest.split_once('/')?;
        let place = place.split('?').next()?;
        let place = if protocol == "nfs" { format!("/{place}") } else { place.to_owned() };
        matches!(protocol, "gluster" | "nfs").then(|| DiskSource::Network {
            protocol: protocol.to_owned(),
            name: place,
            hosts: vec![host.to_owned()],
        })
    });
    network.unwrap_or_else(|| DiskSource::Other(name.to_owned()))
}

/// Where the host that is asked finds the image of a disk or a layer.
fn place(source: &DiskSource, cluster: &Cluster) -> Option<String> {
    match source {
        DiskSource::Block(path) => Some(path.clone()),
        source => disk_path(source, cluster).or_else(|| disk_url(source, cluster)),
    }
}

/// The images of a disk that have to be asked for what is below them: its own and, where the XML ends in the middle, its last.
/// `None` for one that cannot be asked.
fn heads<'d>(disk: &'d DiskSummary, cluster: &Cluster) -> Vec<(&'d DiskSource, Option<Image>)> {
    let last = disk.layers.iter().rev().find(|layer| layer.role == LayerRole::Backing);
    let last = last.filter(|_| disk.chain == ChainEnd::Open);
    let last = last.map(|layer| (&layer.source, layer.format.as_deref()));
    let own = (disk.source != DiskSource::Empty).then_some((&disk.source, disk.format.as_deref()));
    let head = |(source, format): (&'d DiskSource, Option<&str>)| {
        let format = (!stands_alone(format)).then(|| format.unwrap_or_default().to_owned());
        let image = place(source, cluster).map(|place| Image { place, format });
        (source, image)
    };
    // An own image that stands alone is looked at for its format only, and needs a file for that.
    own.into_iter().chain(last).map(head).collect()
}

/// Every image of a guest that a host has to be asked about.
#[must_use]
pub fn images(disks: &[DiskSummary], cluster: &Cluster) -> Vec<Image> {
    let all = disks.iter().flat_map(|disk| heads(disk, cluster)).filter_map(|(_, image)| image);
    let mut all: Vec<Image> =
        all.filter(|image| image.format.is_some() || image.place.starts_with('/')).collect();
    all.sort();
    all.dedup();
    all
}

/// All layers of a disk besides its own image: those that the XML names, and those that the host found.
///
/// # Errors
/// Why it is not known what they are. Where the XML tells them all, QEMU uses these, and a host that finds none changes nothing.
pub fn layers(
    disk: &DiskSummary,
    found: &BTreeMap<Image, ImageFacts>,
    cluster: &Cluster,
) -> Known<Vec<Layer>> {
    let mut all = disk.layers.clone();
    for (source, image) in heads(disk, cluster) {
        let below = match &image {
            Some(image) if image.format.is_none() => continue,
            Some(image) => match found.get(image) {
                Some(facts) => facts.below.clone(),
                None => Err(format!("{} was not asked for them", image.place)),
            },
            None if stands_alone(disk.format.as_deref()) => continue,
            None => Err(format!("{source:?} cannot be asked for them")),
        };
        match below {
            Ok(below) => all.extend(below),
            Err(_) if disk.chain == ChainEnd::Told => {}
            Err(reason) => return Err(reason),
        }
    }
    let mut named = std::collections::BTreeSet::new();
    all.retain(|layer| layer.source != DiskSource::Empty && named.insert(layer.source.clone()));
    Ok(all)
}

/// Says in a sentence that a disk's own image is of another format than its XML says; `Err` why that is not known.
#[must_use]
pub fn format_fault(
    disk: &DiskSummary,
    found: &BTreeMap<Image, ImageFacts>,
    cluster: &Cluster,
) -> Option<Known<String>> {
    let own = heads(disk, cluster).into_iter().next()?.1.filter(|image| image.place.starts_with('/'))?;
    let signature = match found.get(&own) {
        None => return Some(Err("it was not asked".to_owned())),
        Some(ImageFacts { signature: Err(reason), .. }) => return Some(Err(reason.clone())),
        Some(ImageFacts { signature: Ok(signature), .. }) => *signature,
    };
    let said = disk.format.as_deref().unwrap_or("raw");
    let message = || format!("disk {}: {} is {signature}, but its XML says {said}", disk.target, own.place);
    (!signature.is_of(said)).then(|| Ok(message()))
}

#[cfg(test)]
mod tests;
