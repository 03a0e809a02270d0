use super::*;

fn host(name: &str) -> HostId {
    name.parse().unwrap()
}

fn seen(on: &str, path: &str, text: &str) -> Data {
    let answer = Answer { status: Some(0), stdout: text.to_owned(), stderr: String::new() };
    read(&host(on), path, &[], Some(&answer)).unwrap().unwrap()
}

/// A node as the script prints it.
fn node(numbers: &str, kind: &str, more: &str) -> String {
    let (wwn, serial) = match kind {
        "disk" => ("0x600140596c741bac199507b9a758bcf3", "96c741bac199507b9a758bcf3bcd9fe3"),
        "part" => ("0x600140596c741bac199507b9a758bcf3", ""),
        _ => ("", ""),
    };
    format!("node {numbers}\nTYPE=\"{kind}\" WWN=\"{wwn}\" SERIAL=\"{serial}\"\n{more}")
}

fn device(on: &str, minor: &str, nodes: &[String]) -> Data {
    seen(on, "/dev/x", &format!("real /dev/x\nstat 5 9 8 {minor}\n{}", nodes.concat()))
}

/// The ways to one LUN on two hosts, and parts of it.
#[test]
fn a_lun_is_the_same_by_any_of_its_names_and_two_partitions_are_not() {
    let disk = node("8:16", "disk", "iscsi iqn.2026-01.org.example:san 1\n");
    let part = |number: u8| {
        let own = node(&format!("8:{}", 16 + number), "part", &format!("partition {number}\n"));
        device("kvm2", &format!("{:x}", 16 + number), &[own, disk.clone()])
    };
    let whole = device("kvm1", "10", std::slice::from_ref(&disk));
    let elsewhere = device("kvm2", "20", &[disk.replace("8:16", "8:32")]);
    let map = node("253:3", "mpath", "dm mpath-3600140596c741bac199507b9a758bcf3\n");
    let mapped = seen("kvm2", "/dev/m", &format!("real /dev/dm-3\nstat 5 9 fd 3\n{map}{disk}"));
    let direct = Data::at(address::of_network("iscsi", "iqn.2026-01.org.example:san/1", &[]));
    for other in [&elsewhere, &mapped, &direct, &part(1)] {
        assert!(whole.overlaps(other) && other.overlaps(&whole), "{other:?}");
    }
    assert!(part(1).overlaps(&part(1)) && !part(1).overlaps(&part(2)));
    let map_part = node("253:4", "part", "dm part1-mpath-3600140596c741bac199507b9a758bcf3\n");
    let map_part = seen("kvm3", "/dev/m1", &format!("real /dev/dm-4\nstat 5 9 fd 4\n{map_part}{map}{disk}"));
    assert!(map_part.overlaps(&part(1)) && map_part.overlaps(&whole) && !map_part.overlaps(&part(2)));
    let stranger = disk.replace("96c741bac199507b9a758bcf3bcd9fe3", "another").replace(" 1\n", " 2\n");
    assert!(
        !whole.overlaps(&device("kvm2", "10", &[stranger])),
        "tgt gives the first LUN of every server one WWN"
    );
}

#[test]
fn volumes_of_one_group_are_apart_and_the_same_on_every_host() {
    let disk = node("8:16", "disk", "");
    let volume = |on, uuid: &str| {
        let lvm = node("253:1", "lvm", &format!("dm LVM-group{uuid}\n"));
        seen(on, "/dev/v", &format!("real /dev/dm-1\nstat 5 9 fd 1\n{lvm}{disk}"))
    };
    assert!(volume("kvm1", "a").overlaps(&volume("kvm2", "a")));
    assert!(!volume("kvm1", "a").overlaps(&volume("kvm2", "b")));
    assert!(volume("kvm1", "a").overlaps(&device("kvm2", "10", &[disk])), "the group's disk is used, too");
}

