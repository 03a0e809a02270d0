//! What a guest has besides the image that its XML names, with real libvirt, QEMU, swtpm and UEFI firmware: layers below the image,
//! the image's real format, the mount that it lies on, firmware variables, the state of its TPM.

use std::thread::sleep;
use std::time::Duration;

use crate::harness::{BEATS, DEMO, Lab};

const PLACE: &str = "/var/lib/libvirt/images/gfs";
const UUID: &str = "11111111-2222-4333-8444-000000000001";

/// Like `../shared/cases/tpm-and-efi.xml`.
const WIN11: &str = "<domain type='qemu'>
  <name>win11</name>
  <uuid>11111111-2222-4333-8444-000000000001</uuid>
  <memory unit='MiB'>160</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>/var/lib/libvirt/qemu/nvram/win11_VARS.fd</nvram>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='custom' match='exact'><model>qemu64</model></cpu>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source file='/var/lib/libvirt/images/gfs/win11.img'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
  </devices>
</domain>
";

#[test]
fn what_lies_beside_and_below_an_image_is_looked_at_and_kept() {
    let cluster = DEMO
        .replace("images:\n", "images:\n  win11: { storage: gfs, size: 64MiB }\n")
        .replace("guests:\n", "guests:\n  win11: { domain: win11.xml, on: kvm1 }\n");
    let lab = Lab::up_with("e2e-kept", &cluster, &[("win11.xml", WIN11.as_bytes())]);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.write("beats.yaml", BEATS);
    firmware_variables_and_a_tpm_are_not_left_behind(&lab);
    a_base_that_is_not_the_same_file_there_keeps_its_guest_here(&lab);
    an_image_of_another_format_is_not_started(&lab);
    another_volume_at_the_mount_is_not_the_storage(&lab);
    an_image_that_the_file_calls_raw_and_is_not_is_no_image_of_it(&lab);
    destroying_keeps_them_too(&lab);
}

fn digest(lab: &Lab, host: &str, paths: &str) -> String {
    lab.on(host, &format!("cd / && find {paths} -type f ! -name '*.lock' | sort | xargs -r sha256sum"))
}

/// The firmware variables and the TPM's state.
fn state(lab: &Lab, host: &str) -> String {
    digest(lab, host, &format!("var/lib/libvirt/swtpm/{UUID} var/lib/libvirt/qemu/nvram/win11_VARS.fd"))
}

fn is_defined(lab: &Lab, host: &str, guest: &str) -> bool {
    lab.on(host, "virsh -q list --all --name").lines().any(|line| line == guest)
}

fn firmware_variables_and_a_tpm_are_not_left_behind(lab: &Lab) {
    lab.lab(&["start", "win11"]).exits(0);
    sleep(Duration::from_secs(5));
    lab.on("kvm1", "virsh -q destroy win11");
    let before = state(lab, "kvm1");
    assert!(before.contains("tpm2-00.permall") && before.contains("win11_VARS.fd"), "{before}");
    for extra in [&["--dry-run"][..], &[], &["--start"]] {
        let args = [&["migrate", "win11", "--cold", "--to", "kvm2"], extra].concat();
        lab.lab(&args).exits(8).says(&[
            "state-kept",
            "firmware variables would stay on kvm1",
            "the state of its TPM would stay on kvm1",
        ]);
    }
    lab.lab(&["start", "win11"]).exits(0);
    lab.lab(&["migrate", "win11", "--cold", "--to", "kvm2", "--shutdown", "--force", "--within", "1s"])
        .exits(8)
        .says(&["state-kept"]);
    assert_eq!(lab.on("kvm1", "virsh domstate win11").trim(), "running");
    // While it runs, both go with it.
    lab.lab(&["migrate", "win11", "--to", "kvm2"]).exits(0);
    lab.on("kvm2", "virsh -q destroy win11");
    let after = state(lab, "kvm2");
    assert!(after.contains("tpm2-00.permall") && after.contains("win11_VARS.fd"), "{after}");
}

