//! What is planned for NFS storage, from what hosts show: a fleet in memory whose files and servers a test changes by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use stor::execute::execute;
use stor::libvirt::DomainState;
use stor::model::{Cancel, Dead};
use stor::plan::{Plan, plan, plan_without, queries};
use stor::spec::Cluster;
use support::{World, cluster, host, path, show};

const HOSTS: &str = "version: 1
name: homelab
hosts:
  store1: { address: 10.77.0.11 }
  kvm1: { address: 10.77.0.21, hypervisor: true }
  kvm2: { address: 10.77.0.22, hypervisor: true }
";

/// A cluster with one export, whose further keys are given.
fn nfs(more: &str) -> Cluster {
    let text = format!(
        "{HOSTS}storage:\n  vmstore:\n    nfs: {{ server: store1, path: /data/vmstore{more} }}\n\
         images:\n  web1: {{ storage: vmstore, size: 1GiB }}\n\
         guests:\n  web1: {{ image: web1, memory: 192MiB, on: kvm1 }}\n"
    );
    cluster(&text)
}

fn plan_for(world: &World, file: &Cluster) -> Plan {
    plan(file, &world.observe(&queries(file)))
}

fn applied(file: &Cluster) -> World {
    let world = World::bare(file);
    apply(&world, file);
    world
}

fn apply(world: &World, file: &Cluster) {
    let plan = plan_for(world, file);
    let journal = execute(&plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete(), "{:#?}", journal.entries);
    let left = plan_for(world, file);
    assert!(left.is_empty(), "{}", show::plan(&left, &["store1", "kvm1", "kvm2"]));
}

fn put(world: &World, on: &str, file: &str, text: &str) {
    world.hosts[&host(on)].files(|files| files.put(&path(file), text, 0o644));
}

fn text(world: &World, on: &str, file: &str) -> String {
    let mut found = None;
    world.hosts[&host(on)].files(|files| found = files.text(&path(file)));
    found.unwrap_or_else(|| panic!("{file} is not on {on}"))
}

#[test]
fn bare_hosts_get_fixed_ports_packages_export_mount_and_pool() {
    let file = nfs("");
    let world = World::bare(&file);
    insta::assert_snapshot!(show::plan(&plan_for(&world, &file), &["store1", "kvm1"]));
}

#[test]
fn a_host_without_nfsd_gets_nfs_ganesha() {
    let file = nfs(", access: direct, allow: [10.77.0.1]");
    let world = World::bare(&file);
    world.nfs.lock().unwrap().nfsd.clear();
    insta::assert_snapshot!(show::plan(&plan_for(&world, &file), &["store1", "kvm1"]));
}

#[test]
fn squashed_clients_own_what_they_write() {
    let file = nfs(
        ", squash: root, anonuid: 64055, anongid: 106, protocols: [4], nconnect: 4, mount_options: [noatime]",
    );
    let world = World::bare(&file);
    insta::assert_snapshot!(show::plan(&plan_for(&world, &file), &["store1", "kvm2"]));
}

#[test]
fn libvirt_mounts_where_the_file_says_so() {
    let file = nfs(", mounted_by: libvirt, version: 3");
    let world = World::bare(&file);
    insta::assert_snapshot!(show::plan(&plan_for(&world, &file), &["kvm1"]));
}

#[test]
fn an_older_debian_reads_the_ports_from_its_defaults() {
    let file = nfs("");
    let world = World::bare(&file);
    put(&world, "store1", "/etc/os-release", "ID=debian\nVERSION_ID=\"11\"\n");
    let shown = show::plan(&plan_for(&world, &file), &["store1"]);
    assert!(shown.contains("block nfs-ports in /etc/default/nfs-kernel-server"), "{shown}");
    assert!(shown.contains("--port 20048"), "{shown}");
    put(&world, "store1", "/etc/os-release", "ID=centos\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"7\"\n");
    let shown = show::plan(&plan_for(&world, &file), &["store1"]);
    assert!(shown.contains("cannot tell which packages"), "{shown}");
}

