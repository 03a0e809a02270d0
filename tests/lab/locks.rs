//! Two stors at once, locks that are lost, and links that another host plants on the share, with real hosts: one definition, one writer,
//! and no file of a host touched.

use std::io::{BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::{BEATS, DEMO, Lab, beats, ended};

const NAME: &str = "e2e-locks";
const MOUNT: &str = "/var/lib/libvirt/images/gfs";
const ALL: [&str; 5] = ["kvm1", "kvm2", "store1", "store2", "store3"];

#[test]
fn locks_and_planted_links_cost_nobody_a_guest_or_a_file() {
    let lab = Lab::up(NAME, DEMO);
    lab.lab(&["apply", "--yes"]).exits(0);
    lab.lab(&["start", "web1"]).exits(0);
    lab.write("beats.yaml", BEATS);
    beats(&lab);
    an_apply_keeps_a_live_move_away_and_the_other_way_round(&lab);
    what_changes_while_an_apply_asks_is_seen(&lab);
    locks_lost_while_an_apply_asks_end_it(&lab);
    a_lock_lost_while_a_guest_shuts_down_ends_its_cold_move(&lab);
    links_planted_on_the_share_lead_nowhere(&lab);
    beats(&lab);
    lab.lab(&["plan", "--detailed-exitcode"]).exits(0);
}

/// Hosts that have a definition of the guest, and those where QEMU runs it.
fn places(lab: &Lab) -> (Vec<&'static str>, Vec<&'static str>) {
    let on = |script: &str| {
        ["kvm1", "kvm2"].into_iter().filter(|host| !lab.on(host, script).trim().is_empty()).collect()
    };
    (
        on("virsh -q list --all --name | grep -x web1 || true"),
        on("pgrep -f '^/usr/bin/qemu-system.*guest=web1' || true"),
    )
}

#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(50));
    }
}

/// Ends whatever holds a host's lock, as a connection that breaks would.
fn lose_lock(lab: &Lab, host: &str) {
    let script = format!(
        "for d in /proc/[0-9]*; do ls -l $d/fd 2>/dev/null | grep -q '/run/stor/{NAME}.lock$' && kill -9 ${{d#/proc/}}; done; true"
    );
    lab.on(host, &script);
}

