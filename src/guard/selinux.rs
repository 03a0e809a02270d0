//! SELinux: the booleans that a storage needs, and nothing else; its mode is never changed.
//!
//! Pure; imports `model`. Sources: getsebool(8), setsebool(8).

use std::time::Duration;

use crate::model::Command;

/// Deadline of `setsebool -P`, which builds the whole policy again: up to a minute on small machines.
const POLICY_DEADLINE: Duration = Duration::from_secs(180);

/// Reads `getsebool NAME`, `NAME --> on`; `None` where the policy has no such boolean, and so nothing that it would allow.
#[must_use]
pub fn parse(text: &str, boolean: &str) -> Option<bool> {
    let word = text.lines().find_map(|line| line.strip_prefix(boolean)?.strip_prefix(" --> "))?;
    match word.trim() {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// The word that `setsebool` takes.
#[must_use]
pub fn word(on: bool) -> &'static str {
    match on {
        true => "on",
        false => "off",
    }
}

/// Sets a boolean now and for every later start.
#[must_use]
pub fn set(boolean: &str, word: &str) -> Command {
    Command::new("setsebool").args(["-P", boolean, word]).deadline(POLICY_DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    // No machine of the lab runs SELinux: the form is that of libselinux 3.8, utils/getsebool.c (`"%s --> %s\n"`).
    #[test]
    fn a_boolean_that_the_policy_lacks_is_not_off() {
        assert_eq!(parse("virt_use_nfs --> off\nvirt_use_fusefs --> on\n", "virt_use_fusefs"), Some(true));
        assert_eq!(parse("virt_use_nfs --> off\n", "virt_use_nfs"), Some(false));
        assert_eq!(parse("Error getting active value for virt_use_fusefs\n", "virt_use_fusefs"), None);
        assert_eq!(parse("virt_use_nfs_home --> on\n", "virt_use_nfs"), None);
    }
}
