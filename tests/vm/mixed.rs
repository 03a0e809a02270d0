//! Two hypervisors of different Debians (kvm2 has 12, the others 13): what may move between them is said before anything moves.

use crate::harness::{Machines, cluster};

const IMAGE: &str = "/srv/vmstore/web1.img";

#[test]
#[ignore = "needs virtual machines of two Debians: make test-vm"]
fn a_guest_goes_only_where_its_machine_type_is_known() {
    let machines = Machines::fresh(&cluster("cluster-nfs.yaml"));
    let version =
        |machine: &str| machines.on(machine, ". /etc/os-release; echo $VERSION_ID").trim().to_owned();
    assert_eq!((version("kvm1"), version("kvm2")), ("13".to_owned(), "12".to_owned()));

    machines.stor(&["apply", "--yes"]).exits(0);
    machines.stor(&["verify"]).exits(0).says(&["every hypervisor reaches the same images"]);
    machines.stor(&["start", "web1"]).exits(0);
    machines.beats_on("store1", IMAGE, 3);
    machines.stor(&["migrate", "web1", "--to", "kvm2", "--dry-run"]).exits(8).says(&["machine-type-unknown"]);
    machines.stor(&["migrate", "web1", "--to", "kvm2"]).exits(8);
    machines.beats_on("store1", IMAGE, 3);

    // Made by the older one, it may go to the newer one.
    machines.on("kvm1", "virsh -q destroy web1; virsh -q undefine web1");
    machines.edit("on: kvm1", "on: kvm2");
    machines.stor(&["apply", "--yes"]).exits(0);
    machines.stor(&["start", "web1"]).exits(0);
    machines.beats_on("store1", IMAGE, 3);
    machines.stor(&["migrate", "web1", "--to", "kvm1", "--dry-run"]).exits(0);
    machines.stor(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    machines.beats_on("store1", IMAGE, 3);
    assert!(machines.heartbeat("store1", IMAGE).is_intact());
}
