//! A cluster file of a given size, for the figures of planning.

use std::fmt::Write as _;

/// A file with `servers` storage servers in groups of three, one volume each group, and `hypervisors` hypervisors.
pub fn cluster(servers: usize, hypervisors: usize) -> String {
    let mut out = "version: 1\nname: big\n\nhosts:\n".to_owned();
    for index in 0..servers {
        writeln!(out, "  store{index}: {{ address: 10.1.{}.{} }}", index / 250, index % 250 + 1).unwrap();
    }
    for index in 0..hypervisors {
        let address = format!("10.2.{}.{}", index / 250, index % 250 + 1);
        writeln!(out, "  kvm{index}: {{ address: {address}, hypervisor: true }}").unwrap();
    }
    out.push_str("\nstorage:\n");
    for volume in 0..servers / 3 {
        let bricks: Vec<String> =
            (0..3).map(|brick| format!("store{}:/data/bricks/v{volume}", volume * 3 + brick)).collect();
        writeln!(out, "  v{volume}:\n    gluster:\n      replica: 3\n      bricks: [{}]", bricks.join(", "))
            .unwrap();
    }
    out
}
