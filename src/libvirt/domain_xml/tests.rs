use super::*;
use crate::libvirt::domain_xml::read::{DiskAccess, LocalEffect};
use crate::model::AbsPath;
use crate::spec::{Accel, Autostart};

fn shape() -> GuestShape {
    GuestShape {
        image: crate::model::ImageId::new("web1").unwrap(),
        memory: "192MiB".parse().unwrap(),
        vcpus: 1,
        bridge: Some("br0".to_owned()),
        mac: None,
        boot: None,
        accel: Accel::Auto,
        autostart: Autostart::Off,
    }
}

fn cluster() -> ClusterName {
    ClusterName::new("homelab").unwrap()
}

fn web1(shape: &GuestShape, location: &ImageLocation, kind: DomainType) -> String {
    let disk = GuestDisk { location, format: ImageFormat::Raw };
    generate(&cluster(), &GuestId::new("web1").unwrap(), shape, disk, kind)
}

fn file() -> ImageLocation {
    ImageLocation::File(AbsPath::new("/var/lib/libvirt/images/gfs/web1.img").unwrap())
}

#[test]
fn an_emulated_guest_on_a_mount_is_written_in_full() {
    insta::assert_snapshot!(web1(&shape(), &file(), DomainType::Qemu));
}

#[test]
fn a_guest_with_its_own_kernel_on_libgfapi_is_written_in_full() {
    let path = |text| AbsPath::new(text).unwrap();
    let boot = KernelBoot {
        kernel: path("/usr/share/stor-lab/heartbeat/vmlinuz"),
        initrd: Some(path("/usr/share/stor-lab/heartbeat/initrd.gz")),
        cmdline: "console=ttyS0 quote=\"<&>'\"".to_owned(),
    };
    let shape = GuestShape { boot: Some(boot), bridge: None, ..shape() };
    let location = ImageLocation::Gluster {
        servers: vec!["10.77.0.11".to_owned(), "10.77.0.12".to_owned()],
        volume: "gfs".to_owned(),
        path: "web1.img".to_owned(),
    };
    insta::assert_snapshot!(web1(&shape, &location, DomainType::Kvm));
}

#[test]
fn a_xen_guest_is_paravirtualised_and_has_xens_own_devices() {
    let path = |text| AbsPath::new(text).unwrap();
    let boot = KernelBoot {
        kernel: path("/usr/share/stor-lab/heartbeat/vmlinuz"),
        initrd: Some(path("/usr/share/stor-lab/heartbeat/initrd.gz")),
        cmdline: "console=hvc0".to_owned(),
    };
    let text = web1(&GuestShape { boot: Some(boot), ..shape() }, &file(), DomainType::Xen);
    insta::assert_snapshot!(text);
    let summary = read(&text).unwrap();
    assert!(summary.is_xen() && summary.machine.as_deref() == Some("xenpv"), "{summary:?}");
}

#[test]
fn what_libvirt_shows_of_a_running_xen_guest_is_read() {
    let summary = read(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/outputs/virsh/debian13-libvirt11.3-xen-domain-live.xml"
    )))
    .unwrap();
    assert!(summary.is_xen() && summary.local_devices.is_empty(), "{summary:?}");
    assert_eq!((summary.machine.as_deref(), summary.arch.as_deref()), (Some("xenpv"), Some("x86_64")));
    assert_eq!(summary.disks[0].source, DiskSource::File("/var/lib/libvirt/images/runs.img".to_owned()));
    assert_eq!(summary.interfaces[0].source.as_deref(), Some("br0"));
    assert_eq!(summary.boot_files.len(), 2);
}

