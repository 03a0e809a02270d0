//! Plans as a whole: cluster and what the hosts show in, plan out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use stor::execute::execute;
use stor::libvirt::DomainState;
use stor::model::{Cancel, Effect, HostSeen, Risk, Wave};
use stor::plan::{DeleteData, Plan, plan, plan_destroy, queries};
use stor::spec::Cluster;
use support::{CLUSTER, World, cluster, host, path};

/// Applies a file until nothing is left to do.
fn apply(world: &World, file: &Cluster) {
    let plan = plan_for(world, file);
    let journal = execute(&plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete(), "{:#?}", journal.entries);
    let left = plan_for(world, file);
    assert!(left.is_empty(), "{}", show(&left));
}

fn plan_for(world: &World, file: &Cluster) -> Plan {
    plan(file, &world.observe(&queries(file)))
}

fn destroy_for(world: &World, file: &Cluster, named: &[&str]) -> Plan {
    let delete = DeleteData(named.iter().map(|name| name.parse().unwrap()).collect());
    plan_destroy(file, &world.observe(&queries(file)), &delete)
}

/// A fleet to which the usual file was applied.
fn applied() -> (World, Cluster) {
    let file = cluster(CLUSTER);
    let world = World::bare(&file);
    apply(&world, &file);
    (world, file)
}

fn without(text: &str, lines: &[&str]) -> String {
    let kept: Vec<&str> = text.lines().filter(|line| !lines.iter().any(|word| line.contains(word))).collect();
    kept.join("\n") + "\n"
}

/// A plan for people who review a test: one line per step, reason and blocked part.
fn show(plan: &Plan) -> String {
    let mut out = String::new();
    for (wave, steps) in &plan.waves {
        writeln!(out, "{wave}").unwrap();
        for step in steps {
            let risk = if step.risk == Risk::Safe { String::new() } else { format!(" [{:?}]", step.risk) };
            let storage = step.storage.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
            writeln!(out, "  {}: {}{storage}{risk}", step.host, step.title).unwrap();
        }
    }
    for blocked in &plan.blocked {
        let host = blocked.host.as_ref().map_or("every host", |host| host.as_str());
        let unknown = if blocked.unknown { " (unknown)" } else { "" };
        writeln!(out, "blocked: {} on {host}{unknown}: {}", blocked.subject, blocked.reason).unwrap();
    }
    for finding in &plan.findings {
        writeln!(out, "finding: {} {}: {}", finding.code, finding.subject, finding.message).unwrap();
    }
    out
}

#[test]
fn bare_hosts_get_everything_in_order() {
    let cluster = cluster(CLUSTER);
    let world = World::bare(&cluster);
    let seen = world.observe(&queries(&cluster));
    insta::assert_snapshot!(show(&plan(&cluster, &seen)));
}

#[test]
fn a_host_that_did_not_answer_blocks_what_needs_it_and_gets_no_step() {
    let file = cluster(CLUSTER);
    for down in file.hosts.keys() {
        let world = World::bare(&file);
        world.set_down(down.as_str(), true);
        let plan = plan_for(&world, &file);
        assert!(plan.steps().all(|step| step.host != *down), "{}", show(&plan));
        assert!(plan.blocked.iter().any(|blocked| blocked.host.as_ref() == Some(down) && blocked.unknown));
    }
}

#[test]
fn a_hypervisor_that_is_down_leaves_the_rest_to_be_planned() {
    let file = cluster(CLUSTER);
    let world = World::bare(&file);
    world.set_down("kvm2", true);
    insta::assert_snapshot!(show(&plan_for(&world, &file)));
}

#[test]
fn a_server_that_is_down_holds_its_storage_back_everywhere() {
    let file = cluster(CLUSTER);
    let world = World::bare(&file);
    world.set_down("store2", true);
    insta::assert_snapshot!(show(&plan_for(&world, &file)));
}

#[test]
fn a_running_cluster_with_a_hypervisor_down_needs_nothing_elsewhere() {
    let (world, file) = applied();
    world.set_down("kvm2", true);
    let plan = plan_for(&world, &file);
    assert_eq!(plan.steps().count(), 0, "{}", show(&plan));
    assert!(!plan.is_empty() && plan.blocked.iter().all(|blocked| blocked.unknown));
}

