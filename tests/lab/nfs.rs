//! NFS without mounts, which this kernel may lack: nfs-ganesha, and QEMU's libnfs on the hypervisors.

use crate::harness::Lab;

const CLUSTER: &str = include_str!("../../playbooks/nfs-live-migration/cluster.yaml");
const BOOK: &str = include_str!("../../playbooks/nfs-live-migration/playbook.yaml");
const GUEST: &str = include_str!("../../playbooks/nfs-live-migration/guests/onlynat.xml");
const DISC: &[u8] = include_bytes!("../../playbooks/nfs-live-migration/tools.iso");
const EXPORT: &str = "/etc/ganesha/exports.d/stor-e2e-nfs-vmstore.conf";

#[test]
fn the_playbook_runs_and_the_export_is_guarded_mended_and_given_back() {
    let lab =
        Lab::up_with("e2e-nfs", CLUSTER, &[("guests/onlynat.xml", GUEST.as_bytes()), ("tools.iso", DISC)]);
    lab.write("playbook.yaml", BOOK);
    lab.lab(&["run", "playbook.yaml"]).exits(0).says(&["none lost, none doubled, one writer", "0 bytes"]);
    assert!(lab.on("store1", "head -c 34000 /data/vmstore/tools.img | tail -c 1300").contains("CD001"));
    assert!(!lab.on("kvm1", "cat /proc/self/mounts").contains(" nfs"));

    who_is_not_named_is_refused(&lab);
    an_export_edited_or_forgotten_is_mended(&lab);
    a_server_that_does_not_answer_is_named(&lab);
    what_others_export_is_not_touched(&lab);

    lab.lab(&["destroy", "--yes"]).exits(6).says(&["onlynat"]);
    lab.on("kvm1", "virsh -q destroy onlynat");
    lab.lab(&["destroy", "--yes"]).exits(0);
    let left = lab.on(
        "store1",
        "ls /etc/ganesha/exports.d; cat /etc/ganesha/ganesha.conf; systemctl is-enabled nfs-ganesha; ls -A /var/lib/stor 2>&1; true",
    );
    assert!(!left.contains("stor-e2e-nfs") && left.contains("disabled"), "{left}");
    assert!(lab.on("store1", "ls /data/vmstore").contains("onlynat.img"));
}

fn who_is_not_named_is_refused(lab: &Lab) {
    lab.lab(&["verify"]).exits(0).says(&["vmstore through NFSv3: pass (looked at 2 images"]);
    lab.edit("      allow: [10.77.0.1]\n", "");
    lab.lab(&["apply", "--yes", "--prune"]).exits(6).says(&["10.77.0.1 would lose access", "--dead"]);
    let dead = ["--dead", "10.77.0.1"];
    lab.lab(&[&["plan", "--detailed-exitcode"][..], &dead].concat())
        .exits(4)
        .says(&["10.77.0.1 10.77.0.21 10.77.0.22"]);
    lab.lab(&[&["apply", "--yes", "--prune", "--confirm-dead", "10.77.0.1"][..], &dead].concat())
        .exits(0)
        .says(&["refuses this machine (10.77.0.1)", "server store1 looked at"]);
    // Opened by hand for everybody: the client on this machine gets in, which is no proof that passes.
    lab.on(
        "store1",
        &format!(
            "sed -i \"s/Clients = .*/Clients = *;/\" {EXPORT} && systemctl reload nfs-ganesha && sleep 1"
        ),
    );
    lab.lab(&["verify"]).exits(7).says(&["export-open", "is exported to *"]);
    lab.lab(&["apply", "--yes", "--prune"]).exits(0);
    lab.lab(&["verify"]).exits(0).says(&["refuses this machine"]);
}

fn an_export_edited_or_forgotten_is_mended(lab: &Lab) {
    lab.on("store1", &format!("echo \"# mine\" >>{EXPORT}"));
    lab.lab(&["plan", "--detailed-exitcode"]).exits(4).says(&["store1", "edited"]);
    lab.lab(&["apply", "--yes"]).exits(0);
    assert!(!lab.on("store1", &format!("cat {EXPORT}")).contains("# mine"));
    let number = lab.on("store1", &format!("sed -n \"s/.*Export_Id = \\([0-9]*\\);/\\1/p\" {EXPORT}"));
    lab.on(
        "store1",
        &format!(
            "busctl call org.ganesha.nfsd /org/ganesha/nfsd/ExportMgr org.ganesha.nfsd.exportmgr RemoveExport q {}",
            number.trim()
        ),
    );
    lab.lab(&["status"]).says(&["export-missing"]);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(4).says(&["not exported"]);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

/// The guest runs on meanwhile: it waits for its disk.
fn a_server_that_does_not_answer_is_named(lab: &Lab) {
    lab.on("store1", "systemctl stop nfs-ganesha");
    let begin = std::time::Instant::now();
    lab.lab(&["verify"]).exits(7).says(&["port-blocked", "host kvm1", "host kvm2", "10.77.0.11:2049"]);
    assert!(begin.elapsed().as_secs() < 40, "{:?}", begin.elapsed());
    lab.lab(&["migrate", "onlynat", "--to", "kvm2"]).exits(8);
    lab.lab(&["status"]).says(&["no NFS server runs", "export-missing"]);
    lab.lab(&["apply", "--yes"]).exits(0).says(&["enable and start nfs-ganesha"]);
    lab.lab(&["verify"]).exits(0);
    assert!(lab.on("kvm1", "virsh domstate onlynat").contains("running"));
}

fn what_others_export_is_not_touched(lab: &Lab) {
    let conf = "/etc/ganesha/ganesha.conf";
    lab.on("store1", &format!("cp {conf} /root/kept && echo \"EXPORT {{ Export_Id = 7; Path = /data; Pseudo = /x; FSAL {{ Name = VFS; }} }}\" >>{conf}"));
    lab.lab(&["apply", "--yes"]).exits(6).says(&["exports /data, which holds /data/vmstore"]);
    assert!(lab.on("store1", &format!("cat {conf}")).contains("Export_Id = 7"));
    lab.on("store1", &format!("cp /root/kept {conf}"));
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.on("store1", "mv /data/vmstore /data/moved && ln -s /data/moved /data/vmstore");
    lab.lab(&["apply", "--yes"]).exits(6).says(&["through a symbolic link"]);
    lab.on("store1", "rm /data/vmstore && mv /data/moved /data/vmstore");
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}