#[test]
fn identity_depends_on_cluster_and_guest_and_on_nothing_else() {
    let uuid =
        |cluster, guest| guest_uuid(&ClusterName::new(cluster).unwrap(), &GuestId::new(guest).unwrap());
    assert_eq!(uuid("homelab", "web1"), uuid("homelab", "web1"));
    assert_ne!(uuid("homelab", "web1"), uuid("homelab", "web2"));
    assert_ne!(uuid("homelab", "web1"), uuid("other", "web1"));
    let mac = guest_mac(&cluster(), &GuestId::new("web1").unwrap());
    assert!(mac.starts_with("52:54:00:") && mac.len() == 17, "{mac}");
}

#[test]
fn what_is_generated_is_read_back() {
    let summary = read(&web1(&shape(), &file(), DomainType::Qemu)).unwrap();
    assert_eq!(summary.name, "web1");
    assert_eq!(summary.uuid, Some(guest_uuid(&cluster(), &GuestId::new("web1").unwrap()).to_string()));
    assert_eq!(summary.memory, Some("192MiB".parse().unwrap()));
    assert_eq!((summary.kind.as_str(), summary.machine.as_deref()), ("qemu", Some("q35")));
    let disk = &summary.disks[0];
    assert_eq!(disk.source, DiskSource::File("/var/lib/libvirt/images/gfs/web1.img".to_owned()));
    assert_eq!((disk.cache.as_deref(), disk.access), (Some("none"), DiskAccess::Exclusive));
    assert_eq!(summary.interfaces[0].source.as_deref(), Some("br0"));
    assert!(summary.local_devices.is_empty());
}

#[test]
fn what_libvirt_made_of_a_generated_guest_is_read_as_it_was_meant() {
    let live = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/outputs/virsh/debian13-libvirt11.3-domain-live.xml"
    ));
    insta::assert_snapshot!(serde_json::to_string_pretty(&read(live).unwrap()).unwrap());
}

#[test]
fn a_guest_of_an_older_libvirt_is_read_alike() {
    let live = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/outputs/virsh/debian12-libvirt9.0-guest-live.xml"
    ));
    let summary = read(live).unwrap();
    assert_eq!((summary.kind.as_str(), summary.machine.as_deref()), ("qemu", Some("pc-i440fx-7.2")));
    assert_eq!(summary.disks[0].source, DiskSource::File("/var/lib/libvirt/images/web1.img".to_owned()));
    assert_eq!(summary.interfaces[0].source.as_deref(), Some("br0"));
}

#[test]
fn everything_that_ties_a_guest_to_its_host_is_seen() {
    let xml = "<domain type='kvm'><name>x</name><memory unit='GiB'>2</memory>
      <os><type arch='x86_64' machine='pc-q35-9.2'>hvm</type><loader readonly='yes'>/usr/share/OVMF/c.fd</loader></os>
      <cpu mode='host-passthrough' check='none'/>
      <devices>
        <disk type='block' device='disk'><source dev='/dev/sdb'/><target dev='sda'/><shareable/></disk>
        <disk type='file' device='cdrom'><source file='/iso/a.iso'/><target dev='sdb'/><readonly/></disk>
        <disk type='file' device='cdrom'><target dev='sdc'/><readonly/></disk>
        <disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='sdd'/></disk>
        <hostdev mode='subsystem' type='pci'><source/></hostdev>
        <filesystem type='mount'><source dir='/srv'/><target dir='t'/></filesystem>
        <tpm model='tpm-tis'><backend type='passthrough'/></tpm>
        <serial type='file'><source path='/var/log/x.log'/></serial>
        <console type='file'><source path='/var/log/x.log'/></console>
      </devices></domain>";
    let summary = read(xml).unwrap();
    let sources: Vec<_> = summary.disks.iter().map(|disk| disk.source.clone()).collect();
    assert_eq!(
        sources,
        vec![
            DiskSource::Block("/dev/sdb".to_owned()),
            DiskSource::File("/iso/a.iso".to_owned()),
            DiskSource::Empty,
            DiskSource::Volume { pool: "p".to_owned(), volume: "v".to_owned() },
        ]
    );
    let effects: Vec<_> = summary.local_devices.iter().map(|d| (d.what.as_str(), d.effect)).collect();
    assert_eq!(
        effects,
        vec![
            ("pci device of the host", LocalEffect::Blocks),
            ("directory /srv of the host as a file system", LocalEffect::Blocks),
            ("TPM of the host", LocalEffect::Blocks),
            ("serial log /var/log/x.log", LocalEffect::StaysBehind),
        ]
    );
    assert_eq!(summary.boot_files, vec!["/usr/share/OVMF/c.fd"]);
}

