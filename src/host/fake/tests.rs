use super::*;
use crate::model::FileMode;

fn path(text: &str) -> AbsPath {
    AbsPath::new(text).unwrap()
}

fn host(faults: Faults) -> FakeHost {
    let machine = |command: &Command, files: &mut Files| {
        coreutils(command, files).unwrap_or_else(|| failure(127, "not found"))
    };
    FakeHost::new("kvm1".parse().unwrap(), Box::new(machine), faults)
}

fn file(at: &str, text: &str) -> FileSpec {
    FileSpec { path: path(at), mode: FileMode(0o644), content: FileContent::Text(text.into()) }
}

fn holder() -> Holder {
    Holder { cluster: "homelab".parse().unwrap(), kind: crate::host::LockKind::Exclusive, text: "me".into() }
}

#[test]
fn an_effect_before_the_fault_is_undone_and_one_after_it_stays() {
    for (when, there) in [(When::Before, false), (When::After, true)] {
        let host = host(Faults::at(1, when));
        host.write_file(&file("/a", "a")).unwrap();
        assert!(matches!(host.write_file(&file("/b", "b")), Err(HostError::Unreachable { .. })));
        assert_eq!(host.files(|files| files.exists(&path("/b"))), there);
        host.write_file(&file("/c", "c")).unwrap();
        assert_eq!(host.faults.trace(), ["kvm1: write /a", "kvm1: write /b", "kvm1: write /c"]);
    }
}

#[test]
fn a_second_lock_is_refused_with_the_first_ones_holder_until_it_is_dropped() {
    let host = host(Faults::default());
    let (guard, _) = host.lock(&holder(), &[]).unwrap();
    assert!(matches!(host.lock(&holder(), &[]), Err(HostError::Busy { holder, .. }) if holder == "me"));
    drop(guard);
    assert!(host.lock(&holder(), &[]).is_ok());
}

#[test]
fn a_command_that_fails_is_an_error_for_run_and_an_answer_for_query() {
    let host = host(Faults::default());
    let cat = Command::new("cat").arg("/none");
    assert!(
        matches!(host.run(&cat), Err(HostError::Failed { stderr, .. }) if stderr.contains("No such file"))
    );
    assert_eq!(host.query(&[Query::new(cat)]).unwrap()[0].status, Some(1));
}
