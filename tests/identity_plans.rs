//! A guest is its UUID, and an image has one guest: what the plan, and the step that defines a guest, do about others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use stor::execute::execute;
use stor::libvirt::DomainState;
use stor::model::{Cancel, Effect};
use stor::plan::{DeleteData, Plan, plan, plan_destroy, queries};
use stor::spec::Cluster;
use support::{CLUSTER, World, cluster, host, path};

fn plan_for(world: &World, file: &Cluster) -> Plan {
    plan(file, &world.observe(&queries(file)))
}

fn destroy_for(world: &World, file: &Cluster) -> Plan {
    plan_destroy(file, &world.observe(&queries(file)), &DeleteData::default())
}

/// A fleet to which the usual file was applied.
fn applied() -> (World, Cluster) {
    let file = cluster(CLUSTER);
    let world = World::bare(&file);
    let journal =
        execute(&plan_for(&world, &file), &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete(), "{:#?}", journal.entries);
    (world, file)
}

fn show(plan: &Plan) -> String {
    format!("{:#?}\n{:#?}", plan.blocked, plan.steps().map(|step| &step.title).collect::<Vec<_>>())
}

/// The guest web1 of the file under another name, with what is done to its domain.
fn renamed(change: impl FnOnce(&World)) -> Plan {
    let (world, _) = applied();
    change(&world);
    plan_for(
        &world,
        &cluster(&CLUSTER.replace("  web1: { image: web1, memory", "  web9: { image: web1, memory")),
    )
}

#[test]
fn a_guest_renamed_in_the_file_while_it_runs_is_not_defined_a_second_time() {
    let set = |state| {
        move |world: &World| {
            world
                .libvirt
                .daemon(&host("kvm1"), |d| d.domains.get_mut("web1").unwrap().state = state)
                .unwrap();
        }
    };
    let defines = |plan: &Plan| {
        plan.steps().any(|step| matches!(&step.effect, Effect::DefineGuest { name, .. } if name == "web9"))
    };
    let plan = renamed(set(DomainState::Running));
    let blocked = plan.blocked.iter().find(|blocked| blocked.subject.name == "web9").unwrap();
    assert!(
        blocked.reason.contains("image web1 is in use: domain web1") && blocked.hint.is_some(),
        "{blocked:?}"
    );
    assert!(!defines(&plan), "{}", show(&plan));
    let plan = renamed(set(DomainState::ShutOff));
    assert!(
        defines(&plan) && plan.findings.iter().any(|f| f.code == stor::model::FindingCode::ImageInUse),
        "{}",
        show(&plan)
    );
}

#[test]
fn a_guest_renamed_in_the_file_does_not_leave_its_tpm_behind() {
    let plan = renamed(|world| {
        let tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices>";
        world
            .libvirt
            .daemon(&host("kvm1"), |d| {
                let domain = d.domains.get_mut("web1").unwrap();
                domain.state = DomainState::ShutOff;
                domain.xml = domain.xml.replace("</devices>", tpm);
            })
            .unwrap();
    });
    let blocked = plan.blocked.iter().find(|blocked| blocked.subject.name == "web1").unwrap();
    assert!(
        blocked.reason.contains("web9") && blocked.reason.contains("TPM") && blocked.hint.is_some(),
        "{blocked:?}"
    );
    let undefines = |effect: &Effect| matches!(effect, Effect::UndefineGuest { .. });
    assert!(!plan.steps().any(|step| undefines(&step.effect)), "{}", show(&plan));
}

#[test]
fn a_domain_of_another_name_on_an_image_of_the_file_is_seen_by_whatever_way_it_reaches_it() {
    let file = cluster(CLUSTER);
    let ways = [
        "<disk type='file'><source file='/var/lib/libvirt/images/gfs/web1.img'/><target dev='vda'/></disk>",
        "<disk type='file'><source file='/var/lib/libvirt/images//gfs/../gfs/web1.img'/><target dev='vda'/></disk>",
        "<disk type='volume'><source pool='gfs' volume='web1.img'/><target dev='vda'/></disk>",
        "<disk type='network'><source protocol='gluster' name='gfs/web1.img'><host name='x'/></source><target dev='vda'/></disk>",
    ];
    for disk in ways {
        let world = World::bare(&file);
        let xml = format!("<domain type='kvm'><name>theirs</name><devices>{disk}</devices></domain>");
        world.libvirt.put(&host("kvm2"), &xml, DomainState::Running).unwrap();
        let plan = plan_for(&world, &file);
        let blocked = plan.blocked.iter().find(|blocked| blocked.subject.name == "web1");
        assert!(
            blocked.is_some_and(|blocked| blocked.reason.contains("domain theirs")),
            "{disk}: {}",
            show(&plan)
        );
    }
}

#[test]
fn a_record_without_a_uuid_undefines_nothing_that_may_be_anothers() {
    let (world, file) = applied();
    for name in ["kvm1", "kvm2"] {
        world.hosts[&host(name)].files(|files| {
            let record = path("/var/lib/stor/homelab.json");
            let text = files.text(&record).unwrap();
            let old: String = text
                .lines()
                .filter(|line| !line.contains("\"uuid\""))
                .map(|line| format!("{line}\n"))
                .collect();
            files.put(&record, old, 0o600);
        });
    }
    let uuid = "11111111-2222-4333-8444-555555555555";
    world.libvirt.daemon(&host("kvm1"), |d| d.domains.get_mut("web1").unwrap().uuid = uuid.to_owned());
    let plan = destroy_for(&world, &file);
    let undefines = |of: &str| {
        plan.steps().any(|step| matches!(&step.effect, Effect::UndefineGuest { name, .. } if name == of))
    };
    assert!(!undefines("web1"), "{}", show(&plan));
    let blocked = plan.blocked.iter().find(|blocked| blocked.subject.name == "web1").unwrap();
    assert!(
        blocked.reason.contains(uuid) && blocked.hint.as_ref().unwrap().contains("<uuid>"),
        "{blocked:?}"
    );
}

#[test]
fn a_guest_that_came_up_elsewhere_since_the_plan_was_made_is_not_defined_again() {
    let file = cluster(CLUSTER);
    let world = World::bare(&file);
    let plan = plan_for(&world, &file);
    let xml = plan.steps().find_map(|step| match &step.effect {
        Effect::DefineGuest { name, xml, .. } if name == "web1" => Some(xml.clone()),
        _ => None,
    });
    world.libvirt.put(&host("kvm2"), &xml.unwrap(), DomainState::Running).unwrap();
    let journal = execute(&plan, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    let entry = journal.entries.iter().find(|entry| entry.title.contains("define guest web1")).unwrap();
    let words = format!("{:?}", entry.end);
    assert!(words.contains("host kvm2 has domain web1"), "{words}");
    assert!(!world.libvirt.daemon(&host("kvm1"), |d| d.domains.contains_key("web1")).unwrap());
}