#[test]
fn a_kernel_without_nfsd_is_no_kernel_server() {
    let file = nfs(", provider: kernel");
    let world = World::bare(&file);
    world.nfs.lock().unwrap().nfsd.clear();
    insta::assert_snapshot!(show::plan(&plan_for(&world, &file), &["store1", "kvm1", "kvm2"]));
}

#[test]
fn a_file_edited_by_hand_is_written_again() {
    let file = nfs("");
    let world = applied(&file);
    let exports = "/etc/exports.d/stor-homelab-vmstore.exports";
    let edited =
        text(&world, "store1", exports).replace("no_root_squash", "root_squash") + "/data/vmstore *(rw)\n";
    put(&world, "store1", exports, &edited);
    insta::assert_snapshot!(show::plan(&plan_for(&world, &file), &["store1", "kvm1", "kvm2"]));
    apply(&world, &file);
}

#[test]
fn what_the_server_forgot_is_exported_again() {
    let file = nfs("");
    let world = applied(&file);
    let etab = text(&world, "store1", "/var/lib/nfs/etab");
    let (first, second) = etab.split_once('\n').unwrap();
    for (shown, gone) in [
        (second.to_owned(), "10.77.0.22 -> 10.77.0.21 10.77.0.22"),
        (String::new(), "nobody -> 10.77.0.21 10.77.0.22"),
        (etab.replace("sync", "async"), "others -> sync"),
        (
            format!("{etab}{}", first.replace("10.77.0.21", "*") + "\n"),
            "* 10.77.0.21 10.77.0.22 -> 10.77.0.21 10.77.0.22",
        ),
    ] {
        put(&world, "store1", "/var/lib/nfs/etab", &shown);
        let plan = plan_for(&world, &file);
        assert_eq!(plan.steps().count(), 1);
        let shown = show::plan(&plan, &["store1"]);
        assert!(
            shown.contains(gone) && shown.contains("stor-exportfs /data/vmstore 10.77.0.21 10.77.0.22"),
            "{shown}"
        );
    }
}

#[test]
fn a_client_that_left_the_file_loses_the_export_once_it_is_named_as_dead() {
    let world = applied(&nfs(", allow: [10.77.0.1]"));
    let file = nfs("");
    let shown = show::plan(&plan_for(&world, &file), &["store1", "kvm1", "kvm2"]);
    assert!(shown.starts_with("BLOCKED") && shown.contains("10.77.0.1 would lose access"), "{shown}");
    assert!(shown.contains("stor apply --dead '10.77.0.1'"), "{shown}");
    let dead = Dead(["10.77.0.1".parse().unwrap()].into());
    let plan = plan_without(&file, &world.observe(&queries(&file)), &dead);
    insta::assert_snapshot!(show::plan(&plan, &["store1", "kvm1", "kvm2"]));
}

#[test]
fn what_others_export_is_never_touched() {
    let file = nfs("");
    for (line, reason) in [
        ("/data/vmstore *(rw)", "/etc/exports exports /data/vmstore already"),
        ("/data 10.0.0.0/8(rw)", "/etc/exports exports /data, which holds /data/vmstore"),
        (
            "\"/data/vmstore/iso\" kvm9(ro)",
            "/etc/exports exports /data/vmstore/iso, which lies in /data/vmstore",
        ),
        ("/ \\\n   kvm9(ro)", "/etc/exports exports /, which holds /data/vmstore"),
    ] {
        let world = World::bare(&file);
        put(&world, "store1", "/etc/exports", &format!("# mine\n{line}\n"));
        let plan = plan_for(&world, &file);
        let shown = show::plan(&plan, &["store1", "kvm1", "kvm2"]);
        assert!(shown.contains(reason), "{line}: {shown}");
        assert!(!shown.contains("install") && !shown.contains("exports.d/stor"), "{line}: {shown}");
    }
    let world = World::bare(&file);
    put(&world, "store1", "/etc/exports", "/data/vmstore2 *(rw)\n/datavmstore *(rw)\n#/data *(rw)\n");
    assert!(plan_for(&world, &file).blocked.is_empty());
}

#[test]
fn a_place_that_is_no_directory_is_refused() {
    let file = nfs("");
    let world = World::bare(&file);
    put(&world, "store1", "/data/vmstore", "");
    let shown = show::plan(&plan_for(&world, &file), &["store1", "kvm1", "kvm2"]);
    assert!(shown.contains("/data/vmstore is a regular file, not a directory"), "{shown}");
}

