//! The layers of a disk beside its own image, as the XML names them: images below it, external data, a copy under way.

use serde::Serialize;

use super::read::{DiskSource, source_of};
use crate::libvirt::xml::Element;

/// One image that a disk needs besides its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Layer {
    /// Where it is.
    pub source: DiskSource,
    /// Its format, where it is told.
    pub format: Option<String>,
    /// What it is to the image above it.
    pub role: LayerRole,
}

/// What a layer is to the image above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerRole {
    /// It holds what the image above does not.
    Backing,
    /// It holds the clusters of the image itself.
    Data,
}

/// Whether the XML tells all layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChainEnd {
    /// It ends: an empty `<backingStore/>`, or an image whose format has nothing below it.
    Told,
    /// The last image may have others below it.
    #[default]
    Open,
}

/// Whether an image of this format has no other below it; without a word libvirt takes `raw`.
#[must_use]
pub fn stands_alone(format: Option<&str>) -> bool {
    matches!(format, None | Some("raw"))
}

/// Reads the layers of a `<disk>` whose own image has this format.
pub(super) fn read(disk: &Element, format: Option<&str>) -> (Vec<Layer>, ChainEnd) {
    let mut layers = Vec::new();
    data(disk, &mut layers);
    let mut at = disk;
    let mut format = format.map(str::to_owned);
    loop {
        if stands_alone(format.as_deref()) {
            return (layers, ChainEnd::Told);
        }
        let Some(below) = at.first("backingStore") else { return (layers, ChainEnd::Open) };
        let source = source_of(below);
        if source == DiskSource::Empty {
            return (layers, ChainEnd::Told);
        }
        // An image that names no format may be of any.
        let named = below.first("format").and_then(|format| format.attribute("type")).map(str::to_owned);
        layers.push(Layer { source, format: named.clone(), role: LayerRole::Backing });
        data(below, &mut layers);
        (at, format) = (below, Some(named.unwrap_or_else(|| "unknown".to_owned())));
    }
}

/// `<source><dataStore type=..><format/><source/></dataStore></source>` (libvirt 10.10).
fn data(element: &Element, layers: &mut Vec<Layer>) {
    let Some(store) = element.first("source").and_then(|source| source.first("dataStore")) else { return };
    let format = store.first("format").and_then(|format| format.attribute("type")).map(str::to_owned);
    layers.push(Layer { source: source_of(store), format, role: LayerRole::Data });
}