fn redefine(lab: &Lab, host: &str, edit: &str) {
    lab.on(
        host,
        &format!(
            "virsh dumpxml --inactive web1 | sed '{edit}' > /tmp/web1.xml && virsh -q define /tmp/web1.xml"
        ),
    );
}

fn runs_on(lab: &Lab, host: &str) -> bool {
    lab.on(host, "virsh domstate web1 2>&1 || true").trim() == "running"
}

/// Waits until the guest has written some beats, through however many layers.
#[track_caller]
fn writes(lab: &Lab, host: &str) {
    let count = "virsh domblkstat web1 vda | sed -n 's/^vda wr_req //p'";
    let enough = || lab.on(host, count).trim().parse().is_ok_and(|count: u32| count > 25);
    assert!(
        (0..90).any(|_| enough() || {
            sleep(Duration::from_secs(1));
            false
        }),
        "the guest does not write"
    );
}

fn a_base_that_is_not_the_same_file_there_keeps_its_guest_here(lab: &Lab) {
    // Hosts that were made alike: another file of the same name, size and directory.
    for host in ["kvm1", "kvm2"] {
        lab.on(host, &format!("mkdir -p /srv/bases && truncate -s 64M /srv/bases/base.img && echo {host} | dd of=/srv/bases/base.img bs=1 seek=60000000 conv=notrunc status=none"));
    }
    lab.on("kvm1", &format!("qemu-img create -q -f qcow2 -b /srv/bases/base.img -F raw {PLACE}/clone.qcow2"));
    redefine(lab, "kvm1", "s#gfs/web1.img#gfs/clone.qcow2#; s#type=.raw. cache#type=\"qcow2\" cache#");
    lab.lab(&["start", "web1"]).exits(0);
    writes(lab, "kvm1");
    for extra in [&["--dry-run"][..], &[], &["--cold", "--shutdown"]] {
        let args = [&["migrate", "web1", "--to", "kvm2"], extra].concat();
        lab.lab(&args).exits(8).says(&["image-not-shared", "image below it", "/srv/bases/base.img"]);
    }
    assert!(runs_on(lab, "kvm1") && !is_defined(lab, "kvm2", "web1"));
    // The same base on the storage itself, named by a relative path.
    lab.on("kvm1", "virsh -q destroy web1");
    lab.on("kvm1", &format!("cd {PLACE} && cp --sparse=always /srv/bases/base.img base.img && qemu-img rebase -u -b base.img -F raw clone.qcow2"));
    lab.on("kvm1", "mv /srv/bases /srv/gone");
    lab.lab(&["start", "web1"]).exits(0);
    writes(lab, "kvm1");
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    assert!(runs_on(lab, "kvm2"));
    writes(lab, "kvm2");
    lab.on("kvm2", "virsh -q destroy web1");
    // What the guest wrote through both layers is one unbroken heartbeat.
    lab.on("kvm2", &format!("qemu-img convert -O raw {PLACE}/clone.qcow2 {PLACE}/web1.img"));
    lab.lab(&["run", "beats.yaml"]).exits(0).says(&["none lost, none doubled, one writer"]);
    // A base that is gone is known before the start.
    lab.on("kvm2", &format!("qemu-img rebase -u -b /srv/gone.img -F raw {PLACE}/clone.qcow2"));
    lab.lab(&["start", "web1"]).exits(8).says(&["/srv/gone.img", "No such file"]);
    lab.on("kvm2", &format!("qemu-img rebase -u -b base.img -F raw {PLACE}/clone.qcow2"));
}

