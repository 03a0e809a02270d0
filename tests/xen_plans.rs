//! What is planned for hosts that run Xen: the same storage, guests of its own form, and nothing for running guests to move by.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use stor::execute::execute;
use stor::model::Cancel;
use stor::plan::script::render;
use stor::plan::{Plan, plan, queries};
use stor::spec::Cluster;
use support::{World, cluster, host};

/// A cluster whose hypervisors are of the given kinds, with a guest on the first.
fn hosts(kinds: &[&str]) -> Cluster {
    let lines = kinds.iter().enumerate().map(|(index, kind)| {
        format!("  hv{n}: {{ address: 10.77.0.3{n}, hypervisor: {kind} }}\n", n = index + 1)
    });
    cluster(&format!(
        "version: 1\nname: homelab\nhosts:\n  store1: {{ address: 10.77.0.11 }}\n{}\
         storage:\n  vmstore: {{ nfs: {{ server: store1, path: /data/vmstore }} }}\n\
         images:\n  test01: {{ storage: vmstore, size: 64MiB }}\n\
         guests:\n  test01: {{ image: test01, memory: 128MiB, on: hv1, boot: {{ kernel: /boot/vmlinuz }} }}\n",
        lines.collect::<String>()
    ))
}

fn plan_for(world: &World, file: &Cluster) -> Plan {
    plan(file, &world.observe(&queries(file)))
}

/// On which hosts the plan makes a key for sending guests.
fn with_keys(plan: &Plan) -> Vec<&str> {
    let keys = plan.steps().filter(|step| step.title.starts_with("make a key pair"));
    keys.map(|step| step.host.as_str()).collect()
}

#[test]
fn bare_xen_hosts_converge_in_one_run_to_a_pool_and_a_paravirtualised_guest() {
    let file = hosts(&["xen", "xen"]);
    let world = World::bare(&file);
    let wanted = plan_for(&world, &file);
    assert!(with_keys(&wanted).is_empty(), "{wanted:#?}");
    let journal = execute(&wanted, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete(), "{:#?}", journal.entries);
    let left = plan_for(&world, &file);
    assert!(left.is_empty(), "{left:#?}");
    for name in ["hv1", "hv2"] {
        let pools = world.libvirt.daemon(&host(name), |daemon| daemon.pools["vmstore"].active);
        assert_eq!(pools, Some(true), "{name}");
    }
    let xml = world.libvirt.daemon(&host("hv1"), |daemon| daemon.domains["test01"].xml.clone()).unwrap();
    assert!(xml.contains("<domain type='xen'") && xml.contains("machine='xenpv'"), "{xml}");
}

#[test]
fn only_hosts_that_send_each_other_running_guests_get_keys() {
    for (kinds, expected) in [
        (vec!["kvm", "kvm", "xen"], vec!["hv1", "hv2"]),
        (vec!["kvm", "xen", "xen"], vec![]),
        (vec!["true", "true"], vec!["hv1", "hv2"]),
    ] {
        let file = hosts(&kinds);
        let world = World::bare(&file);
        assert_eq!(with_keys(&plan_for(&world, &file)), expected, "{kinds:?}");
    }
}

#[test]
fn every_virsh_of_a_runbook_names_the_daemon_of_its_host() {
    let file = hosts(&["xen", "kvm"]);
    let script = render(&plan_for(&World::bare(&file), &file), &file);
    let sections: Vec<&str> = script.split("# ==== ").skip(1).collect();
    let of = |name| sections.iter().filter(move |section| section.starts_with(name));
    assert!(of("hv1").count() > 1 && of("hv2").count() > 1, "{script}");
    let asks = |name, uri: &str| {
        let text = of(name).copied().collect::<String>();
        let calls = text.matches("virsh ").count();
        assert!(calls > 0 && calls == text.matches(&format!("virsh -c {uri} ")).count(), "{name}: {text}");
    };
    asks("hv1", "xen:///system");
    asks("hv2", "qemu:///system");
}
