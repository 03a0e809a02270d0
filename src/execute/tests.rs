use std::sync::{Arc, Mutex};

use super::*;
use crate::host::Host;
use crate::host::fake::{FakeHost, Faults, Files, When, answer, coreutils, failure};
use crate::libvirt::{Hypervisor, LibvirtError};
use crate::model::*;

/// A connector of a plan that has nothing for libvirt.
struct NoLibvirt;
impl Connector for NoLibvirt {
    fn open(&self, host: &HostId) -> Result<Arc<dyn Hypervisor>, LibvirtError> {
        Err(LibvirtError::Connect { host: host.clone(), reason: "not here".into() })
    }
}

fn path(text: &str) -> AbsPath {
    AbsPath::new(text).unwrap()
}

fn fake(name: &str, faults: &Faults) -> Arc<FakeHost> {
    let machine = |command: &Command, files: &mut Files| match command.program {
        "fail" => failure(3, "it broke\n"),
        "qemu-img" if command.args[0] == "info" => {
            let text = command.args.join(" ");
            if text.contains("/there") {
                answer(0, "{}")
            } else if text.contains("/gone") {
                failure(1, "qemu-img: Could not open 'x': No such file or directory\n")
            } else {
                failure(1, "qemu-img: Transport endpoint is not connected\n")
            }
        }
        "qemu-img" if command.args.join(" ").contains("gluster:") => answer(0, ""),
        _ => coreutils(command, files).unwrap_or_else(|| failure(127, "not found")),
    };
    Arc::new(FakeHost::new(name.parse().unwrap(), Box::new(machine), faults.clone()))
}

fn fleet(hosts: &[&Arc<FakeHost>]) -> Fleet {
    Fleet::new(hosts.iter().map(|host| Arc::clone(host) as Arc<dyn Host>), 8)
}

fn step(wave: Wave, host: &str, title: &str, storage: Option<&str>, effect: Effect) -> Step {
    let subject = ResourceId::new(ResourceKind::Service, title);
    let mut step = Step::new(wave, &host.parse().unwrap(), subject, title, effect);
    step.storage = storage.map(|name| name.parse().unwrap());
    step
}

fn run(program: &'static str) -> Effect {
    Effect::Run(vec![Command::new(program)])
}

fn plan(steps: Vec<Step>) -> Plan {
    let mut waves: Vec<(Wave, Vec<Step>)> = Vec::new();
    for step in steps {
        match waves.last_mut() {
            Some((wave, steps)) if *wave == step.wave => steps.push(step),
            _ => waves.push((step.wave, vec![step])),
        }
    }
    Plan { waves, ..Plan::default() }
}

fn go(plan: &Plan, fleet: &Fleet) -> Journal {
    execute(plan, fleet, &NoLibvirt, &Cancel::default(), &|_| ())
}

fn states(journal: &Journal) -> Vec<String> {
    let word = |end: &StepEnd| match end {
        StepEnd::Done => "done".to_owned(),
        StepEnd::Failed(error) => format!("failed: {error}"),
        StepEnd::Skipped(reason) => format!("skipped: {reason}"),
    };
    journal
        .entries
        .iter()
        .map(|entry| format!("{} {}: {}", entry.host, entry.title, word(&entry.end)))
        .collect()
}

#[test]
fn a_failed_volume_stops_its_mounts_everywhere_and_nothing_else() {
    let faults = Faults::default();
    let (a, b) = (fake("a", &faults), fake("b", &faults));
    let plan = plan(vec![
        step(Wave::Export, "a", "volume", Some("gfs"), run("fail")),
        step(Wave::Export, "a", "other", Some("nfs"), run("true")),
        step(Wave::Mount, "b", "mount", Some("gfs"), run("true")),
        step(Wave::Mount, "b", "other-mount", Some("nfs"), run("true")),
        step(Wave::Pool, "b", "pool", Some("gfs"), run("true")),
    ]);
    assert_eq!(
        states(&go(&plan, &fleet(&[&a, &b]))),
        [
            "a volume: failed: host a: `fail` exited 3: it broke",
            "a other: done",
            "b mount: skipped: service volume on host a did not succeed",
            "b other-mount: done",
            "b pool: skipped: service volume on host a did not succeed",
        ]
    );
}

#[test]
fn a_lost_connection_is_unknown_and_ends_the_work_on_its_host() {
    for when in [When::Before, When::After] {
        let faults = Faults::at(0, when);
        let (a, b) = (fake("a", &faults), fake("b", &Faults::default()));
        let plan = plan(vec![
            step(Wave::Mount, "a", "one", Some("gfs"), run("true")),
            step(Wave::Mount, "a", "two", Some("nfs"), run("true")),
            step(Wave::Mount, "b", "three", Some("nfs"), run("true")),
        ]);
        let journal = go(&plan, &fleet(&[&a, &b]));
        assert!(journal.entries[0].unknown && matches!(journal.entries[0].end, StepEnd::Failed(_)));
        assert!(matches!(&journal.entries[1].end, StepEnd::Skipped(reason) if reason.contains("lost")));
        assert_eq!((&journal.entries[2].end, journal.is_complete()), (&StepEnd::Done, false));
    }
}

