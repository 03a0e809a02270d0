use super::*;

fn reply(text: &[u8]) -> Result<Option<Reply>, ReplyError> {
    read_reply(&mut &*text)
}

#[test]
fn noise_of_a_login_shell_before_the_reply_is_skipped() {
    let text = b"Welcome!\nno newline\n%stor-begin 1\nok 1\n 0\n 3 /run/stor-x/0o\n 0 /run/stor-x/0e\n 3 total\na\nb";
    let Some(Reply::Ended(ended)) = reply(text).unwrap() else { panic!("no answers") };
    assert_eq!(ended[0], Ended { status: Some(0), stdout: b"a\nb".to_vec(), stderr: Vec::new() });
}

#[test]
fn a_reply_that_breaks_off_is_an_error_and_never_half_an_answer() {
    let whole = b"%stor-begin 1\nok 2\n 0 3\n 2 a\n 0 b\n 0 c\n 1 d\n 3 total\n\xff\x00x";
    assert!(matches!(reply(whole).unwrap(), Some(Reply::Ended(_))));
    for end in 0..whole.len() {
        match reply(&whole[..end]) {
            Ok(None) => assert!(end < 14, "{end}"),
            Ok(Some(got)) => panic!("{got:?} at {end}"),
            Err(_) => assert!(end >= 13, "{end}"),
        }
    }
}

#[test]
fn lengths_that_do_not_add_up_or_are_huge_are_refused() {
    for text in [
        "%stor-begin 1\nok 1\n 0\n 1 a\n 1 b\n 3 total\nabc",
        "%stor-begin 1\nok 1\n 0\n 99999999999 a\n 0 b\n 99999999999 total\n",
        "%stor-begin 1\nok 1\n 0 0\n 0 a\n 0 b\n 0 total\n",
        "%stor-begin 1\nok x\n",
        "%stor-begin 1\nwhat\n",
    ] {
        assert!(matches!(reply(text.as_bytes()), Err(ReplyError::Malformed(_))), "{text}");
    }
}

#[test]
fn a_deadline_and_a_signal_are_no_exit_status() {
    for (status, expected) in
        [(0, Some(0)), (1, Some(1)), (127, Some(127)), (124, None), (137, None), (255, Some(255))]
    {
        assert_eq!(exit_status(status), expected, "{status}");
    }
}

#[test]
fn a_script_cut_anywhere_runs_nothing() {
    let job = Job {
        argv: vec!["touch".into(), "/nowhere/x".into()],
        stdin: Some(b"it's\n}\n".to_vec()),
        deadline: Duration::from_secs(1),
        words: String::new(),
    };
    let whole = script(&[job], Frame::Queries, Some(crate::model::Driver::Qemu));
    for end in (2..whole.len() - 2).step_by(7) {
        let output =
            duct::cmd("sh", ["-s"]).stdin_bytes(&whole[..end]).stdout_capture().stderr_capture().unchecked();
        let output = output.run().unwrap();
        assert!(output.stdout.is_empty() && !output.status.success(), "cut at {end}");
    }
}

#[test]
fn a_lock_ends_with_the_signs_of_life_although_standard_input_stays_open() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.lock").display().to_string();
    for note in [None, Some(format!("{file}.shared.1"))] {
        let lock = Lock { file: file.clone(), holder: "me".to_owned(), note };
        let text = String::from_utf8(script(&[], Frame::Locked(&lock), None)).unwrap();
        let text = text.replace("timeout 90", "timeout 1");
        let (reader, mut writer) = std::io::pipe().unwrap();
        let shell = duct::cmd("sh", ["-s"]).stdin_file(reader).stdout_capture().unchecked().start().unwrap();
        std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
        let ended = shell.wait_timeout(Duration::from_secs(5)).unwrap();
        let said = ended.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        assert_eq!(said.as_deref(), Some("\n%stor-begin 1\nok 0\n"), "it holds on, or is not root");
        drop(writer);
        let left: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_str().unwrap().contains("shared")), "{left:?}");
    }
}

/// A session that holds a lock; the shell and its first words.
fn session(lock: &Lock) -> (duct::Handle, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (out, out_writer) = std::io::pipe().unwrap();
    let shell = duct::cmd("sh", ["-s"]).stdin_file(reader).stdout_file(out_writer).unchecked();
    let handle = shell.start().unwrap();
    std::io::Write::write_all(&mut writer, &script(&[], Frame::Locked(lock), None)).unwrap();
    let said = read_reply(&mut std::io::BufReader::new(out)).unwrap();
    assert_eq!(said, Some(Reply::Ended(Vec::new())));
    drop(shell);
    (handle, writer)
}

/// What an effect under a lock is told.
fn proved(lock: &Lock) -> Option<Reply> {
    let effect = script(&[], Frame::Effect(Some(lock)), None);
    let output = duct::cmd("sh", ["-s"]).stdin_bytes(effect).stdout_capture().unchecked().run().unwrap();
    read_reply(&mut output.stdout.as_slice()).unwrap()
}

#[test]
fn a_lock_that_was_lost_is_not_held_because_others_share_it_now() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.lock").display().to_string();
    let apply = Lock { file: file.clone(), holder: "apply".to_owned(), note: None };
    let note = Some(format!("{file}.shared.1"));
    let migrate = Lock { file, holder: "migrate".to_owned(), note };
    let (shell, input) = session(&apply);
    assert_eq!(proved(&apply), Some(Reply::Ended(Vec::new())));
    drop(input);
    shell.wait().unwrap();
    let (shell, input) = session(&migrate);
    assert_eq!(proved(&apply), Some(Reply::Lost));
    assert_eq!(proved(&migrate), Some(Reply::Ended(Vec::new())));
    drop(input);
    shell.wait().unwrap();
    assert_eq!(proved(&migrate), Some(Reply::Lost));
}

#[test]
fn a_virsh_is_told_its_daemon_whatever_the_host_would_choose() {
    let job = |words: &[&str]| Job {
        argv: words.iter().map(|word| (*word).to_owned()).collect(),
        stdin: None,
        deadline: Duration::from_secs(1),
        words: String::new(),
    };
    for frame in [Frame::Queries, Frame::Effect(None)] {
        let jobs =
            [job(&["virsh", "-r", "list --all"]), job(&["virsh", "-q", "-c", "test:///default", "list"])];
        let text = String::from_utf8(script(&jobs, frame, Some(Driver::Qemu))).unwrap();
        assert!(text.contains(" virsh -c qemu:///system -r 'list --all' "), "{text}");
        assert!(text.contains(" virsh -q -c test:///default list "), "{text}");
        assert!(text.contains("unset VIRSH_DEFAULT_CONNECT_URI "), "{text}");
    }
}
