//! Whether the locks of a guest's images are answered on the host where it is to run.
//!
//! QEMU locks an image when it opens it. On NFS a server answers for that, over NFSv3 by a service with ports of its own: when it
//! cannot be reached, reads and writes work, and QEMU waits for ever with a guest that is half moved. One query per image, and
//! its reader; imports `facts`, `libvirt` (summaries), `spec` and `model`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::facts::disk_path;
use super::preflight::GuestFacts;
use crate::libvirt::domain_xml::DomainSummary;
use crate::model::{Answer, Command, Finding, FindingCode, HostId, Query, Severity};
use crate::spec::Cluster;

/// Time for a lock to be answered. A client asks a silent server again after some seconds.
const DEADLINE: Duration = Duration::from_secs(8);

const SCRIPT: &str = include_str!("image_locks.sh");

/// What can be done about locks that are not answered.
pub(super) const REMEDY: &str = "let this host reach the lock service of the server: for NFSv3 the ports of lockd and statd (`rpcinfo -p \
                      SERVER` shows them, the server's firewall must let them in); after a restart of the server wait for \
                      its grace period, 90 s";

/// The images of a guest whose locks are asked for.
#[must_use]
pub fn paths(guest: &DomainSummary, cluster: &Cluster) -> Vec<String> {
    let paths: BTreeSet<String> =
        guest.disks.iter().filter_map(|disk| disk_path(&disk.source, cluster)).collect();
    paths.into_iter().collect()
}

/// Asks for the lock of each image.
#[must_use]
pub fn queries(paths: &[String]) -> Vec<Query> {
    let ask = |path: &String| {
        let command = Command::new("sh").args(["-c", SCRIPT, "stor-lock", path]);
        Query::new(command.deadline(DEADLINE))
    };
    paths.iter().map(ask).collect()
}

/// The images whose locks nobody answered within the deadline, from the answers to [`queries`] in its order. A lock that was
/// refused, or a tool or right that is missing, says nothing against the locks' being answered.
#[must_use]
pub fn silent(paths: &[String], answers: &[Answer]) -> BTreeSet<String> {
    let unanswered = paths.iter().zip(answers).filter(|(_, answer)| answer.status.is_none());
    unanswered.map(|(path, _)| path.clone()).collect()
}

/// Why a guest cannot run on a host whose locks are not answered.
#[must_use]
pub fn reason(path: &str) -> String {
    format!("{path}: a lock on it was not answered within {}", humantime::format_duration(DEADLINE))
}

/// One finding for each image whose locks are not answered at the destination.
pub(super) fn findings(guest: &GuestFacts, to: &HostId, silent: &BTreeSet<String>, out: &mut Vec<Finding>) {
    out.extend(silent.iter().map(|path| {
        let message = format!("{}; QEMU would wait for it with the guest half moved", reason(path));
        let finding = Finding::new(Severity::Error, FindingCode::LockUnreachable, guest.subject(), message);
        finding.on(to).remedy(REMEDY)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silence_speaks_against_a_lock_and_a_refusal_is_an_answer() {
        let answer =
            |status, stderr: &str| Answer { status, stdout: String::new(), stderr: stderr.to_owned() };
        let paths: Vec<String> = ["/a", "/b", "/c", "/d"].map(str::to_owned).to_vec();
        let answers = [
            answer(Some(0), ""),
            answer(None, ""),
            // qemu-io 10.0.2 on Debian 13.
            answer(Some(1), "qemu-io: can't open device /c: Failed to lock byte 100"),
            answer(Some(127), ""),
        ];
        assert_eq!(silent(&paths, &answers), BTreeSet::from(["/b".to_owned()]));
    }

    #[test]
    fn the_path_is_no_shell_text_and_the_deadline_is_short() {
        let queries = queries(&["/x/$(reboot) '.img".to_owned()]);
        let command = queries[0].command();
        assert_eq!(command.args.last().unwrap(), "/x/$(reboot) '.img");
        assert_eq!(command.deadline, DEADLINE);
    }
}
