//! What a host keeps of a guest in files beside its disks: firmware variables, the state of an emulated TPM.

use serde::Serialize;

use crate::libvirt::xml::Element;

/// Where libvirt keeps the state of emulated TPMs, one directory for each UUID (`swtpmStorageDir`, fixed when it is built).
const TPM_DIRECTORY: &str = "/var/lib/libvirt/swtpm";

/// One state of a guest that is a file or a directory of its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateFile {
    /// What it holds.
    pub kind: StateKind,
    /// Where it is; `None` where the XML leaves that to libvirt.
    pub place: Option<String>,
}

/// What a state is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateKind {
    /// The variables of UEFI firmware: boot entries, keys of secure boot.
    FirmwareVariables,
    /// The state of a TPM that swtpm emulates: the keys that disks are sealed with.
    Tpm,
}

impl std::fmt::Display for StateKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::FirmwareVariables => "firmware variables",
            Self::Tpm => "the state of its TPM",
        })
    }
}

pub(super) fn read(root: &Element, devices: &Element) -> Vec<StateFile> {
    let mut found: Vec<StateFile> = firmware(root).into_iter().collect();
    let uuid = root.text_at("uuid").map(str::to_ascii_lowercase);
    for backend in devices.all("tpm").filter_map(|tpm| tpm.first("backend")) {
        // A TPM of the host, or of another program, is a device; here its state is of no concern.
        if backend.attribute("type") != Some("emulator") {
            continue;
        }
        let named = backend.first("source").and_then(|source| source.attribute("path")).map(str::to_owned);
        let place = named.or_else(|| uuid.as_ref().map(|uuid| format!("{TPM_DIRECTORY}/{uuid}")));
        found.push(StateFile { kind: StateKind::Tpm, place });
    }
    found
}

/// `<nvram>` as text or with a `<source>` of type `file`; without it libvirt fills one in for writable UEFI firmware.
fn firmware(root: &Element) -> Option<StateFile> {
    let os = root.first("os")?;
    let state = |place| Some(StateFile { kind: StateKind::FirmwareVariables, place });
    if let Some(store) = os.first("varstore") {
        return state(store.attribute("path").map(str::to_owned));
    }
    if let Some(nvram) = os.first("nvram") {
        let source = nvram.first("source").and_then(|source| source.attribute("file")).map(str::to_owned);
        let text = Some(nvram.text.trim()).filter(|text| !text.is_empty()).map(str::to_owned);
        return state(source.or(text));
    }
    let loader = os.first("loader");
    let stateless = loader.and_then(|loader| loader.attribute("stateless")) == Some("yes");
    let flash = loader.and_then(|loader| loader.attribute("type")) == Some("pflash");
    if (os.attribute("firmware") == Some("efi") || flash) && !stateless { state(None) } else { None }
}