#[test]
fn xml_of_another_guest_is_refused_with_both_names() {
    let error =
        check_written(&GuestId::new("web1").unwrap(), "<domain><name>db</name></domain>").unwrap_err();
    assert_eq!(error.to_string(), "cannot read the XML of guest web1: it defines \"db\", not web1");
}

#[test]
fn what_a_host_keeps_of_a_guest_beside_its_disks_is_read() {
    let read = |os: &str, devices: &str| {
        let text = format!(
            "<domain><name>g</name><uuid>11111111-2222-4333-8444-00000000000A</uuid>{os}<devices>{devices}</devices></domain>"
        );
        let state = super::read(&text).unwrap().state;
        state.into_iter().map(|state| (state.kind, state.place)).collect::<Vec<_>>()
    };
    let vars = |place: Option<&str>| vec![(StateKind::FirmwareVariables, place.map(str::to_owned))];
    let tpm = |place: &str| vec![(StateKind::Tpm, Some(place.to_owned()))];
    let table = [
        ("<os><type>hvm</type></os>", "", vec![]),
        ("<os firmware='efi'><type>hvm</type></os>", "", vars(None)),
        ("<os firmware='bios'><type>hvm</type></os>", "", vec![]),
        ("<os firmware='efi'><loader stateless='yes'/></os>", "", vec![]),
        ("<os><loader type='rom'>/x</loader></os>", "", vec![]),
        ("<os><loader type='pflash' readonly='yes'>/x</loader></os>", "", vars(None)),
        ("<os><nvram template='/t'>/a/VARS.fd</nvram></os>", "", vars(Some("/a/VARS.fd"))),
        ("<os><nvram type='file'><source file='/b/VARS.fd'/></nvram></os>", "", vars(Some("/b/VARS.fd"))),
        ("<os><nvram type='block'><source dev='/dev/x'/></nvram></os>", "", vars(None)),
        ("<os firmware='efi'><varstore path='/c.json'/></os>", "", vars(Some("/c.json"))),
        (
            "",
            "<tpm><backend type='emulator'/></tpm>",
            tpm("/var/lib/libvirt/swtpm/11111111-2222-4333-8444-00000000000a"),
        ),
        (
            "",
            "<tpm><backend type='emulator'><source type='dir' path='/s/tpm'/></backend></tpm>",
            tpm("/s/tpm"),
        ),
        ("", "<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>", vec![]),
    ];
    for (os, devices, expected) in table {
        assert_eq!(read(os, devices), expected, "{os}{devices}");
    }
}

#[test]
fn a_uuid_is_added_after_the_name_and_nothing_else_changes() {
    let text = "<?xml version='1.0'?>\n<!-- mine --><domain type='kvm'>\n  <metadata><name>no</name></metadata>\n  <name>a</name>\n  <memory>1</memory></domain>\n";
    let uuid = "4575b92c-84a1-5fa3-b9bf-daff66c1b236";
    let with = with_uuid(text, uuid).unwrap();
    assert_eq!(with, text.replace("<name>a</name>", &format!("<name>a</name>\n  <uuid>{uuid}</uuid>")));
    assert_eq!(with_uuid(&with, "other").unwrap(), with);
    assert_eq!(read(&with).unwrap().uuid.as_deref(), Some(uuid));
    let odd = with.replace(uuid, "4575B92C84A15FA3B9BFDAFF66C1B236");
    assert_eq!(read(&odd).unwrap().uuid.as_deref(), Some(uuid), "libvirt takes it without hyphens");
}