#[test]
fn a_directory_that_squashed_clients_cannot_write_to_is_refused_unless_stor_made_it() {
    let squashed = nfs(", squash: all, anonuid: 64055, anongid: 106");
    let world = World::bare(&squashed);
    world.hosts[&host("store1")].files(|files| files.make_directory(&path("/data/vmstore")));
    let shown = show::plan(&plan_for(&world, &squashed), &["store1", "kvm1", "kvm2"]);
    assert!(shown.contains("/data/vmstore belongs to 0:0") && shown.contains("chown 64055:106"), "{shown}");
    let world = applied(&nfs(""));
    let shown = show::plan(&plan_for(&world, &squashed), &["store1"]);
    assert!(shown.contains("$ chown 64055:106 -- /data/vmstore\n"), "{shown}");
}

#[test]
fn images_go_to_the_user_that_clients_get_before_the_export_says_so() {
    for (before, squash) in
        [(", provider: ganesha, access: direct", "Squash = Root_Squash"), ("", ",root_squash")]
    {
        let world = applied(&nfs(before));
        let squashed = nfs(&format!("{before}, squash: root, anonuid: 64055, anongid: 106"));
        let shown = show::plan(&plan_for(&world, &squashed), &["store1"]);
        let given = shown.find("$ chown 64055:106 -- /data/vmstore/web1.img\n").expect("the image is given");
        assert!(given < shown.find(squash).unwrap(), "{shown}");
    }
}

#[test]
fn a_client_that_the_server_cannot_find_stops_the_whole_storage() {
    let world = World::bare(&nfs(""));
    let shown = show::plan(&plan_for(&world, &nfs(", allow: [admin, nobody.example]")), &["store1", "kvm1"]);
    assert!(
        shown.contains("nobody.example is to be a client of vmstore, and leads to no address"),
        "{shown}"
    );
    assert!(!shown.contains("admin is to be") && !shown.contains("/etc/exports.d"), "{shown}");
    applied(&nfs(", allow: [admin]"));
}

#[test]
fn no_empty_image_is_put_under_a_running_guest() {
    let file = nfs(", provider: ganesha, access: direct");
    let world = applied(&file);
    world.nfs.lock().unwrap().content.values_mut().for_each(|files| files.clear());
    let makes = |plan: &Plan| plan.steps().any(|step| step.title.contains("create image web1"));
    assert!(makes(&plan_for(&world, &file)));
    world
        .libvirt
        .daemon(&host("kvm1"), |daemon| daemon.domains.get_mut("web1").unwrap().state = DomainState::Running);
    let plan = plan_for(&world, &file);
    assert!(!makes(&plan) && plan.blocked[0].reason.contains("web1 runs on kvm1 with it"), "{plan:#?}");
}

#[test]
fn another_server_takes_over_while_guests_are_shut_off() {
    let (kernel, ganesha) = (nfs(", provider: kernel"), nfs(", provider: ganesha"));
    let world = applied(&kernel);
    insta::assert_snapshot!(show::plan(&plan_for(&world, &ganesha), &["store1", "kvm1", "kvm2"]));
    world
        .libvirt
        .daemon(&host("kvm1"), |daemon| daemon.domains.get_mut("web1").unwrap().state = DomainState::Running);
    let shown = show::plan(&plan_for(&world, &ganesha), &["store1"]);
    assert!(shown.contains("guests use it: web1 on kvm1 (running)"), "{shown}");
}

#[test]
fn another_version_is_mounted_anew_and_options_wait_for_the_next_mount() {
    let world = applied(&nfs(""));
    let shown = show::plan(&plan_for(&world, &nfs(", version: 3")), &["kvm1"]);
    assert!(
        shown.contains("systemctl stop -- [v]ar-lib-libvirt-images-vmstore.mount")
            || shown.contains("systemctl stop -- '[v]ar"),
        "{shown}"
    );
    assert!(shown.contains("findmnt --noheadings --types nfs --mountpoint"), "{shown}");
    let shown = show::plan(&plan_for(&world, &nfs(", nconnect: 4")), &["kvm1"]);
    assert!(shown.contains("nconnect=4") && !shown.contains("systemctl stop"), "{shown}");
}

