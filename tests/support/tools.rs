//! Small tools of a Debian host, as far as stor uses them: what they print about files, and what they do to directories.

use std::collections::BTreeMap;

use stor::host::fake::{File, Files, answer, failure};
use stor::model::{AbsPath, Answer};

use super::path;

pub fn first_entry(directory: &AbsPath, rest: &[&str], files: &Files) -> Answer {
    if !files.is_directory(directory) {
        return failure(1, format!("find: '{directory}': No such file or directory\n"));
    }
    let except: Vec<&str> = rest.windows(2).filter(|pair| pair[0] == "-name").map(|pair| pair[1]).collect();
    let mut names = files
        .iter()
        .filter(|(path, _)| *path != directory && path.is_within(directory))
        .map(|(path, _)| path.as_str()[directory.as_str().len() + 1..].split('/').next().unwrap().to_owned());
    let first = names.find(|name| !except.contains(&name.as_str()));
    answer(0, first.map_or_else(String::new, |name| format!("{name}\n")))
}

/// What killed runs left in the directories that stand before the first condition.
pub fn leftovers(args: &[&str], files: &Files) -> Answer {
    let directories: Vec<AbsPath> =
        args.iter().take_while(|arg| !arg.starts_with('-')).map(|arg| path(arg)).collect();
    let left = |at: &AbsPath| {
        directories.contains(&at.parent())
            && at.file_name().contains(".stor-")
            && at.file_name().ends_with(".partial")
    };
    let lines = files.iter().filter(|(at, _)| left(at)).map(|(at, _)| format!("{at}\n"));
    answer(0, lines.collect::<String>())
}

pub fn replace(files: &mut Files, directory: &AbsPath, content: &BTreeMap<String, File>) {
    let old: Vec<AbsPath> =
        files.iter().map(|(path, _)| path.clone()).filter(|path| path.parent() == *directory).collect();
    old.iter().for_each(|path| _ = files.remove(path));
    for (name, file) in content {
        files.put(&directory.join(name).unwrap(), file.content.clone(), file.mode);
    }
}

pub fn remove_tree(files: &mut Files, directory: &AbsPath) {
    let below: Vec<AbsPath> =
        files.iter().map(|(path, _)| path.clone()).filter(|path| path.is_within(directory)).collect();
    for file in &below {
        files.remove(file);
        let mut at = file.parent();
        while at.is_within(directory) && files.remove_directory(&at) {
            at = at.parent();
        }
    }
    files.remove_directory(directory);
}

pub fn stat(format: &str, paths: &[&str], files: &Files) -> Answer {
    let mut out = answer(0, "");
    for text in paths {
        let place = path(text);
        let directory = files.is_directory(&place);
        let file = files.get(&place);
        if file.is_none() && !directory {
            out.status = Some(1);
            out.stderr.push_str(&format!("stat: cannot statx '{text}': No such file or directory\n"));
            continue;
        }
        let line = match format {
            "--format=%d %F:%n" => {
                let device = if place.is_within(&path("/data")) { 2 } else { 1 };
                format!("{device} {}:{text}", if directory { "directory" } else { "regular file" })
            }
            "--format=%u %g %F" => format!("0 0 {}", if directory { "directory" } else { "regular file" }),
            "--format=%u %g %n" => format!("0 0 {text}"),
            "--format=%a %n" => format!("{:o} {text}", file.map_or(0o755, |file| file.mode)),
            "--format=%s %f %n" => {
                let mode = if directory { "41ed" } else { "8180" };
                format!("{} {mode} {text}", file.map_or(4096, |file| size(&file.content)))
            }
            other => panic!("stat {other} is not emulated"),
        };
        out.stdout.push_str(&(line + "\n"));
    }
    out
}

/// A raw image is as large as its marker says, any other file as its content is.
pub fn size(content: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(content);
    match text.strip_prefix("raw ").and_then(|size| size.parse().ok()) {
        Some(size) => size,
        None => content.len() as u64,
    }
}

/// POSIX cksum, the plain way.
pub fn cksum(paths: &[&str], files: &Files) -> Answer {
    let mut out = answer(0, "");
    for text in paths {
        let Some(file) = files.get(&path(text)) else {
            out.status = Some(1);
            out.stderr.push_str(&format!("cksum: {text}: No such file or directory\n"));
            continue;
        };
        let length = file.content.len();
        let tail = length.to_le_bytes();
        let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let bits = file
            .content
            .iter()
            .chain(&tail[..used])
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
        let crc = bits.fold(0u32, |crc, bit| {
            let carry = (crc >> 31 == 1) != bit;
            (crc << 1) ^ if carry { 0x04c1_1db7 } else { 0 }
        });
        out.stdout.push_str(&format!("{} {length} {text}\n", !crc));
    }
    out
}

/// `sed -n -e '/^BEGIN$/,/^END$/p' FILE`
pub fn block(script: &str, file: &str, files: &Files) -> Answer {
    let Some(text) = files.text(&path(file)) else {
        return failure(2, format!("sed: can't read {file}: No such file or directory\n"));
    };
    let short = script.contains("/{s/");
    let range = script.split("/{s/").next().unwrap().trim_end_matches('p');
    let (begin, end) = range.split_once(',').unwrap();
    let mark =
        |pattern: &str| pattern.trim_matches('/').trim_start_matches('^').trim_end_matches('$').to_owned();
    let (begin, end) = (mark(begin), mark(end));
    let mut inside = false;
    let mut out = String::new();
    for line in text.lines() {
        inside |= line == begin;
        if inside {
            let key = line.starts_with("restrict,")
                && line.contains("\"virt-ssh-helper qemu:///system\" ssh-ed25519 ");
            let line = if short && key { &line[line.len() - 12..] } else { line };
            out.push_str(&format!("{line}\n"));
        }
        inside &= line != end;
    }
    answer(0, out)
}

/// Files that carry a cluster's marks.
pub fn marked(cluster: &str, files: &Files) -> String {
    let (header, begin) =
        (format!("# Written by stor for cluster {cluster}. "), format!("# BEGIN stor {cluster}"));
    let searched =
        ["/etc/systemd/system", "/etc/exports.d", "/etc/ganesha/exports.d", "/etc/tgt/conf.d"].map(path);
    let own = path(&format!("/var/lib/stor/{cluster}"));
    let mut out = String::new();
    for (file, content) in files.iter() {
        let text = String::from_utf8_lossy(&content.content);
        let headed = searched.iter().any(|at| file.is_within(at)) && text.contains(&header);
        let trust = file.as_str() == "/root/.ssh/authorized_keys" && text.lines().any(|line| line == begin);
        if headed || trust || file.is_within(&own) {
            out.push_str(&format!("mark {file}\n"));
        }
    }
    out
}

/// Which file a path leads to, as the look at a disk's other users prints it.
pub fn identity(file: &str, files: &Files) -> String {
    match files.get(&path(file)) {
        Some(_) => {
            let inode: u64 = file.bytes().map(u64::from).sum();
            format!("real {file}\nstat 44 {inode} 0 0\n")
        }
        None => "absent\n".to_owned(),
    }
}