#[test]
fn no_plan_depends_on_anything_but_file_and_observations() {
    let file = cluster(CLUSTER);
    let world = World::bare(&file);
    let seen = world.observe(&queries(&file));
    let first = plan(&file, &seen);
    assert!((0..5).all(|_| plan(&file, &seen) == first));
    assert_eq!(queries(&file), queries(&cluster(CLUSTER)));
}

#[test]
fn every_query_is_asked_once_and_every_host_is_asked() {
    let file = cluster(CLUSTER);
    let all = queries(&file);
    assert!(all.keys().eq(file.hosts.keys()));
    for batch in all.values() {
        assert_eq!(batch.iter().collect::<BTreeSet<_>>().len(), batch.len());
    }
}

#[test]
fn a_new_hypervisor_and_a_new_image_are_a_plan_of_just_these() {
    let grown =
        CLUSTER.replace("  kvm2:   {", "  kvm3:   { address: 10.77.0.23, hypervisor: true }\n  kvm2:   {");
    let grown = grown.replace("images:\n", "images:\n  db2:  { storage: gfs, size: 1GiB, format: raw }\n");
    let (small, grown) = (cluster(CLUSTER), cluster(&grown));
    let world = World::bare(&grown);
    apply(&world, &small);
    insta::assert_snapshot!(show(&plan_for(&world, &grown)));
    apply(&world, &grown);
}

#[test]
fn a_second_volume_on_the_same_servers_shares_what_both_need() {
    let two = CLUSTER.replace(
        "images:\n",
        "  vol2:\n    gluster:\n      replica: 3\n      bricks: [store1:/data/bricks/two, store2:/data/bricks/two, store3:/data/bricks/two]\n\nimages:\n",
    );
    let file = cluster(&two);
    let world = World::bare(&file);
    let plan = plan_for(&world, &file);
    for wanted in ["install glusterfs-server", "enable and start glusterd", "take 10.77.0.12 into the pool"] {
        let of_store1 = plan.steps().filter(|step| step.host == host("store1") && step.title == wanted);
        assert_eq!(of_store1.count(), 1, "{wanted}: {}", show(&plan));
    }
    apply(&world, &file);
    // The second volume leaves the file: it goes, and what the first one needs stays.
    let file = cluster(CLUSTER);
    insta::assert_snapshot!(show(&plan_for(&world, &file)));
    apply(&world, &file);
}

#[test]
fn a_guest_that_leaves_the_file_is_undefined_once_it_is_shut_off() {
    let (world, _) = applied();
    let smaller = cluster(&without(CLUSTER, &["web1: { image"]));
    let set = |state| {
        world.libvirt.daemon(&host("kvm1"), |daemon| daemon.domains.get_mut("web1").unwrap().state = state)
    };
    set(DomainState::Running);
    let plan = plan_for(&world, &smaller);
    assert_eq!(plan.steps().count(), 0, "{}", show(&plan));
    assert!(plan.blocked.iter().any(|blocked| blocked.reason.contains("runs on kvm1")));
    set(DomainState::ShutOff);
    insta::assert_snapshot!(show(&plan_for(&world, &smaller)));
    apply(&world, &smaller);
    assert_eq!(world.libvirt.daemon(&host("kvm1"), |daemon| daemon.domains.len()), Some(0));
}

#[test]
fn destroy_leaves_the_data_and_nothing_else() {
    let (world, file) = applied();
    let plan = destroy_for(&world, &file, &[]);
    insta::assert_snapshot!(show(&plan));
    assert!(plan.steps().all(|step| step.risk != Risk::DataLoss));
    let journal = execute(&plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete(), "{:#?}", journal.entries);
    assert!(destroy_for(&world, &file, &[]).is_empty());
    let bare = World::bare(&file);
    for (id, fake) in &world.hosts {
        let lines = |world: &World| {
            let text = world.hosts[id].files(|files| {
                files.iter().map(|(path, file)| format!("{path} {:?}", file.content)).collect::<Vec<_>>()
            });
            text.into_iter()
                .filter(|line| !line.starts_with("/data/") && !line.starts_with("/var/lib/glusterd/"))
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(&world), lines(&bare));
        for directory in ["/var/lib/stor", "/root/.ssh", "/var/lib/libvirt/images/gfs"] {
            assert!(!fake.files(|files| files.exists(&path(directory))), "{id} {directory}");
        }
        if id.as_str() == "store1" {
            assert!(fake.files(|files| files.exists(&path("/data/bricks/gfs/web1.img"))));
        }
    }
}

