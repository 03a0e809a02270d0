//! Proves a heartbeat from the disk that the lab's guest wrote: no beat lost, doubled, damaged, or written by a second guest.
//!
//! Pure: reads a byte stream, decides, reports. The format stands at the top of `guest/init.c`.
//! Where the bytes come from (a file, `ssh HOST head -c 16M IMAGE`) is the caller's business.

use std::{fmt, io, time::Duration};

/// The size of a sector in bytes; each beat fills one.
pub const SECTOR: usize = 512;

/// How many faults a report names; the rest is only counted.
const NAMED_FAULTS: usize = 32;

/// What a disk tells about the guest that wrote it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Heartbeat {
    /// Beats that were read, damaged ones not included.
    pub beats: u64,
    /// Boot ids in the order in which they first wrote; a migration does not change it, a start of the guest does.
    pub boots: Vec<BootId>,
    /// The first beat's number, if there is a beat.
    pub first: Option<u64>,
    /// The last beat's number, if there is a beat.
    pub last: Option<u64>,
    /// The longest time between two beats of one boot by the guest's monotonic clock.
    pub longest_gap: Duration,
    /// The longest time between two beats of one boot by the guest's clock of the day.
    pub longest_gap_realtime: Duration,
    /// The first faults, in the order of the disk.
    pub faults: Vec<Fault>,
    /// How many faults there are, the unnamed ones included.
    pub fault_count: u64,
}

impl Heartbeat {
    /// Says whether beats were read and all of them are proved.
    pub fn is_intact(&self) -> bool {
        self.beats > 0 && self.fault_count == 0
    }
}

impl fmt::Display for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} beats, {} boots, longest gap {:.3} s, {} faults",
            self.beats,
            self.boots.len(),
            self.longest_gap.as_secs_f64(),
            self.fault_count
        )
    }
}

/// The first eight digits of the boot id of the guest's kernel.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct BootId(String);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One way in which a heartbeat is not what one undisturbed guest writes. `sector` counts sectors of 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// The sector begins like a beat but is not one, or its checksum is wrong.
    #[error("sector {sector} is damaged")]
    Damaged {
        /// Where.
        sector: u64,
    },
    /// The number is not the one after the beat before: beats are missing, doubled or of another writer.
    #[error("sector {sector} holds beat {found} where {expected} must be")]
    Sequence {
        /// Where.
        sector: u64,
        /// The number that must be here.
        expected: u64,
        /// The number that is here.
        found: u64,
    },
    /// The beat does not continue the one before: somebody else wrote one of the two.
    #[error("beat {number} does not continue the beat before it")]
    Chain {
        /// The beat that names another predecessor.
        number: u64,
    },
    /// A beat stands after the end of the log: beats before it are missing.
    #[error("sector {sector} holds a beat after the end of the log")]
    Stray {
        /// Where.
        sector: u64,
    },
}

/// Reads a heartbeat disk from its beginning to the end of `disk` and reports what it proves.
///
/// A part of a disk (say the first 16 MiB) is a valid input: the report then speaks of that part only.
///
/// # Errors
/// When `disk` cannot be read. Everything that can be wrong with the content is a [`Fault`].
pub fn check(mut disk: impl io::Read) -> io::Result<Heartbeat> {
    let mut log = Log::default();
    let mut buffer = vec![0; 2048 * SECTOR];
    loop {
        let filled = fill(&mut disk, &mut buffer)?;
        for sector in buffer[..filled].chunks_exact(SECTOR) {
            log.take(sector);
        }
        if filled < buffer.len() {
            return Ok(log.report);
        }
    }
}

fn fill(from: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The state of the reader between two sectors.
#[derive(Default)]
struct Log {
    report: Heartbeat,
    sector: u64,
    ended: bool,
    previous: Option<Beat>,
    /// The sector before was damaged: what it held is unknown, so neither number nor chain can be compared.
    after_damage: bool,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            beats: 0,
            boots: Vec::new(),
            first: None,
            last: None,
            longest_gap: Duration::ZERO,
            longest_gap_realtime: Duration::ZERO,
            faults: Vec::new(),
            fault_count: 0,
        }
    }
}

