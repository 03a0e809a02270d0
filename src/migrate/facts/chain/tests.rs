use super::*;
use crate::libvirt::domain_xml::{self, DomainSummary};

/// What qemu-img 10.0 prints of top -> mid -> base, and of an image with an external data file.
const CHAIN: &str = include_str!("../../../../fixtures/outputs/qemu-img/debian12bpo-qemu10.0-chain.json");
const DATA: &str = include_str!("../../../../fixtures/outputs/qemu-img/debian12bpo-qemu10.0-data-file.json");
/// A chain whose base is a block device, and one whose base has a `json:` name.
const DEVICE: &str = include_str!("../../../../fixtures/outputs/qemu-img/debian12bpo-qemu10.0-device.json");

fn cluster() -> Cluster {
    let text = "version: 1
name: lab
hosts:
  store1: { address: 10.78.0.11 }
  kvm1: { address: 10.78.0.21, hypervisor: true }
storage:
  vmstore:
    nfs: { server: store1, path: /srv/vmstore }
";
    crate::spec::parse(text, std::path::Path::new("/"), "cluster.yaml").unwrap()
}

fn guest(disk: &str) -> DomainSummary {
    domain_xml::read(&format!("<domain><name>g</name><devices>{disk}</devices></domain>")).unwrap()
}

fn disk(format: &str, more: &str) -> DiskSummary {
    let driver =
        if format.is_empty() { String::new() } else { format!("<driver name='qemu' type='{format}'/>") };
    let text =
        format!("<disk type='file'>{driver}<source file='/s/top.img'/>{more}<target dev='vda'/></disk>");
    guest(&text).disks.remove(0)
}

fn file(path: &str) -> DiskSource {
    DiskSource::File(path.to_owned())
}

fn asked(disk: &DiskSummary, facts: ImageFacts) -> BTreeMap<Image, ImageFacts> {
    images(std::slice::from_ref(disk), &cluster()).into_iter().map(|image| (image, facts.clone())).collect()
}

fn facts(format: Option<&str>, below: Known<Vec<Layer>>) -> ImageFacts {
    let signature = match format {
        Some("qcow2") => Signature::of(b"QFI\xfb"),
        Some("vmdk") => Signature::of(b"KDMV"),
        _ => Signature::of(b""),
    };
    ImageFacts { signature: Ok(signature), below }
}

fn layer(path: &str) -> Layer {
    Layer { source: file(path), format: Some("qcow2".to_owned()), role: LayerRole::Backing }
}

fn paths(layers: Known<Vec<Layer>>) -> Known<Vec<DiskSource>> {
    layers.map(|layers| layers.into_iter().map(|layer| layer.source).collect())
}

#[test]
fn qemu_img_tells_every_image_below_and_data_files_beside_their_image() {
    let sources = |text| paths(below(text)).unwrap();
    assert_eq!(sources(CHAIN), [file("/srv/h1/mid.qcow2"), file("/srv/h1/base.raw")]);
    assert_eq!(sources(DATA), [file("/srv/h1/d.raw")]);
    assert!(matches!(sources(DEVICE).as_slice(), [DiskSource::Block(path)] if path.starts_with("/dev/loop")));
    assert!(below("[]").is_err() && below("{").is_err());
}

#[test]
fn names_in_headers_are_found_as_qemu_finds_them() {
    assert_eq!(beside("/s/a/top.qcow2", "../b/d.raw"), "/s/a/../b/d.raw");
    assert_eq!(beside("/s/top.qcow2", "/x/d.raw"), "/x/d.raw");
    assert_eq!(beside("/s/top.qcow2", "nbd:host:1"), "nbd:host:1");
    assert_eq!(source("file:/x/y", false), file("/x/y"));
    let gluster = |hosts: &str, name: &str| DiskSource::Network {
        protocol: "gluster".to_owned(),
        name: name.to_owned(),
        hosts: vec![hosts.to_owned()],
    };
    assert_eq!(source("gluster+tcp://10.0.0.1/gfs/a/b.qcow2", false), gluster("10.0.0.1", "gfs/a/b.qcow2"));
    for unknown in ["json:{\"driver\":\"qcow2\"}", "nbd://h/x", "base.img", "https://x/y"] {
        assert_eq!(source(unknown, false), DiskSource::Other(unknown.to_owned()), "{unknown}");
    }
}

#[test]
fn a_raw_disk_has_nothing_below_it_and_costs_one_look() {
    for format in ["raw", ""] {
        let raw = disk(format, "");
        let all = images(std::slice::from_ref(&raw), &cluster());
        assert_eq!(all, [Image { place: "/s/top.img".to_owned(), format: None }]);
        assert_eq!(layers(&raw, &BTreeMap::new(), &cluster()), Ok(vec![]));
    }
}

