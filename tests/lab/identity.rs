//! One image, one active guest, and a guest is its UUID: other names of an image, strangers with a guest's name, hosts whose virsh
//! asks another daemon. Real libvirt, QEMU and GlusterFS; the guest's heartbeat is the judge.

use crate::harness::{BEATS, DEMO, Lab, beats, ended};

const NAME: &str = "e2e-identity";

const IMAGE: &str = "/var/lib/libvirt/images/gfs/web1.img";
/// A guest of the user's own XML, which holds no UUID.
const OWN: &str = "<domain type='qemu'>
  <name>own</name>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
</domain>
";
const STRANGER: &str = "7e57ab1e-0000-4000-8000-00000000beef";

#[test]
fn an_image_has_one_guest_and_a_guest_is_its_uuid() {
    let cluster = DEMO.replace("\nmigration:", "  own: { domain: own.xml, on: kvm2 }\n\nmigration:");
    let lab = Lab::up_with(NAME, &cluster, &[("own.xml", OWN.as_bytes())]);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.write("beats.yaml", BEATS);
    xml_without_uuid_gets_one_that_is_recorded(&lab);
    a_host_with_another_default_daemon_shows_its_guests(&lab);
    an_image_in_use_under_another_name_is_not_started(&lab);
    a_device_in_use_under_another_name_is_not_started(&lab);
    lab.lab(&["start", "web1"]).exits(0);
    beats(&lab);
    a_guest_renamed_in_the_file_while_it_runs_stays_one(&lab);
    beats(&lab);
    strangers_with_a_guests_name_are_left_alone(&lab);
}

/// Defines a domain by hand and starts it, without anything to boot.
fn put(lab: &Lab, host: &str, name: &str, uuid: &str, disk: &str) {
    let xml = OWN
        .replace("<name>own</name>", &format!("<name>{name}</name><uuid>{uuid}</uuid>"))
        .replace("</domain>", &format!("<devices>{disk}</devices></domain>"));
    lab.on(host, &format!("virsh -q define /dev/stdin <<'E'\n{xml}E\nvirsh -q start {name}"));
}

fn gone(lab: &Lab, host: &str, name: &str) {
    lab.on(host, &format!("virsh -q destroy {name}; virsh -q undefine {name}"));
}

/// Runs a command on a host as stor does: over ssh, not through the lab.
fn over_ssh(lab: &Lab, address: &str, command: &str) -> String {
    let network = format!("stor-{}", NAME);
    let options =
        ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"];
    let mut ssh = std::process::Command::new("ip");
    ssh.args(["netns", "exec", &network, "ssh", "-i"]).arg(lab.key()).args(options);
    ended(ssh.arg(format!("root@{address}")).arg(command)).exits(0).stdout
}

fn uuid(lab: &Lab, host: &str, name: &str) -> String {
    lab.on(host, &format!("virsh domuuid {name}")).trim().to_owned()
}

