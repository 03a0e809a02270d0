//! Asks a server that has the files of a storage in a directory of its own, through ssh: commands and a pure reader.
//!
//! Stands in for a protocol client where none on this machine can look. Imports `model` and `probe`.

use super::probe::{ClientAnswer, ClientRequest, Identity, Keeper, NoClient};
use crate::model::{Answer, Command, Query};
use crate::storage::mount_probe::PROBE_DEADLINE;

const SCRIPT: &str = include_str!("keeper.sh");

/// Asks a server, in one call.
#[must_use]
pub fn query(keeper: &Keeper, request: &ClientRequest) -> Query {
    let marked = |mark: char, files: &[String]| {
        files.iter().map(move |file| format!("{mark}:{file}")).collect::<Vec<_>>()
    };
    let command = Command::new("sh")
        .args(["-c", SCRIPT, "stor-keeper", keeper.directory.as_str()])
        .args(marked('c', &request.create))
        .args(marked('i', &request.identify))
        .args(marked('r', &request.read))
        .args(marked('d', &request.remove));
    Query::probe(command.deadline(PROBE_DEADLINE))
}

/// Reads the answer of [`query`].
///
/// # Errors
/// [`NoClient::Failed`] when the directory is not there, or the script failed.
pub fn read(answer: &Answer) -> Result<ClientAnswer, NoClient> {
    let failed = |reason: String| Err(NoClient::Failed { reason });
    if let Some(why) = answer.stdout.strip_prefix("refused ") {
        return failed(why.trim_end().to_owned());
    }
    match answer.status {
        None => return failed("no answer in time".to_owned()),
        Some(0) => {}
        Some(status) => return failed(format!("status {status}: {}", answer.stderr.trim())),
    }
    let mut seen = ClientAnswer::default();
    for line in answer.stdout.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(mark), Some(file)) = (words.next(), words.next()) else {
            return failed(format!("unexpected answer: {line}"));
        };
        let said = words.next().unwrap_or_default().trim();
        let done = || if said.is_empty() { Ok(()) } else { Err(said.to_owned()) };
        let file = file.to_owned();
        match mark {
            "c" => drop(seen.created.insert(file, done())),
            "i" => drop(seen.identified.insert(file, identity(said))),
            "r" => drop(seen.read.insert(file, text(said))),
            "d" => drop(seen.removed.insert(file, done())),
            _ => return failed(format!("unexpected answer: {line}")),
        }
    }
    Ok(seen)
}

fn identity(said: &str) -> Result<Identity, String> {
    let numbers =
        said.split_once(' ').and_then(|(inode, size)| Some((inode.parse().ok()?, size.parse().ok()?)));
    numbers.map(|(inode, size)| Identity { inode, id: None, size }).ok_or_else(|| said.to_owned())
}

fn text(said: &str) -> Result<String, String> {
    if said.starts_with("head: ") { Err(said.to_owned()) } else { Ok(said.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(stdout: &str) -> Answer {
        Answer { status: Some(0), stdout: stdout.to_owned(), stderr: String::new() }
    }

    #[test]
    fn files_are_identified_and_errors_kept() {
        let text = "c .p \ni web1.img 131 67108864\ni no.img stat: cannot statx 'no.img': No such file or directory\nr .p 01/nfs/kvm1\nd .p \n";
        let seen = read(&answer(text)).unwrap();
        assert_eq!(seen.created[".p"], Ok(()));
        assert_eq!(seen.identified["web1.img"], Ok(Identity { inode: 131, id: None, size: 64 << 20 }));
        assert!(seen.identified["no.img"].as_ref().unwrap_err().ends_with("No such file or directory"));
        assert_eq!(seen.read[".p"].as_deref(), Ok("01/nfs/kvm1"));
        assert_eq!(seen.removed[".p"], Ok(()));
    }

    #[test]
    fn a_directory_that_is_not_there_is_no_empty_one() {
        assert!(matches!(read(&answer("refused no directory /srv/x\n")), Err(NoClient::Failed { .. })));
        let killed = Answer { status: None, stdout: String::new(), stderr: String::new() };
        assert!(matches!(read(&killed), Err(NoClient::Failed { .. })));
    }
}