fn an_image_of_another_format_is_not_started(lab: &Lab) {
    redefine(lab, "kvm2", "s#type=.qcow2. cache#type=\"raw\" cache#");
    let image = "var/lib/libvirt/images/gfs/clone.qcow2";
    let before = digest(lab, "kvm2", image);
    lab.lab(&["start", "web1"]).exits(8).says(&["clone.qcow2 is qcow2, but its XML says raw"]);
    lab.lab(&["migrate", "web1", "--cold", "--to", "kvm1", "--start"]).exits(8).says(&["format-differs"]);
    assert_eq!(digest(lab, "kvm2", image), before);
    redefine(lab, "kvm2", "s#gfs/clone.qcow2#gfs/web1.img#; s#type=.raw. cache#type=\"qcow2\" cache#");
    lab.lab(&["start", "web1"]).exits(8).says(&["web1.img is raw, but its XML says qcow2"]);
    redefine(lab, "kvm2", "s#type=.qcow2. cache#type=\"raw\" cache#");
}

fn another_volume_at_the_mount_is_not_the_storage(lab: &Lab) {
    lab.on("store1", "gluster --mode=script volume create other 10.77.0.11:/data/other force && gluster volume start other");
    for host in ["kvm1", "kvm2"] {
        lab.on(host, &format!("systemctl stop \"$(systemd-escape -p --suffix=mount {PLACE})\" && mount -t glusterfs 10.77.0.11:/other {PLACE}"));
    }
    lab.on("kvm2", &format!("truncate -s 64M {PLACE}/web1.img"));
    let before = digest(lab, "store1", "data/other/web1.img");
    lab.lab(&["start", "web1"]).exits(8).says(&["is not storage gfs", "10.77.0.11:/other"]);
    lab.lab(&["migrate", "web1", "--cold", "--to", "kvm1", "--start"]).exits(8).says(&["wrong-mount"]);
    assert_eq!(digest(lab, "store1", "data/other/web1.img"), before);
    for host in ["kvm1", "kvm2"] {
        lab.on(
            host,
            &format!("umount {PLACE} && systemctl start \"$(systemd-escape -p --suffix=mount {PLACE})\""),
        );
    }
    // A directory of the right volume, bound over its own mount.
    lab.on("kvm2", &format!("mkdir {PLACE}/sub && cp --sparse=always {PLACE}/web1.img {PLACE}/sub/ && mount --bind {PLACE}/sub {PLACE}"));
    lab.lab(&["start", "web1"]).exits(8).says(&["is not storage gfs", "its directory /sub"]);
    lab.on("kvm2", &format!("umount {PLACE}"));
    // A link on the share that leads into the host.
    lab.on("kvm2", &format!("mv {PLACE}/web1.img {PLACE}/kept.img && cp --sparse=always {PLACE}/kept.img /srv/web1.img && ln -s /srv/web1.img {PLACE}/web1.img"));
    lab.lab(&["start", "web1"]).exits(8).says(&["web1.img is not on storage gfs"]);
    lab.on("kvm2", &format!("mv -f {PLACE}/kept.img {PLACE}/web1.img"));
    lab.lab(&["start", "web1"]).exits(0);
    lab.lab(&["run", "beats.yaml"]).exits(0).says(&["none lost, none doubled, one writer"]);
    lab.on("kvm2", "virsh -q destroy web1");
}

fn an_image_that_the_file_calls_raw_and_is_not_is_no_image_of_it(lab: &Lab) {
    lab.on(
        "kvm1",
        &format!("cd {PLACE} && qemu-img create -q -f qcow2 fake.img 64M && truncate -s 64M fake.img"),
    );
    lab.edit("images:\n", "images:\n  fake: { storage: gfs, size: 64MiB }\n");
    lab.lab(&["plan"]).exits(6).says(&["image fake", "the image is qcow2, the file says raw"]);
    lab.edit("  fake: { storage: gfs, size: 64MiB }\n", "");
}

fn destroying_keeps_them_too(lab: &Lab) {
    let before = state(lab, "kvm2");
    lab.lab(&["destroy", "--yes"]).exits(0).says(&["firmware variables", "TPM"]);
    assert!(!is_defined(lab, "kvm2", "win11"));
    assert_eq!(state(lab, "kvm2"), before);
}
