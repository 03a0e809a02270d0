//! Which user QEMU runs as on a host, and whether libvirt gives it the images: `/etc/libvirt/qemu.conf`.
//!
//! Pure. Imports `model` only. What that user can reach is tried in `verify`.

use crate::model::{Command, Driver, Query};

/// The user that QEMU runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuUser {
    /// User name or number.
    pub user: String,
    /// Group name or number.
    pub group: String,
    /// Whether libvirt makes that user the owner of an image before a guest starts (`dynamic_ownership`).
    pub dynamic_ownership: DynamicOwnership,
}

/// Whether libvirt changes the owner of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DynamicOwnership {
    /// It does (libvirt's default).
    On,
    /// It does not.
    Off,
}

impl QemuUser {
    /// The user where `qemu.conf` does not count: the QEMU that serves a Xen guest's disks is started by libxl, as root, and
    /// images keep their owners.
    #[must_use]
    pub fn unconfigured(driver: Driver) -> Option<Self> {
        let root = || "root".to_owned();
        match driver {
            Driver::Qemu => None,
            Driver::Xen => {
                Some(Self { user: root(), group: root(), dynamic_ownership: DynamicOwnership::Off })
            }
        }
    }

    /// The user's number: written as one, root's, or as the answer to [`users`] has it; `None` for another user.
    #[must_use]
    pub fn uid(&self, passwd: &str) -> Option<u32> {
        let listed = || {
            let line = passwd.lines().find_map(|line| line.strip_prefix(&format!("{}:", self.user)))?;
            line.split(':').nth(1)?.parse().ok()
        };
        if self.user == "root" { Some(0) } else { self.user.parse().ok().or_else(listed) }
    }
}

/// Users that distributions build libvirt for: Debian and Ubuntu, then Red Hat, SUSE and others.
const DEFAULT_USERS: [&str; 2] = ["libvirt-qemu", "qemu"];

/// Asks for the configuration of libvirt's QEMU driver.
#[must_use]
pub fn configuration() -> Query {
    Query::new(Command::new("cat").arg("/etc/libvirt/qemu.conf"))
}

/// Asks for the users that a distribution may have built libvirt for; status 2 when one of them is missing.
#[must_use]
pub fn users() -> Query {
    Query::new(Command::new("getent").arg("passwd").args(DEFAULT_USERS))
}

/// Reads the user from `qemu.conf` and, where that says nothing, from the distribution's own user.
///
/// `None` when neither tells.
#[must_use]
pub fn user(conf: &str, passwd: &str) -> Option<QemuUser> {
    let default = DEFAULT_USERS.iter().find_map(|name| {
        let mut fields = passwd.lines().find_map(|line| line.strip_prefix(&format!("{name}:")))?.split(':');
        Some(((*name).to_owned(), fields.nth(2)?.to_owned()))
    });
    let (user, group) = (setting(conf, "user"), setting(conf, "group"));
    let dynamic_ownership = match setting(conf, "dynamic_ownership").as_deref() {
        Some("0") => DynamicOwnership::Off,
        _ => DynamicOwnership::On,
    };
    let group = group.or_else(|| default.as_ref().map(|(_, group)| group.clone()))?;
    let user = user.or_else(|| default.map(|(user, _)| user))?;
    Some(QemuUser { user, group, dynamic_ownership })
}

/// The last value of a key, without quotes and without the `+` that marks a number.
fn setting(conf: &str, key: &str) -> Option<String> {
    conf.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim().trim_matches('"').trim_start_matches('+').to_owned())
        })
        .rfind(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "libvirt-qemu:x:64055:993:Libvirt Qemu:/var/lib/libvirt:/usr/sbin/nologin\n";

    #[test]
    fn without_configuration_the_distributions_user_counts() {
        let seen = user("#user = \"root\"\n", DEBIAN).unwrap();
        assert_eq!((seen.user.as_str(), seen.group.as_str()), ("libvirt-qemu", "993"));
        assert_eq!(seen.dynamic_ownership, DynamicOwnership::On);
        let seen = user("", "qemu:x:107:107:qemu user:/:/sbin/nologin\n").unwrap();
        assert_eq!((seen.user.as_str(), seen.group.as_str()), ("qemu", "107"));
        assert_eq!(user("", ""), None);
    }

    #[test]
    fn a_user_has_the_number_that_the_host_gives_it() {
        assert_eq!(user("", DEBIAN).unwrap().uid(DEBIAN), Some(64055));
        assert_eq!(user("user = \"root\"\ngroup = \"root\"", DEBIAN).unwrap().uid(DEBIAN), Some(0));
        assert_eq!(user("user = \"+107\"", DEBIAN).unwrap().uid(DEBIAN), Some(107));
        assert_eq!(user("user = \"somebody\"", DEBIAN).unwrap().uid(DEBIAN), None);
    }

    #[test]
    fn the_configuration_wins_and_the_last_line_counts() {
        let conf = include_str!("../../fixtures/outputs/qemu-conf/debian13-libvirt11.3-lab.conf");
        let seen = user(conf, DEBIAN).unwrap();
        assert_eq!((seen.user.as_str(), seen.group.as_str()), ("root", "root"));
        assert_eq!(seen.dynamic_ownership, DynamicOwnership::Off);
        assert_eq!(user("user = \"+107\"\nuser=\"+108\"", DEBIAN).unwrap().user, "108");
    }
}