fn background(lab: &Lab, args: &[&str]) -> Child {
    let mut command = lab.command(&[&["--lab"], args].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// One host answers plan's question about domains 7 s late: by then a guest that was on its way has arrived elsewhere.
fn an_apply_keeps_a_live_move_away_and_the_other_way_round(lab: &Lab) {
    let slow = "case \"$*\" in *domstats*) sleep 7 ;; esac\nexec /usr/bin/virsh \"$@\"";
    lab.on(
        "kvm1",
        &format!("printf '%s\\n' '#!/bin/sh' '{slow}' >/usr/local/bin/virsh; chmod 755 /usr/local/bin/virsh"),
    );
    let mut apply = background(lab, &["apply", "--yes"]);
    wait_until("the apply has no lock", || {
        lab.on("kvm2", &format!("cat /run/stor/{NAME}.lock || true")).contains("stor apply")
    });
    sleep(Duration::from_secs(1));
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(5).says(&["busy: stor apply by"]);
    assert_eq!(apply.wait().unwrap().code(), Some(0));
    assert_eq!(places(lab), (vec!["kvm1"], vec!["kvm1"]));
    lab.on("kvm1", "rm /usr/local/bin/virsh");

    lab.edit("  timeout: 5m\n", "  timeout: 5m\n  bandwidth: 6MiB/s\n");
    let mut moving = background(lab, &["migrate", "web1", "--to", "kvm2"]);
    let under_way =
        || lab.on("kvm1", "virsh domjobinfo web1 2>/dev/null || true").contains("Outgoing migration");
    wait_until("it does not move", under_way);
    for command in
        [&["apply", "--yes"][..], &["destroy", "--yes"], &["migrate", "web1", "--cold", "--to", "kvm2"]]
    {
        lab.lab(command).exits(5).says(&["busy: stor migrate web1 to kvm2 by"]);
    }
    assert_eq!(moving.wait().unwrap().code(), Some(0));
    assert_eq!(places(lab), (vec!["kvm2"], vec!["kvm2"]));

    // A stor that is killed leaves the move to the two hosts, and no lock: what moves counts as being there.
    let mut moving = background(lab, &["migrate", "web1", "--to", "kvm1"]);
    wait_until("it does not move back", || {
        lab.on("kvm2", "virsh domjobinfo web1 2>/dev/null || true").contains("Outgoing migration")
    });
    moving.kill().unwrap();
    moving.wait().unwrap();
    lab.lab(&["apply", "--yes"]).exits(0).says(&["nothing to do"]);
    lab.lab(&["migrate", "web1", "--to", "kvm1"]).exits(0);
    lab.lab(&["migrate", "web1", "--to", "kvm2"]).exits(0);
    lab.edit("  bandwidth: 6MiB/s\n", "");
    lab.lab(&["apply", "--yes"]).exits(0).says(&["nothing to do"]);
    beats(lab);
}

/// An apply on a terminal that waits for its answer.
struct Asking {
    child: Child,
    stdin: ChildStdin,
    said: Receiver<u8>,
    text: String,
}

impl Asking {
    fn new(lab: &Lab) -> Self {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{} --lab apply", env!("CARGO_BIN_EXE_stor")), "/dev/null"]);
        command.current_dir(lab.path("")).env("XDG_STATE_HOME", lab.path("state")).env_remove("STOR_FILE");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            for byte in BufReader::new(stdout).bytes().map_while(Result::ok) {
                if sender.send(byte).is_err() {
                    break;
                }
            }
        });
        let mut asking = Self { child, stdin, said, text: String::new() };
        wait_until("it does not ask", || {
            asking.read();
            asking.text.contains("type yes")
        });
        asking
    }

    fn read(&mut self) {
        let bytes: Vec<u8> = self.said.try_iter().collect();
        self.text.push_str(&String::from_utf8_lossy(&bytes));
    }

    /// Says yes; the exit status and all that was shown.
    fn yes(mut self) -> (Option<i32>, String) {
        self.stdin.write_all(b"yes\n").unwrap();
        let code = self.child.wait().unwrap().code();
        sleep(Duration::from_millis(200));
        self.read();
        (code, self.text)
    }
}

/// Takes the guest's only definition away from kvm2 while it is off, so that apply wants to define it on kvm1; puts it back with `put_back`.
fn take_away(lab: &Lab) {
    lab.on("kvm2", "virsh destroy web1; virsh dumpxml web1 >/root/web1.xml && virsh undefine web1");
}

fn what_changes_while_an_apply_asks_is_seen(lab: &Lab) {
    take_away(lab);
    let asking = Asking::new(lab);
    assert!(asking.text.contains("define guest web1 on kvm1"), "{}", asking.text);
    lab.on("kvm2", "virsh define /root/web1.xml && virsh start web1");
    let (code, said) = asking.yes();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("the hosts have changed while you were asked"), "{said}");
    assert_eq!(places(lab), (vec!["kvm2"], vec!["kvm2"]));
    beats(lab);
}

/// The locks go, a second stor moves the guest shut off and starts it, then the user of the first says yes.
fn locks_lost_while_an_apply_asks_end_it(lab: &Lab) {
    take_away(lab);
    let asking = Asking::new(lab);
    assert!(asking.text.contains("define guest web1 on kvm1"), "{}", asking.text);
    lab.lab(&["start", "web1"]).exits(5).says(&["busy: stor apply by"]);
    for host in ALL {
        lose_lock(lab, host);
    }
    lab.on("kvm1", "true");
    lab.on("kvm2", "virsh define /root/web1.xml");
    lab.lab(&["migrate", "web1", "--cold", "--to", "kvm1"]).exits(0);
    lab.lab(&["migrate", "web1", "--cold", "--to", "kvm2", "--start"]).exits(0);
    let (code, said) = asking.yes();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("the lock was lost"), "{said}");
    assert_eq!(places(lab), (vec!["kvm2"], vec!["kvm2"]));
    beats(lab);
}