#[test]
fn a_chain_that_is_not_known_to_its_end_is_unknown() {
    let top = disk("qcow2", "");
    assert!(layers(&top, &BTreeMap::new(), &cluster()).is_err(), "nobody was asked");
    let failed = facts(Some("qcow2"), Err("Permission denied".to_owned()));
    assert_eq!(
        paths(layers(&top, &asked(&top, failed.clone()), &cluster())),
        Err("Permission denied".to_owned())
    );
    let found = facts(Some("qcow2"), Ok(vec![layer("/s/base")]));
    assert_eq!(paths(layers(&top, &asked(&top, found.clone()), &cluster())).unwrap(), [file("/s/base")]);
    // The XML of a running guest, told to the end; what the host finds besides is looked at as well.
    let told = disk(
        "qcow2",
        "<backingStore type='file'><format type='qcow2'/><source file='/s/mid'/><backingStore type='file'><format type='raw'/><source file='/s/raw'/><backingStore/></backingStore></backingStore>",
    );
    let both = [file("/s/mid"), file("/s/raw")];
    assert_eq!(paths(layers(&told, &asked(&told, failed.clone()), &cluster())).unwrap(), both);
    let more = paths(layers(&told, &asked(&told, found.clone()), &cluster())).unwrap();
    assert_eq!(more, [&both[..], &[file("/s/base")]].concat());
    // Ends in the middle: the last one is asked for what is below it.
    let open = disk(
        "qcow2",
        "<backingStore type='file'><format type='qcow2'/><source file='/s/mid'/></backingStore>",
    );
    let named: Vec<String> =
        images(std::slice::from_ref(&open), &cluster()).into_iter().map(|i| i.place).collect();
    assert_eq!(named, ["/s/mid", "/s/top.img"]);
    assert!(layers(&open, &asked(&open, failed.clone()), &cluster()).is_err());
    let unnamed =
        disk("qcow2", "<backingStore type='file'><source file='/s/mid'/><backingStore/></backingStore>");
    assert_eq!(unnamed.chain, ChainEnd::Told);
    // The user's own end of the chain.
    let ended = disk("qcow2", "<backingStore/>");
    assert_eq!(layers(&ended, &asked(&ended, failed), &cluster()), Ok(vec![]));
    // A protocol that cannot be asked.
    let network = guest(
        "<disk type='network'><driver type='qcow2'/><source protocol='rbd' name='p/i'><host name='h'/></source><target dev='vdb'/></disk>",
    );
    assert!(layers(&network.disks[0], &BTreeMap::new(), &cluster()).is_err());
}

#[test]
fn external_data_in_the_xml_is_a_layer() {
    let text = "<disk type='file'><driver type='qcow2'/><source file='/s/top'><dataStore type='file'><format type='raw'/><source file='/s/data'/></dataStore></source><backingStore/><target dev='vda'/></disk>";
    let disk = guest(text).disks.remove(0);
    assert_eq!(
        disk.layers.iter().map(|l| (&l.source, l.role)).collect::<Vec<_>>(),
        [(&file("/s/data"), LayerRole::Data)]
    );
}

#[test]
fn a_format_that_is_not_the_images_is_said_in_both_directions() {
    let fault = |format: &str, signature| {
        let disk = disk(format, "");
        format_fault(&disk, &asked(&disk, facts(signature, Ok(vec![]))), &cluster()).map(Result::unwrap)
    };
    assert_eq!(fault("raw", None), None);
    assert_eq!(fault("qcow2", Some("qcow2")), None);
    assert_eq!(fault("raw", Some("qcow2")).unwrap(), "disk vda: /s/top.img is qcow2, but its XML says raw");
    assert_eq!(fault("", Some("vmdk")).unwrap(), "disk vda: /s/top.img is vmdk, but its XML says raw");
    assert_eq!(fault("qcow2", None).unwrap(), "disk vda: /s/top.img is raw, but its XML says qcow2");
    // Formats whose first bytes stor does not know.
    assert_eq!(fault("dmg", None), None);
    let unread = disk("raw", "");
    assert!(matches!(format_fault(&unread, &BTreeMap::new(), &cluster()), Some(Err(_))));
}

#[test]
fn what_the_script_prints_is_read() {
    let image = Image { place: "/s/top.img".to_owned(), format: Some("qcow2".to_owned()) };
    let answer = |status, stdout: &str, stderr: &str| Answer {
        status,
        stdout: stdout.to_owned(),
        stderr: stderr.to_owned(),
    };
    let good = read(&image, Some(&answer(Some(0), &format!(" 51 46 49 fb 00 00 00 03\n==\n{CHAIN}"), "")));
    assert_eq!((good.signature, good.below.unwrap().len()), (Ok(Signature::of(b"QFI\xfb")), 2));
    let no_tool = read(
        &image,
        Some(&answer(Some(127), " 51 46 49 fb 00 00 00 03\n==\n", "sh: 1: qemu-img: not found")),
    );
    assert_eq!(no_tool.signature, Ok(Signature::of(b"QFI\xfb")));
    assert_eq!(no_tool.below, Err("sh: 1: qemu-img: not found".to_owned()));
    let denied = read(
        &image,
        Some(&answer(Some(1), "", "head: cannot open '/s/top.img' for reading: Permission denied")),
    );
    assert!(denied.signature.unwrap_err().ends_with("Permission denied") && denied.below.is_err());
    assert!(read(&image, Some(&answer(None, "", ""))).below.is_err());
}
