//! What a host shows besides the record: which files carry this cluster's marks, its addresses, its iSCSI sessions.
//!
//! Pure: one query and its reader. Imports `model`. A mark that is in no record means that the record was lost: stor can no
//! longer tell its own from others', so it neither makes nor removes anything there.

use std::collections::BTreeSet;

use super::release::Data;
use super::scene::Scene;
use crate::model::{
    Blocked, ClusterName, Command, HostId, Observations, Owned, OwnedKind, Proposal, Query, Record,
    ResourceId, ResourceKind, Unknown, Wave,
};
use crate::storage::mount_unit;

/// Shows marks, addresses, sessions and the initiator's name; a constant, the cluster's name is an argument. The header names
/// the cluster up to a full stop, which no cluster's name has. A hidden file is one that a killed run did not finish writing, or an
/// editor's; no service reads it, nor the copies that people keep beside a file.
const SHOW: &str = r##"
cluster=$1
grep -rlsF --exclude='.*' --exclude='*~' --exclude='*.bak' --exclude='*.old' --exclude='*.orig' -e "# Written by stor for cluster $cluster. " /etc/systemd/system /etc/exports.d /etc/ganesha/exports.d /etc/tgt/conf.d | sed 's/^/mark /'
grep -lsxF -e "# BEGIN stor $cluster" /root/.ssh/authorized_keys | sed 's/^/mark /'
[ ! -d "/var/lib/stor/$cluster" ] || find "/var/lib/stor/$cluster" -type f ! -name '.*' | sed 's/^/mark /'
grep -lsF -e "\"stor-$cluster." /etc/target/saveconfig.json | sed 's/^/mark /'
grep -lsxF -e "user.stor.cluster=$cluster" /var/lib/glusterd/vols/*/info | sed 's!^/var/lib/glusterd/vols/!volume !; s!/info$!!'
sed -n "/^# BEGIN stor $cluster\$/,/^# END stor $cluster\$/s/^restrict,from=\"\([^\"]*\)\".*/peer \1/p" /root/.ssh/authorized_keys 2>/dev/null
cat /sys/class/iscsi_session/session*/targetname 2>/dev/null | sed 's/^/session /'
sed -n 's/^[[:blank:]]*InitiatorName=[[:blank:]]*/initiator /p' /etc/iscsi/initiatorname.iscsi 2>/dev/null
ip -o addr show 2>/dev/null | awk '{ sub(/\/.*/, "", $4); print "address " $4 }'
exit 0
"##;

/// What one host shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Files with this cluster's marks.
    pub files: BTreeSet<String>,
    /// GlusterFS volumes with this cluster's mark, which every server of their pool shows.
    pub volumes: BTreeSet<String>,
    /// The host's addresses.
    pub addresses: BTreeSet<String>,
    /// Targets that its kernel is logged in to.
    pub sessions: BTreeSet<String>,
    /// Addresses of hypervisors whose libvirt may log in.
    pub peers: BTreeSet<String>,
    /// The name with which its kernel logs in.
    pub initiator: Option<String>,
}

/// Asks any host.
pub(super) fn query(cluster: &ClusterName) -> Query {
    Query::new(Command::new("sh").args(["-c", SHOW, "stor-marks", cluster.as_str()]))
}

/// Reads the answer.
pub(super) fn read(seen: &Observations, cluster: &ClusterName, host: &HostId) -> Result<Marks, Unknown> {
    let answer = seen.answer(host, &query(cluster))?;
    let mut marks = Marks::default();
    for (word, rest) in answer.stdout.lines().filter_map(|line| line.split_once(' ')) {
        let rest = rest.trim().to_owned();
        match word {
            "mark" => _ = marks.files.insert(rest),
            "volume" => _ = marks.volumes.insert(rest),
            "address" => _ = marks.addresses.insert(rest),
            "peer" => _ = marks.peers.insert(rest),
            "session" => _ = marks.sessions.insert(rest),
            "initiator" => marks.initiator = Some(rest),
            _ => {}
        }
    }
    Ok(marks)
}