impl Log {
    fn take(&mut self, sector: &[u8]) {
        let here = self.sector;
        self.sector += 1;
        if here == 0 {
            return; // sector 0 is not the guest's
        }
        let looks_like_a_beat = sector.starts_with(b"HB ");
        if self.ended {
            if looks_like_a_beat {
                self.fault(Fault::Stray { sector: here });
            }
            return;
        }
        match Beat::parse(sector) {
            Some(beat) => self.beat(here, beat),
            None if looks_like_a_beat => {
                self.fault(Fault::Damaged { sector: here });
                self.after_damage = true;
            }
            None => self.ended = true,
        }
    }

    fn beat(&mut self, sector: u64, beat: Beat) {
        let (expected, chain) = match &self.previous {
            _ if self.after_damage => (sector - 1, beat.previous),
            Some(before) => (before.number + 1, before.crc),
            None => (0, 0),
        };
        if beat.number != expected {
            self.fault(Fault::Sequence { sector, expected, found: beat.number });
        }
        if beat.previous != chain {
            self.fault(Fault::Chain { number: beat.number });
        }
        if let Some(before) = self.previous.as_ref().filter(|before| before.boot == beat.boot) {
            let longest = &mut self.report.longest_gap;
            *longest = (*longest).max(beat.monotonic.saturating_sub(before.monotonic));
            let longest = &mut self.report.longest_gap_realtime;
            *longest = (*longest).max(beat.realtime.saturating_sub(before.realtime));
        }
        if !self.report.boots.contains(&beat.boot) {
            self.report.boots.push(beat.boot.clone());
        }
        self.report.beats += 1;
        self.report.first.get_or_insert(beat.number);
        self.report.last = Some(beat.number);
        self.previous = Some(beat);
        self.after_damage = false;
    }

    fn fault(&mut self, fault: Fault) {
        self.report.fault_count += 1;
        if self.report.faults.len() < NAMED_FAULTS {
            self.report.faults.push(fault);
        }
    }
}

/// One beat, read and its checksum found right.
struct Beat {
    number: u64,
    boot: BootId,
    monotonic: Duration,
    realtime: Duration,
    previous: u32,
    crc: u32,
}

impl Beat {
    fn parse(sector: &[u8]) -> Option<Self> {
        let end = sector.iter().position(|byte| *byte == b'\n')?;
        let (filling, last) = sector[end + 1..].split_at_checked(SECTOR.checked_sub(end + 2)?)?;
        if last != b"\n" || filling.iter().any(|byte| *byte != b'.') {
            return None;
        }
        let line = std::str::from_utf8(&sector[..end]).ok()?;
        let (summed, crc) = line.rsplit_once(" crc=")?;
        let crc = hex(crc)?;
        if crc32fast::hash(summed.as_bytes()) != crc {
            return None;
        }
        let mut words = summed.strip_prefix("HB ")?.split(' ');
        let number = words.next()?.parse().ok()?;
        let boot = BootId(words.next()?.strip_prefix("boot=")?.to_owned());
        let monotonic = seconds(words.next()?.strip_prefix("mono=")?)?;
        let realtime = seconds(words.next()?.strip_prefix("rt=")?)?;
        let previous = hex(words.next()?.strip_prefix("prev=")?)?;
        words.next().is_none().then_some(Self { number, boot, monotonic, realtime, previous, crc })
    }
}

fn hex(text: &str) -> Option<u32> {
    (text.len() == 8).then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// Reads `SECONDS.mmm`.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, milli) = text.split_once('.')?;
    let milli = (milli.len() == 3).then(|| milli.parse().ok()).flatten()?;
    Some(Duration::from_secs(whole.parse().ok()?) + Duration::from_millis(milli))
}

#[cfg(test)]
mod tests;
