//! Runbooks: valid shell for every plan, and no secret in them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use stor::execute::execute;
use stor::host::local;
use stor::model::{
    Cancel, Command, Effect, FileContent, FileMode, FileSpec, ResourceId, ResourceKind, Secret, Stdin, Step,
    Wave,
};
use stor::plan::script::render;
use stor::plan::{DeleteData, Plan, plan, plan_destroy, queries};
use support::{CLUSTER, World, cluster, host, path};

/// Has a real shell read a script without running it.
fn check(script: &str) {
    let command = Command::new("sh").arg("-n").stdin(Stdin::Text(script.to_owned()));
    if let Err(error) = local::run(&command) {
        panic!("{error}\n{script}");
    }
}

/// Runs the one section of a script with a real shell, from a file as people do.
fn run(script: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("runbook");
    std::fs::write(&file, script).unwrap();
    let command = Command::new("sh").args([file.to_str().unwrap(), "kvm1", "mount-session"]);
    local::run(&command).unwrap().stdout
}

fn step(effect: Effect) -> Plan {
    let subject = ResourceId::new(ResourceKind::Host, "kvm1");
    let step = Step::new(Wave::Mount, &host("kvm1"), subject, "it's $(a) `title`\nof two lines", effect);
    Plan { waves: vec![(Wave::Mount, vec![step])], ..Plan::default() }
}

#[test]
fn the_runbook_of_bare_hosts_is_readable_shell() {
    let file = cluster(CLUSTER);
    let world = World::bare(&file);
    let script = render(&plan(&file, &world.observe(&queries(&file))), &file);
    check(&script);
    insta::assert_snapshot!(script);
}

#[test]
fn the_runbook_of_a_destroy_is_readable_shell() {
    let file = cluster(CLUSTER);
    let world = World::bare(&file);
    let first = plan(&file, &world.observe(&queries(&file)));
    let journal = execute(&first, &world.fleet(), &world.libvirt, &Cancel::default(), &|_| {});
    assert!(journal.is_complete());
    let delete = DeleteData(["gfs".parse().unwrap()].into());
    let script = render(&plan_destroy(&file, &world.observe(&queries(&file)), &delete), &file);
    check(&script);
    insta::assert_snapshot!(script);
}

#[test]
fn an_empty_plan_has_a_runbook_that_does_nothing() {
    let file = cluster(CLUSTER);
    check(&render(&Plan::default(), &file));
}

#[test]
fn words_and_files_reach_the_host_as_they_are() {
    let file = cluster(CLUSTER);
    let text = "$HOME `id` 'q' \\ \nSTOR_END\nSTOR_END_\n";
    let target = tempfile::tempdir().unwrap();
    let at = path(&format!("{}/a/b", target.path().display()));
    let content = FileContent::Text(text.into());
    let written = step(Effect::WriteFile(FileSpec { path: at.clone(), mode: FileMode(0o640), content }));
    let script = render(&written, &file);
    assert_eq!(run(&script), "");
    assert_eq!(std::fs::read_to_string(at.as_str()).unwrap(), text);
    let words = ["$(id)", "a b", "it's", "-n", ""];
    let echoed = step(Effect::Run(vec![Command::new("printf").arg("<%s>").args(words)]));
    let script = render(&echoed, &file);
    assert_eq!(run(&script), "<$(id)><a b><it's><-n><>");
}

#[test]
fn no_secret_is_in_a_runbook() {
    let file = cluster(CLUSTER);
    let secret = || Secret::new("canary");
    let spec =
        FileSpec { path: path("/etc/x"), mode: FileMode(0o600), content: FileContent::Secret(secret()) };
    for effect in
        [Effect::WriteFile(spec), Effect::Run(vec![Command::new("tool").stdin(Stdin::Secret(secret()))])]
    {
        let script = render(&step(effect), &file);
        check(&script);
        assert!(!script.contains("canary") && script.contains("/dev/tty"), "{script}");
    }
}