#[test]
fn destroy_deletes_data_only_of_storage_that_was_named() {
    let (world, file) = applied();
    let plan = destroy_for(&world, &file, &["gfs"]);
    insta::assert_snapshot!(show(&plan));
    let journal = execute(&plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete(), "{:#?}", journal.entries);
    for fake in world.hosts.values() {
        assert!(!fake.files(|files| files.exists(&path("/data/bricks/gfs"))));
    }
}

#[test]
fn a_name_that_owns_no_data_stops_the_whole_destroy() {
    let (world, file) = applied();
    let plan = destroy_for(&world, &file, &["gsf"]);
    assert_eq!(plan.steps().count(), 0);
    assert!(plan.blocked.iter().any(|blocked| blocked.subject.name == "gsf"));
    let bare = destroy_for(&World::bare(&file), &file, &["gfs"]);
    assert!(bare.is_empty() && bare.findings.len() == 1, "{}", show(&bare));
}

#[test]
fn storage_that_guests_use_is_not_removed_and_they_are_listed() {
    let (world, file) = applied();
    let foreign = |disk: &str| {
        format!(
            "<domain type='kvm'><name>theirs</name><memory>1</memory><os><type>hvm</type></os><devices>{disk}</devices></domain>"
        )
    };
    let disks = [
        "<disk type='file' device='disk'><source file='/var/lib/libvirt/images/gfs/x.img'/><target dev='vda'/></disk>",
        "<disk type='volume' device='disk'><source pool='gfs' volume='x.img'/><target dev='vda'/></disk>",
        "<disk type='network' device='disk'><source protocol='gluster' name='gfs/x.img'><host name='10.77.0.11'/></source><target dev='vda'/></disk>",
    ];
    for disk in disks {
        world.libvirt.put(&host("kvm2"), &foreign(disk), DomainState::ShutOff).unwrap();
        let plan = destroy_for(&world, &file, &[]);
        let reasons: Vec<_> = plan.blocked.iter().map(|blocked| blocked.reason.as_str()).collect();
        assert!(reasons.contains(&"guests use it: theirs on kvm2 (defined)"), "{disk}: {reasons:#?}");
        let changes = |step: &&stor::model::Step| step.wave > Wave::ReleaseGuest;
        assert_eq!(plan.steps().filter(changes).count(), 0, "{}", show(&plan));
    }
}

#[test]
fn a_guest_that_runs_keeps_its_storage_its_daemons_and_its_record() {
    let (world, file) = applied();
    world.libvirt.daemon(&host("kvm1"), |daemon| {
        daemon.domains.get_mut("web1").unwrap().state = DomainState::Running;
    });
    insta::assert_snapshot!(show(&destroy_for(&world, &file, &[])));
}

#[test]
fn a_hypervisor_that_did_not_answer_keeps_storage_from_being_removed() {
    let (world, file) = applied();
    world.set_down("kvm2", true);
    let plan = destroy_for(&world, &file, &[]);
    assert_eq!(plan.steps().count(), 0, "{}", show(&plan));
}

#[test]
fn a_domain_of_the_same_name_that_is_not_the_files_is_refused() {
    let file = cluster(CLUSTER);
    let world = World::bare(&file);
    let xml = "<domain type='kvm'><name>web1</name><uuid>11111111-2222-4333-8444-555555555555</uuid><memory>1</memory><os><type>hvm</type></os></domain>";
    world.libvirt.put(&host("kvm2"), xml, DomainState::Running).unwrap();
    let plan = plan_for(&world, &file);
    let blocked = plan.blocked.iter().find(|blocked| blocked.subject.name == "web1").unwrap();
    assert!(blocked.reason.contains("another domain of this name"), "{}", blocked.reason);
    assert!(
        !plan.steps().any(|step| matches!(&step.effect, Effect::DefineGuest { name, .. } if name == "web1"))
    );
}

