//! A good log, and each way to spoil it.

use std::time::Duration;

use super::{Fault, Heartbeat, SECTOR, check};

/// Writes beats as `guest/init.c` does.
struct Writer {
    disk: Vec<u8>,
    number: u64,
    previous: u32,
    milliseconds: u64,
    boot: &'static str,
}

impl Writer {
    fn new() -> Self {
        Self { disk: vec![0; SECTOR], number: 0, previous: 0, milliseconds: 1_250, boot: "0badcafe" }
    }

    fn sector(&mut self) -> Vec<u8> {
        let (s, ms) = (self.milliseconds / 1000, self.milliseconds % 1000);
        let line = format!(
            "HB {} boot={} mono={s}.{ms:03} rt={}.{ms:03} prev={:08x}",
            self.number,
            self.boot,
            1_700_000_000 + s,
            self.previous
        );
        self.previous = crc32fast::hash(line.as_bytes());
        self.number += 1;
        self.milliseconds += 100;
        let mut sector = format!("{line} crc={:08x}\n", self.previous).into_bytes();
        sector.resize(SECTOR - 1, b'.');
        sector.push(b'\n');
        sector
    }

    fn beats(mut self, count: usize) -> Self {
        for _ in 0..count {
            let sector = self.sector();
            self.disk.extend(sector);
        }
        self
    }

    fn put(&mut self, at: usize, sector: &[u8]) {
        self.disk[at * SECTOR..(at + 1) * SECTOR].copy_from_slice(sector);
    }

    fn report(&self) -> Heartbeat {
        let mut disk = self.disk.clone();
        disk.resize(disk.len() + 20 * SECTOR, 0);
        check(disk.as_slice()).unwrap()
    }
}

#[test]
fn undisturbed_log_is_intact() {
    let report = Writer::new().beats(5_000).report();
    assert!(report.is_intact(), "{report:?}");
    assert_eq!((report.beats, report.first, report.last), (5_000, Some(0), Some(4_999)));
    assert_eq!(report.boots.len(), 1);
    assert_eq!(report.longest_gap, Duration::from_millis(100));
    assert_eq!(report.longest_gap_realtime, Duration::from_millis(100));
}

#[test]
fn pause_shows_as_longest_gap_and_is_no_fault() {
    let mut writer = Writer::new().beats(10);
    writer.milliseconds += 1_400;
    let report = writer.beats(10).report();
    assert!(report.is_intact());
    assert_eq!(report.longest_gap, Duration::from_millis(1_500));
}

#[test]
fn second_boot_continues_the_chain() {
    let mut writer = Writer::new().beats(10);
    (writer.boot, writer.milliseconds) = ("11111111", 900);
    let report = writer.beats(3).report();
    assert!(report.is_intact(), "{report:?}");
    assert_eq!(report.boots.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0badcafe", "11111111"]);
    assert_eq!(report.longest_gap, Duration::from_millis(100), "the time between two boots is no gap");
}

#[test]
fn empty_disk_is_not_intact() {
    let report = Writer::new().report();
    assert!(!report.is_intact());
    assert_eq!((report.beats, report.fault_count), (0, 0));
}

#[test]
fn lost_beat_is_a_sequence_and_a_chain_fault() {
    let mut writer = Writer::new().beats(4);
    let _lost = writer.sector();
    let report = writer.beats(4).report();
    assert_eq!(
        report.faults,
        [Fault::Sequence { sector: 5, expected: 4, found: 5 }, Fault::Chain { number: 5 }]
    );
}

#[test]
fn lost_first_beat_is_found() {
    let mut writer = Writer::new();
    let _lost = writer.sector();
    let report = writer.beats(4).report();
    assert_eq!(
        report.faults,
        [Fault::Sequence { sector: 1, expected: 0, found: 1 }, Fault::Chain { number: 1 }]
    );
}

#[test]
fn doubled_beat_is_a_sequence_fault() {
    let mut writer = Writer::new().beats(3);
    let doubled = writer.disk[3 * SECTOR..].to_vec();
    writer.disk.extend(doubled);
    let report = writer.beats(2).report();
    assert_eq!(report.faults[0], Fault::Sequence { sector: 4, expected: 3, found: 2 });
    assert!(!report.is_intact());
}

#[test]
fn second_writer_of_the_same_numbers_breaks_the_chain() {
    let mut writer = Writer::new().beats(10);
    let mut other = Writer { milliseconds: 1_255, ..Writer::new() }.beats(10);
    other.number = 4;
    for at in [5, 7] {
        let theirs = other.disk[at * SECTOR..(at + 1) * SECTOR].to_vec();
        writer.put(at, &theirs);
    }
    let report = writer.report();
    assert_eq!(report.faults, [4, 5, 6, 7].map(|number| Fault::Chain { number }));
}

#[test]
fn wrong_checksum_is_damage() {
    let mut writer = Writer::new().beats(6);
    writer.disk[3 * SECTOR + 4] ^= 1;
    assert_eq!(writer.report().faults, [Fault::Damaged { sector: 3 }]);
}

#[test]
fn damaged_filling_is_damage() {
    let mut writer = Writer::new().beats(6);
    writer.disk[4 * SECTOR - 9] = b'x';
    assert_eq!(writer.report().faults, [Fault::Damaged { sector: 3 }]);
}

#[test]
fn damaged_last_byte_is_damage() {
    let mut writer = Writer::new().beats(6);
    writer.disk[4 * SECTOR - 1] = b'.';
    assert_eq!(writer.report().faults, [Fault::Damaged { sector: 3 }]);
}

#[test]
fn altered_predecessor_breaks_the_chain() {
    let mut writer = Writer::new().beats(3);
    writer.previous ^= 1;
    assert_eq!(writer.beats(3).report().faults, [Fault::Chain { number: 3 }]);
}

#[test]
fn hole_in_the_log_leaves_strays() {
    let mut writer = Writer::new().beats(6);
    writer.put(4, &[0; SECTOR]);
    assert_eq!(writer.report().faults, [Fault::Stray { sector: 5 }, Fault::Stray { sector: 6 }]);
}

#[test]
fn many_faults_are_counted_and_few_are_named() {
    let mut writer = Writer::new().beats(100);
    for sector in 1..=100 {
        writer.disk[sector * SECTOR + 4] = b'?';
    }
    let report = writer.report();
    assert_eq!((report.fault_count, report.faults.len()), (100, 32));
}

#[test]
fn input_cut_within_a_sector_is_read_up_to_it() {
    let mut writer = Writer::new().beats(4);
    writer.disk.truncate(4 * SECTOR + 100);
    let report = check(writer.disk.as_slice()).unwrap();
    assert_eq!((report.beats, report.fault_count), (3, 0));
}