#[test]
fn a_local_disk_without_a_name_is_its_hosts_own() {
    let disk = "node 252:0\nTYPE=\"disk\" WWN=\"\" SERIAL=\"\"\n".to_owned();
    let vda = |on| seen(on, "/dev/vda", &format!("real /dev/vda\nstat 5 9 fc 0\n{disk}"));
    assert!(vda("kvm1").overlaps(&vda("kvm1")) && !vda("kvm1").overlaps(&vda("kvm2")));
}

const MOUNTS: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:40 / /var/lib/libvirt/images/gfs rw - fuse.glusterfs 10.0.0.1:/gfs rw
3 1 0:41 / /srv/other rw - fuse.glusterfs 10.0.0.2:/gfs rw
4 1 0:42 /sub /bound rw - fuse.glusterfs 10.0.0.2:/gfs rw
";

fn file(on: &str, path: &str, real: &str, device: u32, inode: u64) -> Data {
    let text = format!("real {real}\nstat {device} {inode} 0 0\n");
    let answer = Answer { status: Some(0), stdout: text, stderr: String::new() };
    read(&host(on), path, &crate::storage::mount_probe::mount_table::parse(MOUNTS), Some(&answer))
        .unwrap()
        .unwrap()
}

#[test]
fn a_file_is_the_same_through_links_other_mounts_and_urls() {
    let image =
        file("kvm1", "/var/lib/libvirt/images/gfs/web1.img", "/var/lib/libvirt/images/gfs/web1.img", 40, 7);
    let linked = file("kvm2", "/srv/link.img", "/srv/other/web1.img", 41, 7);
    let hard = file("kvm2", "/srv/other/second-name.img", "/srv/other/second-name.img", 41, 7);
    let url = Data::at(address::of_network("gluster", "gfs/web1.img", &["10.0.0.3".to_owned()]));
    for other in [&linked, &hard, &url] {
        assert!(image.overlaps(other), "{other:?}");
    }
    let bound = file("kvm2", "/bound/w.img", "/bound/w.img", 42, 9);
    assert!(bound.overlaps(&Data::at(address::of_network("gluster", "gfs/sub/w.img", &[]))));
    let local = |on| file(on, "/srv/a.img", "/srv/a.img", 2049, 7);
    assert!(local("kvm1").overlaps(&local("kvm1")) && !local("kvm1").overlaps(&local("kvm2")));
    assert!(!local("kvm1").overlaps(&image));
    let loop0 = "real /dev/loop0\nstat 5 9 7 0\nnode 7:0\nTYPE=\"loop\" WWN=\"\" SERIAL=\"\"\nloop /srv/other/web1.img\nbehind 41 7\n";
    let answer = Answer { status: Some(0), stdout: loop0.to_owned(), stderr: String::new() };
    let mounts = crate::storage::mount_probe::mount_table::parse(MOUNTS);
    let device = read(&host("kvm2"), "/dev/loop0", &mounts, Some(&answer)).unwrap().unwrap();
    assert!(device.overlaps(&image));
}

#[test]
fn what_cannot_be_looked_at_is_unknown_unless_its_mount_tells_where_it_is() {
    let mounts = crate::storage::mount_probe::mount_table::parse(MOUNTS);
    let hung = Answer { status: None, stdout: String::new(), stderr: String::new() };
    let path = "/var/lib/libvirt/images/gfs/web1.img";
    assert!(read(&host("kvm1"), path, &mounts, Some(&hung)).unwrap().is_some());
    assert!(read(&host("kvm1"), "/srv/a.img", &mounts, Some(&hung)).is_err());
    let denied =
        Answer { status: Some(1), stdout: String::new(), stderr: "stat: Input/output error".to_owned() };
    assert!(read(&host("kvm1"), path, &mounts, Some(&denied)).unwrap_err().contains("Input/output error"));
    let absent = Answer { status: Some(0), stdout: "absent\n".to_owned(), stderr: String::new() };
    assert_eq!(read(&host("kvm1"), path, &mounts, Some(&absent)), Ok(None));
}