#[test]
fn a_guest_defined_on_two_hosts_is_reported() {
    let (world, file) = applied();
    let xml = world.libvirt.daemon(&host("kvm1"), |daemon| daemon.domains["web1"].xml.clone()).unwrap();
    world.libvirt.put(&host("kvm2"), &xml, DomainState::ShutOff).unwrap();
    let plan = plan_for(&world, &file);
    assert!(plan.is_empty() && plan.findings.len() == 1, "{}", show(&plan));
    assert_eq!(plan.findings[0].evidence.len(), 2);
}

#[test]
fn a_guest_that_moved_is_no_difference() {
    let (world, file) = applied();
    let guest = world.libvirt.daemon(&host("kvm1"), |daemon| daemon.domains.remove("web1").unwrap()).unwrap();
    world.libvirt.daemon(&host("kvm2"), |daemon| daemon.domains.insert("web1".to_owned(), guest));
    let plan = plan_for(&world, &file);
    assert!(plan.is_empty(), "{}", show(&plan));
}

#[test]
fn an_image_of_another_size_is_reported_and_left_alone() {
    let (world, _) = applied();
    for (from, word) in [("size: 1GiB", "growing"), ("size: 2GiB", "growing")] {
        let file = cluster(&CLUSTER.replace(from, "size: 4GiB"));
        let plan = plan_for(&world, &file);
        assert_eq!(plan.steps().count(), 0, "{}", show(&plan));
        assert!(plan.blocked[0].reason.contains(word), "{}", plan.blocked[0].reason);
    }
}

#[test]
fn trust_files_that_were_edited_are_written_again() {
    let (world, file) = applied();
    world.hosts[&host("kvm1")].files(|files| {
        for name in ["ssh", "known_hosts"] {
            files.put(&path(&format!("/var/lib/stor/homelab/{name}")), "edited", 0o755);
        }
        let keys = files.text(&path("/root/.ssh/authorized_keys")).unwrap();
        let keys = format!("ssh-rsa AAAA me@home\n{}", keys.replace("10.77.0.22", "10.77.0.99"));
        files.put(&path("/root/.ssh/authorized_keys"), keys, 0o600);
    });
    insta::assert_snapshot!(show(&plan_for(&world, &file)));
    apply(&world, &file);
    let keys =
        world.hosts[&host("kvm1")].files(|files| files.text(&path("/root/.ssh/authorized_keys")).unwrap());
    assert!(keys.starts_with("ssh-rsa AAAA me@home\n") && keys.contains("10.77.0.22"), "{keys}");
}

#[test]
fn keys_of_a_hypervisor_that_is_down_are_kept_while_others_change() {
    let three =
        CLUSTER.replace("  kvm2:   {", "  kvm3:   { address: 10.77.0.23, hypervisor: true }\n  kvm2:   {");
    let (small, grown) = (cluster(CLUSTER), cluster(&three));
    let world = World::bare(&grown);
    apply(&world, &small);
    world.set_down("kvm2", true);
    let plan = plan_for(&world, &grown);
    let journal = execute(&plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete(), "{:#?}", journal.entries);
    let keys = |name: &str| {
        world.hosts[&host(name)].files(|files| files.text(&path("/root/.ssh/authorized_keys")).unwrap())
    };
    assert!(
        ["10.77.0.21", "10.77.0.22", "10.77.0.23"].iter().all(|peer| keys("kvm1").contains(peer)),
        "{}",
        keys("kvm1")
    );
    assert!(!keys("kvm3").contains("10.77.0.22"));
    world.set_down("kvm2", false);
    apply(&world, &grown);
    assert_eq!(keys("kvm1"), keys("kvm3"));
}

#[test]
fn records_that_cannot_be_used_stop_their_host() {
    let (world, file) = applied();
    for (text, word) in [
        ("", "damaged"),
        ("{\"version\": 1, \"clus", "damaged"),
        ("{\"version\":1,\"cluster\":\"other\",\"owned\":[]}", "belongs to"),
    ] {
        world.hosts[&host("kvm1")].files(|files| files.put(&path("/var/lib/stor/homelab.json"), text, 0o600));
        let plan = plan_for(&world, &file);
        assert!(plan.steps().all(|step| step.host != host("kvm1")), "{}", show(&plan));
        assert!(plan.blocked.iter().any(|blocked| blocked.reason.contains(word)), "{}", show(&plan));
        assert_eq!(destroy_for(&world, &file, &[]).steps().count(), 0);
    }
}

