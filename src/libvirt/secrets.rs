//! libvirt secrets: their names and XML, and what `virsh` tells about them; never a value.
//!
//! Pure. Imports `model`. Which secrets a storage needs is decided in `storage`; setting a value is `conn`.
//! Source: <https://libvirt.org/formatsecret.html>.

use uuid::Uuid;

use super::domain_xml::NAMESPACE;
use super::xml::{self, Element};
use crate::model::{Answer, ClusterName, Command, Query, SecretId, StorageId};

/// The UUID of a storage's secret; the same on every hypervisor, because a guest's definition names it.
#[must_use]
pub fn id(cluster: &ClusterName, storage: &StorageId) -> SecretId {
    SecretId(Uuid::new_v5(&NAMESPACE, format!("secret/{cluster}/{storage}").as_bytes()))
}

/// What a storage's secret is for, as libvirt lists it (`usage`); one secret of a host has it.
#[must_use]
pub fn usage(cluster: &ClusterName, storage: &StorageId) -> String {
    format!("stor-{cluster}-{storage}")
}

/// Writes the XML of a storage's CHAP secret. It is private: libvirt uses its value and tells it nobody.
#[must_use]
pub fn chap(cluster: &ClusterName, storage: &StorageId) -> String {
    let text = |name: &str, value: String| Element::new(name).containing(value);
    let usage = Element::new("usage").with("type", "iscsi").child(text("target", usage(cluster, storage)));
    Element::new("secret")
        .with("ephemeral", "no")
        .with("private", "yes")
        .child(text("uuid", id(cluster, storage).to_string()))
        .child(text(
            "description",
            format!("CHAP secret of storage {storage}, cluster {cluster}, kept by stor"),
        ))
        .child(usage)
        .render()
}

/// A secret as its host shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSeen {
    /// Type of its usage: `iscsi`, `ceph`, `volume` ...
    pub kind: String,
    /// Its usage.
    pub usage: String,
}

/// Asks for a secret, read-only, in one call: the list of all, then its XML (virsh goes on after an error).
#[must_use]
pub fn query(id: SecretId) -> Query {
    let text = format!("secret-list; secret-dumpxml {id}");
    Query::new(Command::new("virsh").arg("-r").arg(text))
}

/// What a host shows of the secret that was asked for, and the UUIDs of all its others with their usage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The secret, if the host has it.
    pub secret: Option<SecretSeen>,
    /// The others: UUID and usage.
    pub others: Vec<(SecretId, String)>,
}

/// Reads the answer of [`query`]; the error is a sentence about what is wrong.
///
/// # Errors
/// When virsh is missing or could not reach the daemon, or printed something else.
pub fn parse(id: SecretId, answer: &Answer) -> Result<Seen, String> {
    if answer.not_found() {
        return Err("virsh is not installed".to_owned());
    }
    let mut lines = answer.stdout.lines();
    if !lines.any(|line| line.starts_with("---")) {
        let why = answer.stderr.trim();
        return Err(if why.is_empty() { "virsh printed no list".to_owned() } else { why.to_owned() });
    }
    let listed = lines.map_while(|line| {
        let (uuid, usage) = line.trim().split_once(char::is_whitespace)?;
        let usage = usage.trim().split_once(' ').map_or("", |(_, name)| name.trim());
        Some((SecretId(uuid.parse().ok()?), usage.to_owned()))
    });
    let (own, others): (Vec<_>, Vec<_>) = listed.partition(|(found, _)| *found == id);
    if own.is_empty() {
        return Ok(Seen { secret: None, others });
    }
    let text = answer.stdout.find("<secret ").map(|at| &answer.stdout[at..]);
    let text = text.ok_or_else(|| format!("virsh lists secret {id} and does not show it"))?;
    let root = xml::parse(text.trim_end(), "a secret").map_err(|error| error.to_string())?;
    let usage = root.first("usage").cloned().unwrap_or_default();
    let name = usage.children.first().map(|child| child.text.clone()).unwrap_or_default();
    let kind = usage.attribute("type").unwrap_or_default().to_owned();
    Ok(Seen { secret: Some(SecretSeen { kind, usage: name }), others })
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../fixtures/outputs/virsh/debian13-libvirt11.3-", $name, ".txt"))
        };
    }

    fn names() -> (ClusterName, StorageId) {
        ("homelab".parse().unwrap(), "san".parse().unwrap())
    }

    fn said(stdout: &str, stderr: &str) -> Answer {
        Answer { status: Some(1), stdout: stdout.to_owned(), stderr: stderr.to_owned() }
    }

    #[test]
    fn a_secret_reads_back_as_it_was_defined() {
        let (cluster, storage) = names();
        let id = id(&cluster, &storage);
        let seen = parse(id, &said(fixture!("secrets"), "")).unwrap();
        let expected = SecretSeen { kind: "iscsi".to_owned(), usage: usage(&cluster, &storage) };
        assert_eq!(seen, Seen { secret: Some(expected), others: Vec::new() });
        let written = xml::parse(&chap(&cluster, &storage), "a secret").unwrap();
        assert!(fixture!("secrets").contains(&format!("<uuid>{id}</uuid>")));
        assert_eq!(written.attribute("private"), Some("yes"));
    }

    #[test]
    fn a_secret_that_the_host_has_under_another_uuid_is_told_with_its_usage() {
        let other = SecretId(Uuid::nil());
        let seen = parse(other, &said(fixture!("secrets"), "")).unwrap();
        let (cluster, storage) = names();
        assert_eq!(
            (seen.secret, seen.others),
            (None, vec![(id(&cluster, &storage), usage(&cluster, &storage))])
        );
    }

    #[test]
    fn no_secret_is_an_answer_and_a_daemon_that_is_down_is_none() {
        assert_eq!(parse(SecretId(Uuid::nil()), &said(fixture!("secrets-none"), "")), Ok(Seen::default()));
        let down = "error: failed to connect to the hypervisor";
        assert_eq!(parse(SecretId(Uuid::nil()), &said("", down)), Err(down.to_owned()));
    }
}
