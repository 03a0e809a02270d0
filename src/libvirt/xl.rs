//! What Xen itself says of a host, where libvirt's driver does not: xl(1), `info`.
//!
//! Pure. Imports `model` only. What follows from it is decided in `migrate`.

use std::collections::BTreeSet;

use crate::model::{Command, Query};

/// Asks what Xen can do.
#[must_use]
pub fn query() -> Query {
    Query::new(Command::new("xl").arg("info"))
}

/// The words behind `virt_caps` in what [`query`] prints: kinds of guests, and how their memory may be managed.
#[must_use]
pub fn virt_caps(text: &str) -> BTreeSet<String> {
    let values =
        text.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| key.trim() == "virt_caps");
    values.flat_map(|(_, words)| words.split_whitespace().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_xen_under_emulation_runs_paravirtualised_guests_and_has_no_shadow_paging() {
        let text = include_str!("../../fixtures/outputs/xl/debian13-xen4.20-info.txt");
        assert!(virt_caps(text).contains("pv") && !virt_caps(text).contains("shadow"), "{text}");
        assert!(virt_caps("xen_caps : xen-3.0-x86_64").is_empty());
    }
}