fn xml_without_uuid_gets_one_that_is_recorded(lab: &Lab) {
    let own = uuid(lab, "kvm2", "own");
    assert!(
        lab.on("kvm2", &format!("cat /var/lib/stor/{NAME}.json")).contains(&format!("\"uuid\": \"{own}\""))
    );
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

fn a_host_with_another_default_daemon_shows_its_guests(lab: &Lab) {
    let set = "export VIRSH_DEFAULT_CONNECT_URI=test:///default LIBVIRT_DEFAULT_URI=test:///default";
    lab.on(
        "kvm1",
        &format!(
            "echo '{set}' >>/root/.bashrc; printf 'VIRSH_DEFAULT_CONNECT_URI=test:///default\\n' >>/etc/environment
             mkdir -p /root/.config/libvirt; echo 'uri_default = \"test:///default\"' >/root/.config/libvirt/libvirt.conf"
        ),
    );
    let shown = over_ssh(lab, "10.77.0.21", "virsh -q list --all --name");
    assert!(shown.contains("test") && !shown.contains("web1"), "kvm1 asks another daemon: {shown}");
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
    lab.lab(&["status"]).says(&["web1"]);
    lab.on(
        "kvm1",
        "rm -r /root/.config/libvirt; sed -i /VIRSH_DEFAULT/d /etc/environment; sed -i /VIRSH_DEFAULT/d /root/.bashrc",
    );
}

/// By another mount of the volume and a link, and by QEMU's own client.
fn an_image_in_use_under_another_name_is_not_started(lab: &Lab) {
    lab.on(
        "kvm2",
        &format!("mkdir -p /srv/other && mount -t glusterfs 10.77.0.12:/gfs /srv/other && ln -s /srv/other/{} /srv/link.img", "web1.img"),
    );
    let ways = [
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/srv/link.img'/><target dev='vda' bus='virtio'/></disk>",
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='gluster' name='gfs/web1.img'><host name='10.77.0.13' port='24007'/></source><target dev='vda' bus='virtio'/></disk>",
    ];
    lab.on("kvm2", "apt-get -y -qq install qemu-block-extra");
    for way in ways {
        put(lab, "kvm2", "copy", STRANGER, way);
        lab.lab(&["start", "web1"]).exits(8).says(&["not started", "copy", STRANGER, "kvm2", IMAGE]);
        assert!(!lab.on("kvm1", "virsh -q list --name").contains("web1"));
        lab.lab(&["migrate", "web1", "--cold", "--to", "kvm2", "--start"])
            .exits(8)
            .says(&["image-in-use", "copy"]);
        gone(lab, "kvm2", "copy");
    }
    lab.on("kvm2", "umount /srv/other; rm /srv/link.img");
}

/// A loop device over the image stands for any device.
fn a_device_in_use_under_another_name_is_not_started(lab: &Lab) {
    lab.on("kvm2", &format!("for n in 0 1 2 3 4 5 6 7; do [ -b /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done; losetup -f --show {IMAGE} >/run/loop"));
    let device = lab.on("kvm2", "cat /run/loop").trim().to_owned();
    let disk = format!(
        "<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='{device}'/><target dev='vda' bus='virtio'/></disk>"
    );
    put(lab, "kvm2", "copy", STRANGER, &disk);
    lab.lab(&["start", "web1"]).exits(8).says(&["not started", "copy", &device]);
    gone(lab, "kvm2", "copy");
    lab.on("kvm2", &format!("losetup -d {device}"));
}

fn a_guest_renamed_in_the_file_while_it_runs_stays_one(lab: &Lab) {
    let text = std::fs::read_to_string(lab.path("cluster.yaml")).unwrap();
    lab.edit("guests:\n  web1:\n", "guests:\n  web9:\n");
    lab.lab(&["plan"]).says(&[
        "image web1 is in use",
        "domain web1",
        "runs on kvm1",
        "call the guest web1 in the file",
    ]);
    lab.lab(&["apply", "--yes"]).exits(6);
    for host in ["kvm1", "kvm2"] {
        assert!(!lab.on(host, "virsh -q list --all --name").contains("web9"), "{host}");
    }
    lab.lab(&["start", "web9"]).exits(8);
    std::fs::write(lab.path("cluster.yaml"), text).unwrap();
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

fn strangers_with_a_guests_name_are_left_alone(lab: &Lab) {
    // At the destination.
    put(lab, "kvm2", "web1", STRANGER, "");
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(8).says(&["name-clash"]);
    beats(lab);
    // Instead of the guest.
    gone(lab, "kvm1", "web1");
    lab.lab(&["start", "web1"]).exits(8).says(&["another domain of this name", STRANGER]);
    lab.lab(&["migrate", "web1", "--to", "kvm1"]).exits(8).says(&[STRANGER]);
    lab.lab(&["migrate", "web1", "--cold", "--to", "kvm1", "--shutdown"]).exits(8).says(&[STRANGER]);
    lab.lab(&["plan"]).says(&["another domain of this name", STRANGER]);
    assert_eq!(uuid(lab, "kvm2", "web1"), STRANGER);
    assert!(lab.on("kvm2", "virsh domstate web1").contains("running"));
    gone(lab, "kvm2", "web1");
    // At the end: the guest's XML holds no UUID, the record does.
    gone(lab, "kvm2", "own");
    put(lab, "kvm2", "own", STRANGER, "");
    lab.on("kvm2", "virsh -q destroy own");
    lab.lab(&["destroy", "--yes"]).exits(0);
    assert_eq!(uuid(lab, "kvm2", "own"), STRANGER);
}
