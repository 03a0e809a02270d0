//! Hostile cluster files end in a clear error within 2 s of processor time and 256 MB of memory.
//!
//! Each case runs in a process of its own (this test program, started again), which tells what it used.

use std::fmt::Write;
use std::path::Path;

use stor::spec;

/// Names the case that a child process runs.
const CASE: &str = "STOR_TEST_LIMITS_CASE";
const SECONDS: f64 = 2.0;
const MEGABYTES: u64 = 256;

/// A hostile text: its name, how it is made, and what the first problem says.
type Case = (&'static str, fn() -> String, &'static str);

fn cases() -> Vec<Case> {
    vec![
        ("laughs", laughs, "expand to too much"),
        ("many-uses-of-one-list", many_uses, "expand to too much"),
        ("merges", merges, "expand to too much"),
        ("anchors", || head(&format!("[{}]", "&a a,".repeat(700_000))), "too much"),
        ("deep-flow", || head(&"[".repeat(1 << 20)), "nest"),
        ("deep-maps", || head(&"{a: ".repeat(1 << 18)), "nest"),
        ("deep-block", || format!("version: 1\nname:\n {}x\n", "- ".repeat(1 << 20)), "nest"),
        ("deep-indentation", deep_block, "nest"),
        ("deep-keys", || format!("version: 1\n{}x\n", "? ".repeat(1 << 20)), "nest"),
        ("million-items", || head(&format!("[{}]", "a,".repeat(1_000_000))), "more than 150000 values"),
        ("million-bricks", million_bricks, "more than 150000 values"),
        ("million-keys", || keys(500_000, "0"), "more than 150000 values"),
        ("bad-hosts", || keys(74_000, "{}"), "key \"address\" is missing"),
        ("equal-keys", || format!("version: 1\nhosts:\n{}", "  a: {}\n".repeat(100_000)), "given twice"),
        ("undeclared", undeclared, "is not declared"),
        ("one-place", one_place, "is used twice"),
        ("long-paths", long_paths, "at most 200 are allowed"),
        ("long-name", || head(&"a".repeat(4_000_000)), "at most 4095"),
        ("long-address", long_address, "at most 4095"),
        ("long-key", || format!("version: 1\n{}: 1\n", "k".repeat(1000)), "is missing"),
        ("long-quotes", || head(&format!("\"{}", "\\x41".repeat(1_000_000))), "not valid YAML"),
        ("blank-lines", || "\n".repeat(4_000_000), "it is empty"),
        ("comments", || "#\n".repeat(2_000_000), "it is empty"),
        ("tags", || head(&"!a ".repeat(1_000_000)), ""),
        ("documents", || "---\n".repeat(1_000_000), "more than one YAML document"),
        ("directives", || "%A 1\n".repeat(800_000), ""),
        ("controls", || "\u{7f}\u{9f}\u{202e}".repeat(500_000), ""),
    ]
}

fn head(name: &str) -> String {
    format!("version: 1\nname: {name}\nhosts: {{}}\n")
}

fn laughs() -> String {
    let mut text = "version: 1\nname: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        writeln!(text, "k{level}: &a{level} [{below}]").unwrap();
    }
    text
}

fn many_uses() -> String {
    let mut text = format!("version: 1\nname: &a [{}]\n", "x,".repeat(10_000));
    for use_number in 0..90 {
        writeln!(text, "k{use_number}: *a").unwrap();
    }
    text
}

fn merges() -> String {
    let mut text = "version: 1\nname: x\nk0: &a0 { a: 1, b: 2 }\n".to_owned();
    for level in 1..30 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        writeln!(text, "k{level}: &a{level} {{ <<: [{below}] }}").unwrap();
    }
    text
}

fn deep_block() -> String {
    let mut text = "version: 1\n".to_owned();
    for level in 0..2_000 {
        writeln!(text, "{}a:", " ".repeat(level)).unwrap();
    }
    text
}

fn keys(count: usize, value: &str) -> String {
    let mut text = "version: 1\nname: x\nhosts:\n".to_owned();
    for number in 0..count {
        writeln!(text, " h{number}: {value}").unwrap();
    }
    text.truncate(4 << 20);
    text
}

fn cluster(bricks: &str) -> String {
    format!(
        "version: 1\nname: x\nhosts: {{a: {{address: 10.0.0.1}}}}\nstorage:\n s: {{gluster: {{bricks: [{bricks}]}}}}\n"
    )
}

fn million_bricks() -> String {
    cluster(&"a:/,".repeat(1_000_000))
}