/// Between two calls to libvirt: the guest is told to shut down, the lock goes, and nothing is defined anywhere.
fn a_lock_lost_while_a_guest_shuts_down_ends_its_cold_move(lab: &Lab) {
    let mut command = lab.command(&["--lab", "migrate", "web1", "--cold", "--to", "kvm1", "--shutdown"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it does not begin", || {
        lab.on("kvm1", &format!("cat /run/stor/{NAME}.lock")).contains("stor migrate")
    });
    lose_lock(lab, "kvm1");
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(5 | 9)), "{code:?}: {said}");
    assert!(said.contains("the lock was lost"), "{said}");
    assert_eq!(places(lab).0, ["kvm2"]);
    wait_until("it does not stop", || {
        lab.on("kvm2", "virsh domstate web1").contains("shut off") || places(lab).1 == ["kvm2"]
    });
    lab.lab(&["migrate", "web1", "--cold", "--to", "kvm1", "--shutdown", "--start"]).exits(0);
    assert_eq!(places(lab), (vec!["kvm1"], vec!["kvm1"]));
    beats(lab);
}

/// What a link could lead to on every host: owner, mode and content.
fn canaries(lab: &Lab) -> Vec<String> {
    let show = |host| lab.on(host, "stat -c '%U:%G %a %s' /etc/canary; sha256sum /etc/canary");
    ALL.map(show).to_vec()
}

fn links_planted_on_the_share_lead_nowhere(lab: &Lab) {
    for host in ALL {
        lab.on(host, "cp /etc/shadow /etc/canary && chown root:shadow /etc/canary && chmod 640 /etc/canary");
    }
    let before = canaries(lab);
    // Root on the other client puts a link in place of the names that it can foresee, and of every one that it sees.
    let plant = format!(
        "cd {MOUNT} && while :; do for n in 2 3 4 5; do ln -sfn /etc/canary .web$n.img.stor-partial; ln -sfn /etc/canary .web$n.img.stor-copy; done; \
         for f in .web?.*.stor-*; do [ -L \"$f\" ] || [ ! -e \"$f\" ] || ln -sfn /etc/canary \"$f\"; done; done"
    );
    lab.on("kvm2", &format!("setsid sh -c '{plant}' >/dev/null 2>&1 </dev/null & echo $! >/root/planter"));
    let image = |n: u32| {
        format!(
            "  web{n}: {{ storage: gfs, size: 16MiB, format: {} }}\n",
            if n.is_multiple_of(2) { "raw" } else { "qcow2" }
        )
    };
    let more: String = (2..=5).map(image).collect();
    lab.edit("images:\n", &format!("images:\n{more}"));
    for _ in 0..2 {
        let code = ended(&mut lab.command(&["--lab", "apply", "--yes"])).status;
        assert!(matches!(code, 0 | 6), "{code}");
        assert_eq!(canaries(lab), before);
    }
    lab.on("kvm2", "kill -9 -- -$(cat /root/planter) || kill -9 $(cat /root/planter); sleep 0.2");
    lab.lab(&["apply", "--yes"]).exits(0);
    assert_eq!(canaries(lab), before);
    let made = lab.on("kvm1", &format!("stat -c '%n %F %h' {MOUNT}/web?.*"));
    assert_eq!(made.lines().filter(|line| line.ends_with("regular file 1")).count(), 5, "{made}");

    // The final name is a link: refused, and the guest's files elsewhere stay as they are.
    lab.on("kvm2", &format!("rm -f {MOUNT}/.web?.*.stor-*; ln -s /etc/canary {MOUNT}/web6.img"));
    lab.edit("images:\n", &format!("images:\n{}", image(6)));
    lab.lab(&["apply", "--yes"]).exits(6).says(&["web6.img is a symbolic link"]);
    assert_eq!(canaries(lab), before);
    // What a killed run left goes, and nothing that only looks like it.
    let left = ".web1.img.stor-0123456789abcdef.partial";
    lab.on("kvm2", &format!("cd {MOUNT} && rm web6.img && echo x >{left} && ln -s /etc/canary .web2.img.stor-0123456789abcdef.partial"));
    lab.lab(&["apply", "--yes"]).exits(0).says(&[&format!("remove the unfinished {MOUNT}/{left}")]);
    let seen = lab.on("kvm1", &format!("cd {MOUNT} && ls -A"));
    assert!(!seen.contains(left) && seen.contains("web6.img"), "{seen}");
    assert_eq!(canaries(lab), before);
    lab.on("kvm2", &format!("rm {MOUNT}/.web2.img.stor-0123456789abcdef.partial"));
}