#[test]
fn a_lost_answer_is_never_read_as_absent() {
    let file = cluster(CLUSTER);
    let (world, _) = applied();
    let seen = world.observe(&queries(&file));
    let whole = plan(&file, &seen);
    assert!(whole.is_empty());
    for (id, batch) in queries(&file) {
        for lost in &batch {
            let mut seen = seen.clone();
            let HostSeen::Answered(mut answers) = seen.host(&id).unwrap().clone() else { panic!("{id}") };
            answers.get_mut(lost).unwrap().status = None;
            seen.insert(id.clone(), HostSeen::Answered(answers));
            let plan = plan(&file, &seen);
            assert_eq!(plan.steps().count(), 0, "{id}: {lost}: {}", show(&plan));
        }
    }
}

#[test]
fn a_hypervisor_without_libvirt_is_named() {
    let file = cluster(CLUSTER);
    let world = World::bare(&file);
    let mut seen = world.observe(&queries(&file));
    let HostSeen::Answered(mut answers) = seen.host(&host("kvm1")).unwrap().clone() else { panic!() };
    for (query, answer) in &mut answers {
        if query.command().program == "virsh" {
            *answer = stor::model::Answer { status: Some(127), stdout: String::new(), stderr: String::new() };
        }
    }
    seen.insert(host("kvm1"), HostSeen::Answered(answers));
    insta::assert_snapshot!(show(&plan(&file, &seen)));
}

#[test]
fn many_hypervisors_trust_each_other_and_wait_for_one_that_is_down() {
    let (old, new) =
        (cluster(&support::synthetic::cluster(3, 66)), cluster(&support::synthetic::cluster(3, 67)));
    let world = World::bare(&new);
    apply(&world, &old);
    world.set_down("kvm5", true);
    let changes_trust = |plan: &Plan| plan.steps().filter(|step| step.title.starts_with("let ")).count();
    let waiting = plan_for(&world, &new);
    assert_eq!(changes_trust(&waiting), 0, "{}", show(&waiting));
    world.set_down("kvm5", false);
    assert_eq!(changes_trust(&plan_for(&world, &new)), 67);
    apply(&world, &new);
    world.hosts[&host("kvm9")].files(|files| {
        let file = path("/root/.ssh/authorized_keys");
        let text = files.text(&file).unwrap().replace("virt-ssh-helper qemu:///system", "sh");
        files.put(&file, text, 0o600);
    });
    assert_eq!(changes_trust(&plan_for(&world, &new)), 1);
}

/// The expression that shortens the block, run by the sed that hosts have.
#[test]
fn the_short_form_of_a_block_is_what_sed_prints() {
    let many = cluster(&support::synthetic::cluster(3, 66));
    let all = queries(&many);
    let sed =
        all[&host("kvm0")].iter().find(|query| query.command().program == "sed").unwrap().command().clone();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("authorized_keys");
    let text = "ssh-ed25519 AAAA me@home\n# BEGIN stor big\n\
                restrict,from=\"10.0.0.1\",command=\"virt-ssh-helper qemu:///system\" ssh-ed25519 AAAAabcdefghijkl0123\n\
                restrict,command=\"virt-ssh-helper qemu:///system\" ssh-ed25519 AAAAabcdefghijkl4567\n\
                restrict,command=\"sh\" ssh-ed25519 AAAAabcdefghijkl8901\n# END stor big\nx\n";
    std::fs::write(&file, text).unwrap();
    let mut args = sed.args.clone();
    *args.last_mut().unwrap() = file.to_str().unwrap().to_owned();
    let out = stor::host::local::run(&stor::model::Command::new("sed").args(args)).unwrap();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "# BEGIN stor big",
            "efghijkl0123",
            "efghijkl4567",
            "restrict,command=\"sh\" ssh-ed25519 AAAAabcdefghijkl8901",
            "# END stor big",
        ]
    );
}