fn undeclared() -> String {
    cluster(&(0..140_000).fold(String::new(), |text, number| format_push(text, &format!("b{number}:/d,"))))
}

fn one_place() -> String {
    cluster(&"a:/d,".repeat(140_000))
}

fn long_paths() -> String {
    let path = "/d".repeat(2_000);
    cluster(&(0..900).fold(String::new(), |text, number| format_push(text, &format!("a:{path}{number},"))))
}

fn long_address() -> String {
    format!("version: 1\nname: x\nhosts: {{a: {{address: \"{}\"}}}}\n", "a.".repeat(1_900_000))
}

fn format_push(mut text: String, more: &str) -> String {
    text.push_str(more);
    text
}

/// What this process has used: processor time in seconds, memory at its peak in MB (proc(5): schedstat, status).
fn used() -> (f64, u64) {
    let time: f64 = std::fs::read_dir("/proc/self/task")
        .unwrap()
        // A thread may have ended since the directory was read.
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("schedstat")).ok())
        .map(|stat| stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9)
        .sum();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    (time, peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024)
}

/// Runs one case when this process was started for it.
#[test]
fn child() {
    let Ok(wanted) = std::env::var(CASE) else { return };
    let (_, make, _) = cases().into_iter().find(|(name, ..)| *name == wanted).unwrap();
    let text = make();
    assert!(
        text.len() as u64 <= spec::FILE_MAX,
        "{wanted}: {} bytes would be refused by size alone",
        text.len()
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text).unwrap();
    drop(text);
    let (before, _) = used();
    let error = spec::load(file.path()).unwrap_err();
    let mut shown = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
        .render_report(&mut shown, &error)
        .unwrap();
    let (after, peak) = used();
    let first = error.problems().first().map(|problem| problem.message.chars().take(300).collect::<String>());
    println!("@{:.3}\n@{peak}\n@{}\n@{}", after - before, shown.len(), first.unwrap_or_default());
}

#[test]
fn hostile_files_cost_little() {
    for (name, _, wanted) in cases() {
        let output = assert_cmd::Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CASE, name)
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {out}\n{}", String::from_utf8_lossy(&output.stderr));
        let told: Vec<&str> =
            out.lines().filter_map(|line| line.split_once('@').map(|(_, told)| told)).collect();
        assert_eq!(told.len(), 4, "{name}: {out}");
        let (seconds, megabytes, shown, first) = (told[0], told[1], told[2], told[3]);
        println!("{name:22} {seconds:>6} s {megabytes:>4} MB {shown:>7} bytes shown: {first}");
        assert!(seconds.parse::<f64>().unwrap() < SECONDS, "{name}: {seconds} s");
        assert!(megabytes.parse::<u64>().unwrap() < MEGABYTES, "{name}: {megabytes} MB");
        assert!(shown.parse::<usize>().unwrap() < 200_000, "{name}: {shown} bytes are shown");
        assert!(first.contains(wanted), "{name}: {first}");
    }
}

#[test]
fn an_endless_file_is_refused_by_its_size() {
    let error = spec::load(Path::new("/dev/zero")).unwrap_err();
    assert!(matches!(error, spec::SpecError::TooLarge { .. }), "{error:?}");
}

#[test]
fn a_thousand_hosts_load() {
    let mut text = "version: 1\nname: big\nhosts:\n".to_owned();
    for n in 0..1_000 {
        writeln!(text, "  h{n}: {{ address: 10.{}.{}.{}, hypervisor: true }}", n / 250, n % 250, 1 + n % 7)
            .unwrap();
    }
    text.push_str("storage:\n  s:\n    gluster:\n      bricks:\n");
    for n in 0..300 {
        writeln!(text, "      - h{n}:/data/s").unwrap();
    }
    text.push_str("images:\n");
    for n in 0..4_000 {
        writeln!(text, "  g{n}: {{ storage: s, size: 20GiB }}").unwrap();
    }
    text.push_str("guests:\n");
    for n in 0..4_000 {
        writeln!(text, "  g{n}: {{ image: g{n}, memory: 2GiB, vcpus: 2, bridge: br0, on: h{} }}", n % 1_000)
            .unwrap();
    }
    let (before, _) = used();
    let cluster = spec::parse(&text, Path::new("/"), "big.yaml").unwrap();
    let (after, _) = used();
    println!("{} bytes in {:.3} s", text.len(), after - before);
    assert_eq!((cluster.hosts.len(), cluster.guests.len()), (1_000, 4_000));
    assert!(after - before < SECONDS);
}