#[test]
fn cancelling_lets_the_step_under_way_end_and_skips_the_rest() {
    let host = fake("a", &Faults::default());
    let cancel = Cancel::default();
    let plan = plan(vec![
        step(Wave::Mount, "a", "one", None, run("true")),
        step(Wave::Pool, "a", "two", None, run("true")),
    ]);
    let seen = Mutex::new(Vec::new());
    let journal = execute(&plan, &fleet(&[&host]), &NoLibvirt, &cancel, &|event| {
        if let ExecuteEvent::Began(step) = event {
            seen.lock().unwrap().push(step.title.clone());
            cancel.cancel();
        }
    });
    assert_eq!(*seen.lock().unwrap(), ["one"]);
    assert_eq!(states(&journal), ["a one: done", "a two: skipped: cancelled"]);
}

#[test]
fn an_image_appears_whole_under_its_name_and_one_that_exists_is_never_overwritten() {
    let host = fake("a", &Faults::default());
    let image = |location| {
        let (format, size) = (ImageFormat::Raw, "1GiB".parse().unwrap());
        Effect::CreateImage(ImageSpec { location, format, size, source: None, mounted: None })
    };
    let file = image(ImageLocation::File(path("/mnt/web1.img")));
    let make = plan(vec![step(Wave::Image, "a", "image", None, file)]);
    assert!(go(&make, &fleet(&[&host])).is_complete());
    host.files(|files| files.put(&path("/mnt/web1.img"), "precious", 0o600));
    let again = go(&make, &fleet(&[&host]));
    assert!(states(&again)[0].contains("File exists"), "{again:?}");
    assert_eq!(host.files(|files| files.text(&path("/mnt/web1.img"))).unwrap(), "precious");
    let partial = |files: &mut Files| files.iter().any(|(path, _)| path.as_str().contains("partial"));
    assert!(!host.files(partial), "no partial file stays");

    for (name, expected) in [("there", "exists already"), ("gone", "done"), ("dead", "cannot tell")] {
        let servers = vec!["10.0.0.1".to_owned()];
        let location = ImageLocation::Gluster { servers, volume: "gfs".into(), path: name.into() };
        let journal =
            go(&plan(vec![step(Wave::Image, "a", "image", None, image(location))]), &fleet(&[&host]));
        assert!(states(&journal)[0].contains(expected), "{journal:?}");
    }
}

#[test]
fn a_key_of_another_host_is_read_when_the_step_runs_and_only_a_key_is_taken() {
    let (a, b) = (fake("a", &Faults::default()), fake("b", &Faults::default()));
    let key =
        PeerKey { of: "b".parse().unwrap(), path: path("/key.pub"), options: "restrict".into(), known: None };
    let lines: Arc<[BlockLine]> = vec![BlockLine::Key(key)].into();
    let block = BlockSpec {
        path: path("/keys"),
        mode: FileMode(0o600),
        marker: "homelab".into(),
        lines: Some(lines),
    };
    let plan = plan(vec![step(Wave::ClientPrerequisites, "a", "trust", None, Effect::EditBlock(block))]);
    let hosts = fleet(&[&a, &b]);
    for bad in ["", "ssh-ed25519 AAAA\nssh-ed25519 BBBB\n", "command=\"sh\" ssh-ed25519 AAAA", "ssh-rsa A;B"]
    {
        b.files(|files| files.put(&path("/key.pub"), bad, 0o644));
        assert!(states(&go(&plan, &hosts))[0].contains("no public key"), "{bad}");
    }
    b.files(|files| files.put(&path("/key.pub"), "ssh-ed25519 AAAA+/= root@b\n", 0o644));
    assert!(go(&plan, &hosts).is_complete());
    assert_eq!(
        a.files(|files| files.text(&path("/keys"))).unwrap(),
        "# BEGIN stor homelab\nrestrict ssh-ed25519 AAAA+/=\n# END stor homelab\n"
    );
}

#[test]
fn a_journal_has_a_stable_json_form() {
    let host = fake("a", &Faults::default());
    let plan = plan(vec![
        step(Wave::Mount, "a", "one", None, run("fail")),
        step(Wave::Pool, "a", "two", None, run("true")),
    ]);
    let mut journal = go(&plan, &fleet(&[&host]));
    journal.entries[0].millis = 12;
    insta::assert_snapshot!(serde_json::to_string_pretty(&journal).unwrap());
}
