//! Block devices and LVM on any host.

use std::collections::BTreeMap;

use serde_json::json;
use stor::host::fake::{answer, failure};
use stor::model::{Answer, HostId};

use super::tgt::Servers;

/// Size of an extent, in bytes.
const EXTENT: u64 = 4 << 20;

/// One block device.
#[derive(Debug, Clone, Default)]
pub struct Device {
    /// `MAJOR:MINOR`.
    pub number: String,
    /// `disk`, `part`, `lvm` ...
    pub kind: String,
    pub size: u64,
    pub read_only: bool,
    pub mounted: Option<String>,
    /// What is built on it, or is a part of it: path, number, kind.
    pub below: Vec<(String, String, String)>,
    /// What it is built on, or a part of: path, number, kind.
    pub above: Vec<(String, String, String)>,
    pub signatures: Vec<String>,
    pub claimed: bool,
    /// `ID_SERIAL`.
    pub serial: Option<String>,
}

impl Device {
    /// A disk that nothing uses.
    pub fn disk(number: &str, size: u64) -> Self {
        Self { number: number.to_owned(), kind: "disk".to_owned(), size, ..Self::default() }
    }

    pub fn show(&self) -> String {
        let entry = |path: &str, number: &str, kind: &str, mounted: &Option<String>| {
            let points: Vec<_> = mounted.iter().collect();
            json!({ "path": path, "maj:min": number, "type": kind, "size": self.size, "ro": self.read_only, "mountpoints": points })
        };
        let own = entry("/dev/own", &self.number, &self.kind, &self.mounted);
        let listed = |others: &[(String, String, String)]| {
            let others = others.iter().map(|(path, number, kind)| entry(path, number, kind, &None));
            json!({ "blockdevices": std::iter::once(own.clone()).chain(others).collect::<Vec<_>>() })
        };
        let signatures: Vec<_> = self.signatures.iter().map(|kind| json!({ "type": kind })).collect();
        let mut out = format!(
            "device b:{}\nbelow {}\nabove {}\nsignatures {}\n",
            self.number,
            listed(&self.below),
            listed(&self.above),
            json!({ "signatures": signatures })
        );
        self.serial.iter().for_each(|serial| out.push_str(&format!("id ID_SERIAL={serial}\n")));
        if self.claimed {
            out.push_str("claimed\n");
        }
        out
    }
}

/// LVM of one host.
#[derive(Debug, Clone, Default)]
pub struct Lvm {
    /// Free bytes by group.
    pub groups: BTreeMap<String, u64>,
    /// By `GROUP/NAME`: size, whether it is active.
    pub volumes: BTreeMap<String, (u64, bool)>,
}

impl Servers {
    /// The last look at a device before it is taken.
    pub fn check(&self, host: &HostId, device: &str, identity: &str) -> Answer {
        match self.devices.get(&(host.clone(), device.to_owned())) {
            Some(device) if format!("b:{}", device.number) == identity && !device.claimed => answer(0, ""),
            _ => failure(1, format!("{device} is another device now\n")),
        }
    }

    pub fn lvm(&mut self, host: &HostId, program: &str, args: &[&str]) -> Answer {
        let Some(lvm) = self.lvm.get_mut(host) else {
            return failure(127, format!("sh: 1: {program}: not found\n"));
        };
        let bytes = |text: &str| text.trim_end_matches('b').parse::<u64>().unwrap();
        match (program, args) {
            ("vgs", _) => {
                let groups = lvm.groups.iter().map(|(name, free)| {
                    json!({ "vg_name": name, "vg_free": free.to_string(), "vg_extent_size": EXTENT.to_string() })
                });
                answer(0, json!({ "report": [{ "vg": groups.collect::<Vec<_>>() }] }).to_string())
            }
            ("lvs", _) => {
                let volumes = lvm.volumes.iter().map(|(name, (size, active))| {
                    let (group, name) = name.split_once('/').unwrap();
                    let active = if *active { "active" } else { "" };
                    json!({ "vg_name": group, "lv_name": name, "lv_size": size.to_string(), "lv_active": active })
                });
                answer(0, json!({ "report": [{ "lv": volumes.collect::<Vec<_>>() }] }).to_string())
            }
            ("lvmconfig", _) => answer(0, "use_devicesfile=0\nglobal_filter=[\"a|.*|\"]\nscan_lvs=0\n"),
            ("lvcreate", [.., "--size", size, "--name", name, "--", group]) => {
                let volume = format!("{group}/{name}");
                if lvm.volumes.contains_key(&volume) {
                    return failure(
                        5,
                        format!("  Logical Volume \"{name}\" already exists in volume group\n"),
                    );
                }
                *lvm.groups.get_mut(*group).unwrap() -= bytes(size);
                lvm.volumes.insert(volume.clone(), (bytes(size), true));
                self.shown_as(host, &volume, bytes(size));
                answer(0, "")
            }
            ("lvextend", [.., "--size", size, "--", volume]) => {
                lvm.volumes.get_mut(*volume).unwrap().0 = bytes(size);
                self.shown_as(host, volume, bytes(size));
                answer(0, "")
            }
            ("lvchange", [.., volume]) => {
                let (size, active) = lvm.volumes.get_mut(*volume).unwrap();
                *active = true;
                let size = *size;
                self.shown_as(host, volume, size);
                answer(0, "")
            }
            ("sh", [.., group, name]) => {
                lvm.volumes.remove(&format!("{group}/{name}"));
                self.devices.remove(&(host.clone(), format!("/dev/{group}/{name}")));
                answer(0, "")
            }
            other => panic!("{other:?} is not emulated"),
        }
    }

    fn shown_as(&mut self, host: &HostId, volume: &str, size: u64) {
        let number = format!("253:{}", volume.len());
        let device = Device { kind: "lvm".to_owned(), ..Device::disk(&number, size) };
        self.devices.insert((host.clone(), format!("/dev/{volume}")), device);
    }
}
