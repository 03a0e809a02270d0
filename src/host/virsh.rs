//! The one place where a `virsh` that runs on a host is told which daemon it asks.
//!
//! Pure. Imports `model`. Used for the scripts that `host` sends and for those that `stor plan --script` prints for people, so
//! that no call can be left to a host's own default: `VIRSH_DEFAULT_CONNECT_URI`, `LIBVIRT_DEFAULT_URI` or `uri_default` in
//! libvirt.conf may lead to another daemon, which knows none of the guests (virsh(1), libvirt's "Default URI choice").

use crate::model::Driver;

/// The program.
const VIRSH: &str = "virsh";
/// The option that names the daemon.
const CONNECT: &str = "-c";

/// The words of a command, with the URI of the driver's daemon if it is a virsh that names none itself.
#[must_use]
pub fn with_uri<'a>(words: &[&'a str], driver: Option<Driver>) -> Vec<&'a str> {
    let mut out = words.to_vec();
    let Some((&VIRSH, rest)) = words.split_first() else { return out };
    let named = rest.iter().take_while(|word| word.starts_with('-')).any(|word| *word == CONNECT);
    if let Some(driver) = driver.filter(|_| !named) {
        out.splice(1..1, [CONNECT, driver.uri()]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_virsh_names_its_daemon_and_nothing_else_does() {
        let words =
            |text: &'static str, driver| with_uri(&text.split(' ').collect::<Vec<_>>(), driver).join(" ");
        let qemu = Some(Driver::Qemu);
        for (given, driver, sent) in [
            ("virsh -r list", qemu, "virsh -c qemu:///system -r list"),
            ("virsh list", Some(Driver::Xen), "virsh -c xen:///system list"),
            (
                "virsh -q -c qemu+ssh://a/system capabilities",
                qemu,
                "virsh -q -c qemu+ssh://a/system capabilities",
            ),
            ("virsh autostart -- -c", qemu, "virsh -c qemu:///system autostart -- -c"),
            ("cat virsh", qemu, "cat virsh"),
            ("virsh list", None, "virsh list"),
        ] {
            assert_eq!(words(given, driver), sent);
        }
        assert_eq!(with_uri(&[], qemu), Vec::<&str>::new());
    }
}