#[test]
fn a_mount_passes_from_systemd_to_libvirt() {
    let world = applied(&nfs(""));
    insta::assert_snapshot!(show::plan(&plan_for(&world, &nfs(", mounted_by: libvirt")), &["kvm1"]));
}

#[test]
fn a_server_with_exports_of_its_own_is_not_replaced() {
    let file = nfs(", provider: ganesha");
    let world = applied(&nfs(", provider: kernel"));
    // As if somebody else had started it.
    let record = "/var/lib/stor/homelab.json";
    let mut json: serde_json::Value = serde_json::from_str(&text(&world, "store1", record)).unwrap();
    json["owned"].as_array_mut().unwrap().retain(|entry| entry["kind"] != "service");
    put(&world, "store1", record, &json.to_string());
    let shown = show::plan(&plan_for(&world, &file), &["store1"]);
    assert!(shown.contains("nfs-server.service runs, which stor did not start"), "{shown}");
}

#[test]
fn two_servers_on_one_host_cannot_share_the_port() {
    let text = format!(
        "{HOSTS}storage:\n  a:\n    nfs: {{ server: store1, path: /data/a, provider: kernel }}\n  \
         b:\n    nfs: {{ server: store1, path: /data/b, provider: ganesha }}\n"
    );
    let file = cluster(&text);
    let shown = show::plan(&plan_for(&World::bare(&file), &file), &["store1", "kvm1", "kvm2"]);
    assert!(shown.contains("both want port 2049"), "{shown}");
    assert!(!shown.contains("install"), "{shown}");
    // One that leaves the choice takes the other's.
    let file = cluster(&text.replace("provider: kernel", "provider: auto"));
    let shown = show::plan(&plan_for(&World::bare(&file), &file), &["store1"]);
    assert!(shown.contains("nfs-ganesha") && !shown.contains("nfs-kernel-server"), "{shown}");
}

#[test]
fn a_version_that_the_server_has_switched_off_is_named() {
    let file = nfs(", version: 4.2");
    let world = applied(&file);
    let mut plan_seen = world.observe(&queries(&file));
    let store = host("store1");
    let seen = match plan_seen.host(&store).unwrap() {
        stor::model::HostSeen::Answered(answers) => {
            let mut answers = answers.clone();
            for (query, answer) in &mut answers {
                if query.to_string() == "cat /proc/fs/nfsd/versions" {
                    answer.stdout = "+3 +4 +4.1 -4.2\n".to_owned();
                }
            }
            stor::model::HostSeen::Answered(answers)
        }
        other => other.clone(),
    };
    plan_seen.insert(store, seen);
    let shown = show::plan(&plan(&file, &plan_seen), &["store1"]);
    assert!(shown.contains("NFS 4.2 is switched off on its server"), "{shown}");
}

#[test]
fn a_server_that_did_not_answer_stops_what_needs_it_and_nothing_else() {
    let file = nfs("");
    let world = World::bare(&file);
    world.set_down("store1", true);
    insta::assert_snapshot!(show::plan(&plan_for(&world, &file), &["store1", "kvm1"]));
}

#[test]
fn a_hypervisor_that_is_the_server_mounts_its_own_export() {
    let hosts = HOSTS.replace("address: 10.77.0.11", "address: 10.77.0.11, hypervisor: true");
    let file = cluster(&format!(
        "{hosts}storage:\n  vmstore:\n    nfs: {{ server: store1, path: /data/vmstore }}\n"
    ));
    let world = applied(&file);
    let exports = text(&world, "store1", "/etc/exports.d/stor-homelab-vmstore.exports");
    assert!(exports.contains("/data/vmstore 10.77.0.11("), "{exports}");
    let unit = text(&world, "store1", "/etc/systemd/system/var-lib-libvirt-images-vmstore.mount");
    assert!(unit.contains("What=10.77.0.11:/data/vmstore"), "{unit}");
    assert!(unit.contains("After=network-online.target nfs-server.service nfs-ganesha.service"), "{unit}");
}