/// Blocks every host on which something carries stor's marks that is in no record.
pub(super) fn unrecorded(scene: &Scene<'_>, data: Data<'_>) -> Proposal {
    let mut proposal = Proposal::default();
    for (host, record) in &scene.records {
        let (Ok(record), Some(Ok(marks))) = (record, scene.marks.get(host)) else { continue };
        let mut strange: Vec<String> =
            marks.files.iter().filter(|path| !is_recorded(record, path)).cloned().collect();
        // A volume of the file may have been handed over by its mark alone, before anything was recorded.
        if record.owned.iter().all(|entry| entry.kind.is_note()) {
            let in_file = |name: &String| scene.cluster.storage.keys().any(|id| id.as_str() == name);
            // Every server shows a volume, and one record has it: that of a host that does not answer may.
            let all_read = scene.records.values().all(Result::is_ok);
            let volumes = marks
                .volumes
                .iter()
                .filter(|name| all_read && (matches!(data, Data::Leave(_)) || !in_file(name)));
            let lost = volumes.filter(|name| !scene.owned_anywhere(OwnedKind::GlusterVolume, name));
            strange.extend(lost.map(|name| format!("volume {name}")));
        }
        if strange.is_empty() {
            continue;
        }
        let cluster = &scene.cluster.name;
        let reason = format!(
            "host {host}: {} carry the marks of cluster {cluster} and are in no record: the record was lost",
            strange.join(", ")
        );
        let hint = format!(
            "restore {} from a backup; or, if nothing uses them, remove what is named here by hand",
            Record::path(cluster)
        );
        let subject = ResourceId::new(ResourceKind::Record, host);
        proposal.blocked.push(Blocked::new(Wave::Record, subject, reason).on(host).hint(hint));
    }
    proposal
}

fn is_recorded(record: &Record, path: &str) -> bool {
    let is_file_of = |entry: &Owned| match entry.kind {
        OwnedKind::Unit => mount_unit::unit_file(&entry.name).as_str() == path,
        OwnedKind::LioTarget if path == "/etc/target/saveconfig.json" => true,
        _ => entry.name == path || entry.detail.values().any(|value| value == path),
    };
    record.owned.iter().any(is_file_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_or_an_admin_left_beside_a_file_is_no_lost_record() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| format!("{}{path}", root.path().display());
        let put = |path: &str, text: &str| {
            let path = std::path::PathBuf::from(at(path));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let header = "# Written by stor for cluster homelab. stor apply overwrites changes made here.\n";
        for name in ["a.mount", ".a.mount.stor-new", "a.mount.bak", "a.mount~", "a.d/stor.conf"] {
            put(&format!("/etc/systemd/system/{name}"), header);
        }
        put(
            "/root/.ssh/authorized_keys",
            "restrict,from=\"10.0.0.9\",command=\"x\" ssh-ed25519 A\n# BEGIN stor homelab\n\
             restrict,from=\"10.0.0.2\",command=\"x y\" ssh-ed25519 AAAA\n# END stor homelab\n",
        );
        put("/etc/exports.d/other.exports", "# Written by stor for cluster home. x\n");
        put("/var/lib/stor/homelab/known_hosts", header);
        put("/var/lib/stor/homelab/.known_hosts.stor-new", header);
        let script = ["/etc/", "/root/"].iter().fold(SHOW.to_owned(), |script, directory| {
            script.replace(&format!(" {directory}"), &format!(" {}", at(directory)))
        });
        let script = script.replace("/var/lib/", &at("/var/lib/"));
        let shown = duct::cmd("sh", ["-c", &script, "marks", "homelab"]).read().unwrap();
        let mut marks: Vec<&str> = shown
            .lines()
            .filter_map(|line| line.strip_prefix("mark ")?.strip_prefix(root.path().to_str()?))
            .collect();
        marks.sort_unstable();
        let peers: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("peer ")).collect();
        assert_eq!(peers, ["10.0.0.2"]);
        assert_eq!(
            marks,
            [
                "/etc/systemd/system/a.d/stor.conf",
                "/etc/systemd/system/a.mount",
                "/root/.ssh/authorized_keys",
                "/var/lib/stor/homelab/known_hosts"
            ]
        );
    }
}
