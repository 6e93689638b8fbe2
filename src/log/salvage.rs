//! Reads a data file that is damaged, and hands out whatever in it can still be proved sound.
//!
//! The scanner stops at the first byte that is not what was written, because recovery must not guess.
//! Verify and repair have to go on: a flipped bit in one value says nothing about its neighbours.
//!
//! ```text
//! group verifies whole                 its records are sound
//! it does not                          each record behind its header by its own two checksums
//! nothing verifies                     search, at multiples of 8, for a group or record that does
//! ```
//!
//! Every checksum that decides is seeded with the file's identity, so bytes of another file, and
//! bytes that only look like a record, pass once in 2³² (a header) or 2⁶⁴ (a record). A copy of a record
//! never passes, because its header's checksum says where it belongs. A copy of a group's header does: a value
//! may hold earlier bytes of the very file it is in, and a device may have written one sector twice. A group
//! that was found by searching therefore counts only if its number is larger than the last one's.
//!
//! ## Invariants
//! - **SV1** A record is visited only if its header and its body verify, so nothing is visited that was
//!   not written to this place of this file, and each record once.
//! - **SV2** Every byte between the start of the file and its end is in a sound structure, in exactly one
//!   range of damage, or behind the end of the log.
//! - **SV3** Lengths are used only after the checksum over them holds, and memory is taken only for
//!   lengths that the file really has (L1).

use std::cell::RefCell;
use std::io;
use std::ops::ControlFlow;

use super::format::FormatError;
use super::format::data_header::{DATA_HEADER_LEN, DataHeader, ExpectedFile, FileIdentity, Place};
use super::format::group::{Chain, GROUP_HEADER_LEN, GroupHeader, GroupKind};
use super::format::record::{
    RECORD_HEADER_LEN_MAX, Record, RecordHeader, body_crc, decode_record, split_body,
};
use super::scanner::{
    HeaderFault, Opening, ReadAt, RecordAt, Window, Witness, read_opening, search_rest,
    verify_payload,
};
use crate::types::KeyspaceId;

/// Structures start at multiples of it (L2).
const STEP: u64 = 8;

/// How much of a file has to be there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Bytes below it were durable; from there on the log ends at the first group that is not whole.
    pub(crate) durable: u64,
    /// Length that `FILES` has for a sealed file; `None` for one whose end only the file can tell.
    pub(crate) listed_len: Option<u64>,
}

impl Extent {
    /// A file of which nobody says where it ends: whatever verifies counts.
    pub(crate) const UNKNOWN: Extent = Extent { durable: u64::MAX, listed_len: None };

    pub(crate) fn sealed(listed_len: u64) -> Extent {
        Extent { durable: u64::MAX, listed_len: Some(listed_len) }
    }

    pub(crate) fn tail(durable: u64) -> Extent {
        Extent { durable, listed_len: None }
    }
}

/// What a walk meets, in order of offset.
pub(crate) enum Piece<'a> {
    /// A group whose header verified, or the closing mark; its records follow.
    #[cfg_attr(
        not(any(feature = "cli", feature = "sim")),
        expect(dead_code, reason = "only the command prints groups")
    )]
    Group {
        offset: u64,
        header: &'a GroupHeader,
        header_crc: u32,
    },
    Record(RecordAt<'a>),
    Damage(&'a Damage),
}

/// Bytes that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) offset: u64,
    /// Zero where something is missing rather than changed.
    pub(crate) len: u64,
    pub(crate) why: FormatError,
    /// The record of which these are the bytes, if its header verified and its body did not.
    pub(crate) record: Option<DamagedRecord>,
}

/// What is known of a record whose body is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DamagedRecord {
    pub(crate) keyspace: KeyspaceId,
    /// What stands where the key does, unless it is encrypted. One checksum covers key and value, so which of
    /// the two was hit cannot be told.
    pub(crate) key_probably: Option<Vec<u8>>,
}

/// What a walk found, all in all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Salvage {
    /// `None` if it is damaged, or of another file.
    pub(crate) header: Option<DataHeader>,
    pub(crate) records: u64,
    pub(crate) damage_count: u64,
    pub(crate) durable_through_max: u64,
    /// Where the log ends.
    pub(crate) end: u64,
    /// Bytes behind the end that are not zero: written, and not durable when the store was killed.
    pub(crate) torn_bytes: u64,
    /// What a newer build wrote, which this one must not call damage.
    pub(crate) newer: Option<FormatError>,
    pub(crate) is_closed: bool,
}

/// Walks the file front to back and goes on behind damage; stops early when `visit` breaks.
///
/// An `Err` is a failed read, see [`Patient`] for a reader that has none.
pub(crate) fn salvage(
    reader: &dyn ReadAt,
    file_len: u64,
    expected: &ExpectedFile,
    extent: Extent,
    visit: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
) -> io::Result<Salvage> {
    let mut walk = Walk {
        identity: expected.identity(),
        file_len,
        extent,
        visit,
        found: Salvage::default(),
        open_id: None,
        number: 0,
        previous: None,
        pending: None,
        is_stopped: false,
    };
    let mut window = Window::new(reader, file_len);
    let header_len = DATA_HEADER_LEN as u64;
    match read_opening(reader, file_len, expected)? {
        Opening::Sound { header, crc } => {
            walk.found.header = Some(header);
            walk.open_id = Some(header.open_id);
            walk.previous = Some(crc);
        }
        Opening::Faulty(HeaderFault::Newer(why)) => {
            walk.found.newer = Some(why);
            return Ok(walk.found);
        }
        Opening::Faulty(HeaderFault::Unfinished) => {
            let why = FormatError::invalid("the file header is missing");
            walk.lose(0, header_len.min(file_len), why);
        }
        Opening::Faulty(HeaderFault::Damaged(why) | HeaderFault::Foreign(why)) => {
            walk.lose(0, header_len.min(file_len), why);
        }
    }
    let end = walk.groups(&mut window, header_len.min(file_len))?;
    walk.finish(reader, end)
}

struct Walk<'v> {
    identity: FileIdentity,
    file_len: u64,
    extent: Extent,
    visit: &'v mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    found: Salvage,
    /// Of the file's header, or else of its first group.
    open_id: Option<u64>,
    /// Of the last group whose header verified.
    number: u64,
    /// Checksum of the header before this place; `None` behind damage to a group's header.
    previous: Option<u32>,
    /// A range of damage whose end is not known yet.
    pending: Option<Damage>,
    is_stopped: bool,
}

/// A group's header that may be where it was found.
struct Candidate {
    header: GroupHeader,
    header_crc: u32,
    /// Follows the group before it, as far as that is known.
    is_chained: bool,
}

/// What bytes are, taken for a record.
enum Judged<'a> {
    /// Both checksums hold. The padding may still be damaged: then `padding` says why.
    Sound {
        record: Record<'a>,
        padding: Option<FormatError>,
    },
    Body {
        header: RecordHeader,
        key: &'a [u8],
        why: FormatError,
    },
    Not,
}

impl Walk<'_> {
    /// From group to group; returns where the log ends.
    fn groups(&mut self, window: &mut Window<'_>, start: u64) -> io::Result<u64> {
        let mut offset = start;
        // Whether this is where a record has to be.
        let mut is_behind_record = false;
        while offset < self.file_len && !self.found.is_closed && !self.is_stopped {
            let why_no_group = match self.candidate(window, offset)? {
                Ok(candidate) if self.is_misplaced_mark(window, offset, &candidate)? => {
                    FormatError::Unchained("it is a closing mark, and the log goes on behind it")
                }
                Ok(candidate) => match self.group(window, offset, &candidate)? {
                    Some(next) => {
                        // Behind a whole group is another group, behind the header of any other a record.
                        let is_whole = next > offset + GROUP_HEADER_LEN as u64;
                        is_behind_record = !is_whole && candidate.header.payload_len > 0;
                        offset = next;
                        continue;
                    }
                    None => return Ok(offset),
                },
                Err(FormatError::Incomplete { .. }) => FormatError::invalid(GROUP_ENDS),
                Err(why) => why,
            };
            if offset >= self.extent.durable {
                return Ok(offset);
            }
            self.previous = None;
            if let Some(end) = self.lone_record(window, offset, is_behind_record)? {
                offset = end;
                is_behind_record = true;
                continue;
            }
            let bytes = window.bytes(offset, RECORD_HEADER_LEN_MAX)?;
            let why_no_record = match RecordHeader::decode(bytes, self.identity.at(offset)) {
                // What it says about its length is as damaged as the rest of it.
                Err(FormatError::Incomplete { .. }) => {
                    Some(FormatError::invalid("the record header is damaged"))
                }
                decoded => decoded.err(),
            };
            if let Some(why) = &why_no_record {
                self.note_newer(why);
            }
            let next = self.search(window, offset + STEP, self.file_len)?;
            if next == self.file_len && self.extent.listed_len.is_none() {
                return Ok(offset);
            }
            let why = why_no_record.filter(|_| is_behind_record).unwrap_or(why_no_group);
            self.lose(offset, next - offset, why);
            is_behind_record = false;
            offset = next;
        }
        Ok(offset)
    }

    /// The group header at `offset`, if it may be there.
    fn candidate(
        &self,
        window: &mut Window<'_>,
        offset: u64,
    ) -> io::Result<Result<Candidate, FormatError>> {
        let bytes = window.bytes(offset, GROUP_HEADER_LEN)?;
        Ok(GroupHeader::decode(bytes, self.identity).and_then(|(header, header_crc)| {
            let open_id = self.open_id.unwrap_or(header.open_id);
            let chain = |number, previous| Chain { open_id, number, previous };
            let is_chained = match self.previous {
                Some(previous) => chain(self.number + 1, previous).admit(&header, offset),
                None => Ok(()),
            }
            .is_ok();
            // What is left of the chain's rules when the group before is unknown.
            let number = header.number.max(self.number.saturating_add(1));
            chain(number, header.previous).admit(&header, offset)?;
            Ok(Candidate { header, header_crc, is_chained })
        }))
    }

    /// Whether a closing mark is not the file's end, because something else follows it: taken for the end,
    /// one misplaced sector would cost every record behind it.
    fn is_misplaced_mark(
        &self,
        window: &mut Window<'_>,
        offset: u64,
        candidate: &Candidate,
    ) -> io::Result<bool> {
        let is_certain = candidate.is_chained && self.previous.is_some();
        if candidate.header.kind != GroupKind::ClosingMark || is_certain {
            return Ok(false);
        }
        let behind = offset + GROUP_HEADER_LEN as u64;
        Ok(self.search(window, behind, self.file_len)? < self.file_len)
    }

    /// Takes a group and returns where to go on: behind it, or, if it does not verify as a whole, at its
    /// records, which then stand for themselves. `None` if the log ends in front of it.
    fn group(
        &mut self,
        window: &mut Window<'_>,
        offset: u64,
        candidate: &Candidate,
    ) -> io::Result<Option<u64>> {
        let Candidate { header, header_crc, is_chained } = candidate;
        let start = offset + GROUP_HEADER_LEN as u64;
        // The file's length decides before the buffer grows (SV3).
        let payload = window.bytes(start, header.payload_len as usize)?;
        let is_complete = payload.len() == header.payload_len as usize;
        let verified = if is_complete {
            verify_payload(header, payload, self.identity.at(start))
        } else {
            Err(FormatError::invalid(GROUP_ENDS))
        };
        if offset >= self.extent.durable && (verified.is_err() || !is_chained) {
            if let Err(why) = &verified {
                self.note_newer(why);
            }
            return Ok(None);
        }
        if !is_chained {
            // Whatever was between the two is gone without leaving bytes that could be pointed at.
            self.lose(offset, 0, FormatError::Unchained("groups before it are missing"));
        }
        self.open_id = Some(header.open_id);
        self.number = header.number;
        self.previous = Some(*header_crc);
        let claim = header.durable_through;
        self.found.durable_through_max = self.found.durable_through_max.max(claim);
        self.show(Piece::Group { offset, header, header_crc: *header_crc });
        match verified {
            Ok(records) => {
                let mut at = start;
                for record in &records {
                    self.record(at, record);
                    at += u64::from(record.header.record_len());
                }
            }
            Err(why) => {
                self.note_newer(&why);
                return Ok(Some(start));
            }
        }
        self.found.is_closed = header.kind == GroupKind::ClosingMark;
        Ok(Some(start + u64::from(header.payload_len)))
    }

    /// A record of a group that is not whole; returns where it ends.
    fn lone_record(
        &mut self,
        window: &mut Window<'_>,
        offset: u64,
        is_behind_record: bool,
    ) -> io::Result<Option<u64>> {
        let Some(bytes) = record_bytes(window, self.identity.at(offset))? else { return Ok(None) };
        match judge_record(bytes, self.identity.at(offset)) {
            Judged::Sound { record, padding } => {
                Ok(Some(offset + u64::from(self.sound(offset, &record, padding))))
            }
            Judged::Body { header, key, why } if is_behind_record => {
                let len = u64::from(header.record_len());
                let key = key.to_vec();
                // Unless something else begins inside of it: the header may have been misplaced.
                let next = self.search(window, offset + STEP, offset + len)?;
                self.damaged_record(offset, next - offset, &header, &key, why);
                Ok(Some(next))
            }
            _ => Ok(None),
        }
    }

    /// The next offset at which a group or a record verifies, or `end`.
    fn search(&self, window: &mut Window<'_>, from: u64, end: u64) -> io::Result<u64> {
        let mut offset = from;
        while offset < end {
            let bytes = window.bytes(offset, RECORD_HEADER_LEN_MAX)?;
            let Some(word) = bytes.first_chunk() else { break };
            // Zeros are what a lost sector reads as, so this is the loop's usual way round.
            if *word != [0; 8] {
                if GroupHeader::may_start_with(*word) {
                    if self.candidate(window, offset)?.is_ok() {
                        return Ok(offset);
                    }
                } else if RecordHeader::may_start_with(bytes)
                    && let Some(bytes) = record_bytes(window, self.identity.at(offset))?
                    && matches!(judge_record(bytes, self.identity.at(offset)), Judged::Sound { .. })
                {
                    return Ok(offset);
                }
            }
            offset += STEP;
        }
        Ok(end)
    }

    /// Visits a record both of whose checksums hold; returns its length.
    fn sound(&mut self, offset: u64, record: &Record<'_>, padding: Option<FormatError>) -> u32 {
        self.record(offset, record);
        let len = record.header.record_len();
        if let Some(why) = padding {
            let used = record.header.header_len() + record.key.len() + record.value.len();
            self.flush();
            self.lose(offset + used as u64, u64::from(len) - used as u64, why);
            self.flush();
        }
        len
    }

    fn record(&mut self, offset: u64, record: &Record<'_>) {
        self.found.records += 1;
        let Record { header, key, value, .. } = record;
        self.show(Piece::Record(RecordAt { offset, len: header.record_len(), header, key, value }));
    }

    fn damaged_record(
        &mut self,
        offset: u64,
        len: u64,
        header: &RecordHeader,
        key: &[u8],
        why: FormatError,
    ) {
        self.flush();
        let key_probably = (!header.is_sealed()).then(|| key.to_vec());
        let record = DamagedRecord { keyspace: header.keyspace, key_probably };
        self.pending = Some(Damage { offset, len, why, record: Some(record) });
        self.found.damage_count += 1;
        self.flush();
    }

    /// Notes that `len` bytes at `offset` are damaged; ranges that touch are one.
    fn lose(&mut self, offset: u64, len: u64, why: FormatError) {
        match &mut self.pending {
            Some(damage) if damage.offset + damage.len == offset => damage.len += len,
            _ => {
                self.flush();
                self.found.damage_count += 1;
                self.pending = Some(Damage { offset, len, why, record: None });
            }
        }
    }

    fn flush(&mut self) {
        if let Some(damage) = self.pending.take() {
            self.visit_unless_stopped(Piece::Damage(&damage));
        }
    }

    fn show(&mut self, piece: Piece<'_>) {
        self.flush();
        self.visit_unless_stopped(piece);
    }

    fn visit_unless_stopped(&mut self, piece: Piece<'_>) {
        if !self.is_stopped {
            self.is_stopped = (self.visit)(piece).is_break();
        }
    }

    fn note_newer(&mut self, why: &FormatError) {
        if why.is_newer() {
            self.found.newer.get_or_insert_with(|| why.clone());
        }
    }

    /// Judges what is behind the last structure.
    fn finish(mut self, reader: &dyn ReadAt, end: u64) -> io::Result<Salvage> {
        self.found.end = end;
        match self.extent.listed_len {
            Some(listed_len) if self.found.is_closed => {
                if end < self.file_len {
                    let why = FormatError::invalid("there are bytes behind the closing mark");
                    self.lose(end, self.file_len - end, why);
                } else if self.file_len < listed_len {
                    let why = FormatError::invalid("the file is shorter than it is listed");
                    self.lose(end, listed_len - end, why);
                }
            }
            Some(listed_len) if end < listed_len => {
                self.lose(end, listed_len - end, FormatError::invalid(FILE_ENDS));
            }
            Some(_) => {
                if self.found.damage_count == 0 {
                    self.lose(end, 0, FormatError::invalid("the closing mark is missing"));
                }
            }
            None if self.found.is_closed || self.is_stopped => {}
            None => {
                let nothing = Witness { open_id: 0, number_min: u64::MAX, durable_above: u64::MAX };
                let rest = search_rest(reader, self.file_len, self.identity, end, nothing)?;
                self.found.torn_bytes = rest.zeros_from.saturating_sub(end);
            }
        }
        self.flush();
        Ok(self.found)
    }
}

const GROUP_ENDS: &str = "the file ends inside of a commit group";

const FILE_ENDS: &str = "the file ends before what is listed of it";

/// All bytes of the record at `place`, if its header verifies and the file has them.
fn record_bytes<'w>(window: &'w mut Window<'_>, place: Place) -> io::Result<Option<&'w [u8]>> {
    let bytes = window.bytes(place.offset, RECORD_HEADER_LEN_MAX)?;
    let Ok((header, _)) = RecordHeader::decode(bytes, place) else { return Ok(None) };
    let len = header.record_len() as usize;
    let bytes = window.bytes(place.offset, len)?;
    Ok((bytes.len() == len).then_some(bytes))
}

fn judge_record(bytes: &[u8], place: Place) -> Judged<'_> {
    let why = match decode_record(bytes, place) {
        Ok(record) => return Judged::Sound { record, padding: None },
        Err(why) => why,
    };
    let Ok((header, header_crc)) = RecordHeader::decode(bytes, place) else {
        return Judged::Not;
    };
    match split_body(bytes, &header) {
        None => Judged::Not,
        Some((key, value, _)) if body_crc(key, value) == header.body_crc => {
            let record = Record { header, header_crc, key, value };
            Judged::Sound { record, padding: Some(why) }
        }
        Some((key, ..)) => Judged::Body { header, key, why },
    }
}

/// Whether the device or the file system says that the bytes are gone, rather than that it has no time, no
/// memory or no permission for them now.
pub(crate) fn is_loss(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| {
        [
            Errno::IO,
            // Medium errors, protection errors, and checksums of file systems.
            Errno::NODATA,
            Errno::ILSEQ,
            Errno::BADMSG,
            Errno::UCLEAN,
            Errno::REMOTEIO,
        ]
        .contains(&errno)
    })
}

/// Reads a file on a failing disk: blocks that are lost are zeros, other errors stay errors.
///
/// Also tells how many bytes were asked for, for whoever shows progress.
pub(crate) struct Patient<'r> {
    reader: &'r dyn ReadAt,
    file_len: u64,
    progress: &'r dyn Fn(u64),
    error: RefCell<Option<(u64, io::Error)>>,
}

impl<'r> Patient<'r> {
    /// What is given up at once when it cannot be read.
    const BLOCK_LEN: usize = 4096;

    pub(crate) fn new(
        reader: &'r dyn ReadAt,
        file_len: u64,
        progress: &'r dyn Fn(u64),
    ) -> Patient<'r> {
        Patient { reader, file_len, progress, error: RefCell::new(None) }
    }

    /// The first error, if there was one, and where.
    pub(crate) fn into_error(self) -> Option<(u64, io::Error)> {
        self.error.into_inner()
    }
}

impl ReadAt for Patient<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        // Zeros are made up only for bytes that the file should have.
        let available = usize::try_from(self.file_len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = buf.len().min(available);
        let Some(buf) = buf.get_mut(..len).filter(|buf| !buf.is_empty()) else { return Ok(0) };
        (self.progress)(len as u64);
        match self.reader.read_at(buf, offset) {
            Err(error) if is_loss(&error) => {}
            read => return read,
        }
        let mut at = 0;
        while let Some(rest) = buf.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let position = offset + at as u64;
            // To the next edge of a block, so that a bad block costs itself and not its neighbour.
            let misaligned = (position % Self::BLOCK_LEN as u64) as usize;
            let block_len = rest.len().min(Self::BLOCK_LEN - misaligned);
            let block = rest.get_mut(..block_len).unwrap_or_default();
            match self.reader.read_at(block, position) {
                Ok(0) => break,
                Ok(count) => at += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if !is_loss(&error) => return Err(error),
                Err(error) => {
                    block.fill(0);
                    self.error.borrow_mut().get_or_insert((position, error));
                    at += block_len;
                }
            }
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::group::PayloadCrc;
    use super::super::test_file::{EXPECTED, ShortReads, TWO, TestFile};
    use super::*;

    /// A record's place, length, sequence number, key and value.
    type Visited = (u64, u32, u64, Vec<u8>, Vec<u8>);

    struct Walked {
        found: Salvage,
        records: Vec<Visited>,
        damage: Vec<Damage>,
    }

    fn walk_with(reader: &dyn ReadAt, len: usize, extent: Extent) -> Walked {
        let (mut records, mut damage) = (Vec::new(), Vec::new());
        let mut reached = 0;
        let found = salvage(reader, len as u64, &EXPECTED, extent, &mut |piece| {
            match piece {
                Piece::Group { offset, .. } => {
                    assert!(offset >= reached, "SV2");
                    reached = offset + GROUP_HEADER_LEN as u64;
                }
                Piece::Record(RecordAt { offset, len, header, key, value }) => {
                    assert!(offset >= reached, "SV2");
                    reached = offset + u64::from(len);
                    assert_eq!(header.body_crc, body_crc(key, value), "SV1");
                    records.push((offset, len, header.seqno.0, key.to_vec(), value.to_vec()));
                }
                Piece::Damage(range) => {
                    // Padding lies inside of its record.
                    reached = reached.max(range.offset + range.len);
                    damage.push(range.clone());
                }
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(
            (found.records, found.damage_count),
            (records.len() as u64, damage.len() as u64)
        );
        Walked { found, records, damage }
    }

    fn walk(bytes: &[u8], extent: Extent) -> Walked {
        walk_with(&bytes, bytes.len(), extent)
    }

    fn sealed(file: &TestFile) -> Extent {
        Extent::sealed(file.end())
    }

    fn small() -> TestFile {
        let three = [("a", "1"), ("longer key", "and a longer value"), ("c", "")];
        TestFile::new(1)
            .group(128, &TWO)
            .synced_group("cherry", "dark red")
            .group(0, &three)
            .close()
    }

    /// Records that lie wholly outside of `range`.
    fn outside(records: &[Visited], range: std::ops::Range<u64>) -> Vec<Visited> {
        let is_outside = |record: &&Visited| {
            record.0 + u64::from(record.1) <= range.start || record.0 >= range.end
        };
        records.iter().filter(is_outside).cloned().collect()
    }

    #[test]
    fn a_sound_file_is_visited_whole_and_without_damage() {
        let file = small();
        for extent in [sealed(&file), Extent::UNKNOWN, Extent::tail(0)] {
            let walked = walk(&file.bytes, extent);
            assert_eq!((walked.records.len(), walked.damage.len()), (6, 0));
            assert!(walked.found.is_closed && walked.found.header.is_some());
            assert_eq!((walked.found.end, walked.found.torn_bytes), (file.end(), 0));
            let reader = ShortReads(&file.bytes);
            assert_eq!(walk_with(&reader, file.bytes.len(), extent).records, walked.records);
        }
    }

    /// Breaks if one bit costs more than the record it is in, or passes unnoticed.
    #[test]
    fn every_flip_is_one_range_of_damage_and_costs_one_record() {
        let file = small();
        let all = walk(&file.bytes, sealed(&file)).records;
        let mut bytes = file.bytes.clone();
        for index in 0..bytes.len() {
            for mask in [1, 0x10, 0x80, 0xff] {
                bytes[index] ^= mask;
                let walked = walk(&bytes, sealed(&file));
                bytes[index] ^= mask;
                if walked.found.newer.is_some() {
                    // The version of the header: nothing of a newer file is judged.
                    assert!((8..10).contains(&index), "byte {index}");
                    assert_eq!(walked.records.len(), 0);
                    continue;
                }
                let [damage] = &walked.damage[..] else { panic!("{index}: {:?}", walked.damage) };
                let at = index as u64;
                assert!(damage.offset <= at && at < damage.offset + damage.len, "{damage:?}");
                let untouched = outside(&all, at..at + 1);
                let is_padding = walked.records.len() == all.len() && untouched.len() < all.len();
                let expected = if is_padding { &all } else { &untouched };
                assert_eq!(&walked.records, expected, "byte {index}");
                assert!(all.len() - walked.records.len() <= 1);
                assert!(damage.len <= 128);
                assert!(!is_padding || damage.len < 8, "the record of damaged padding is sound");
            }
        }
    }

    /// A damaged value says which key it probably was.
    #[test]
    fn a_damaged_value_names_its_key() {
        let file = small();
        let all = walk(&file.bytes, sealed(&file)).records;
        for (offset, _, _, key, value) in all.iter().filter(|record| !record.4.is_empty()) {
            let at = file.bytes[*offset as usize..].windows(value.len()).position(|at| at == value);
            let mut bytes = file.bytes.clone();
            bytes[*offset as usize + at.unwrap()] ^= 4;
            let walked = walk(&bytes, sealed(&file));
            let record = walked.damage[0].record.as_ref().unwrap();
            assert_eq!(record.key_probably.as_ref(), Some(key));
        }
    }

    #[test]
    fn every_truncation_keeps_what_is_in_front_of_it() {
        let file = small();
        let all = walk(&file.bytes, sealed(&file)).records;
        for len in 0..file.bytes.len() {
            let walked = walk(&file.bytes[..len], sealed(&file));
            let [damage] = &walked.damage[..] else { panic!("{len}: {:?}", walked.damage) };
            assert_eq!(damage.offset + damage.len, file.end(), "{len}");
            assert!(damage.offset <= len as u64);
            let expected = outside(&all, len as u64..u64::MAX);
            let header_is_there = len >= DATA_HEADER_LEN;
            assert_eq!(
                walked.records,
                if header_is_there { expected } else { Vec::new() },
                "{len}"
            );
        }
    }

    #[test]
    fn bytes_behind_the_closing_mark_are_damage_of_a_sealed_file() {
        let file = small();
        let longer = [&file.bytes[..], &[7; 100]].concat();
        let walked = walk(&longer, sealed(&file));
        assert_eq!(walked.records.len(), 6);
        assert_eq!((walked.damage[0].offset, walked.damage[0].len), (file.end(), 100));
        // Behind a log that closed itself it is space written ahead.
        assert_eq!(walk(&longer, Extent::tail(0)).damage, []);
    }

    /// 400 groups of one to five records.
    fn large() -> TestFile {
        let mut random = fastrand::Rng::with_seed(7);
        let mut file = TestFile::new(1);
        for group in 0..400 {
            let value = "v".repeat(random.usize(..400));
            let keys: Vec<String> =
                (0..random.usize(1..=5)).map(|key| format!("{group}-{key}")).collect();
            let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (&key[..], &value[..])).collect();
            let durable_through = file.end();
            file = file.group(durable_through, &pairs);
        }
        file.close()
    }

    /// What a lost extent, a misdirected write and rot look like: everything outside is kept.
    #[test]
    fn a_hole_costs_the_records_it_touches() {
        let file = large();
        let all = walk(&file.bytes, sealed(&file)).records;
        let mut random = fastrand::Rng::with_seed(3);
        for round in 0..60 {
            let len = if round < 20 { 40 << 10 } else { 512 << random.u32(..8) };
            let start = random.usize(..(file.bytes.len() - len) / 512) * 512;
            let mut bytes = file.bytes.clone();
            let hole = &mut bytes[start..start + len];
            match round % 3 {
                0 => hole.fill(0),
                1 => hole.fill_with(|| random.u8(..)),
                _ => {
                    // Sectors of the same file, from somewhere else: no copy counts, not even of a record
                    // whose original is gone.
                    let from = random.usize(..(file.bytes.len() - len) / 512) * 512;
                    let from = if from == start { from + 512 } else { from };
                    let copy = file.bytes[from..from + len].to_vec();
                    hole.copy_from_slice(&copy);
                }
            }
            let walked = walk(&bytes, sealed(&file));
            let untouched = outside(&all, start as u64..(start + len) as u64);
            if round % 3 == 2 {
                // Sectors in the middle of two values may be equal, so a record may be untouched all the same.
                assert!(untouched.iter().all(|record| walked.records.contains(record)));
                assert!(walked.records.iter().all(|record| all.contains(record)), "SV1");
            } else {
                assert!(walked.records == untouched, "round {round}");
                // A record whose header is in front of the hole is told from what follows it.
                let region = usize::from(walked.damage[0].record.is_some());
                assert!((1..=region + 1).contains(&walked.damage.len()), "round {round}");
                let ends = walked.damage.iter().map(|damage| damage.offset + damage.len);
                assert!(ends.zip(&walked.damage[1..]).all(|(end, next)| end == next.offset));
            }
        }
    }

    /// A value that holds the file's own first bytes, in groups and records that verify: after damage to
    /// the record around it the search must not take the copies for what was there.
    #[test]
    fn a_copy_inside_of_a_value_is_never_taken_for_a_record() {
        let before = TestFile::new(1).group(128, &TWO).synced_group("cherry", "dark red");
        let copy = before.bytes.clone();
        let durable = before.end();
        let pairs: [(&[u8], &[u8]); 3] = [(b"first", b"1"), (b"aligned!", &copy), (b"last", b"3")];
        let file = before.group_of_bytes(durable, &pairs).synced_group("end", "4").close();
        let all = walk(&file.bytes, sealed(&file)).records;
        assert_eq!(all.len(), 7);
        let holder = all.iter().find(|record| record.4 == copy).unwrap();
        let group = file.groups[2] as u64;
        // The header of the group, of the record, of both: the copies are searched over each time.
        for hits in [&[holder.0][..], &[group + 8], &[group + 8, holder.0 + 8], &[holder.0 + 90]] {
            let mut bytes = file.bytes.clone();
            for hit in hits {
                bytes[*hit as usize] ^= 1;
            }
            let walked = walk(&bytes, sealed(&file));
            let is_holder_hit = hits.iter().any(|hit| *hit >= holder.0);
            let holder_end = holder.0 + u64::from(holder.1);
            let expected =
                if is_holder_hit { outside(&all, holder.0..holder_end) } else { all.clone() };
            assert_eq!(walked.records, expected, "{hits:?}");
            assert_eq!(walked.damage.len(), hits.len(), "{hits:?}: {:?}", walked.damage);
        }
    }

    /// A sector that was written to a wrong place as well must not end the file in its middle.
    #[test]
    fn a_misplaced_closing_mark_is_not_the_end() {
        let file = large();
        let all = walk(&file.bytes, sealed(&file)).records;
        let mark = file.bytes[file.bytes.len() - GROUP_HEADER_LEN..].to_vec();
        for group in (1..400).step_by(23) {
            for inside in [0, 48, 64] {
                let at = file.groups[group] + inside;
                let mut bytes = file.bytes.clone();
                bytes[at..at + mark.len()].copy_from_slice(&mark);
                for extent in [sealed(&file), Extent::UNKNOWN] {
                    let walked = walk(&bytes, extent);
                    let hit = at as u64..(at + mark.len()) as u64;
                    assert_eq!(walked.records, outside(&all, hit), "{group}, {inside}");
                    assert!(walked.found.is_closed && walked.found.end == file.end());
                }
            }
        }
    }

    /// What nobody called durable is not salvaged piece by piece: it was never acknowledged, and half a
    /// group is what a crash must not leave.
    #[test]
    fn the_torn_end_of_a_log_is_not_damage() {
        let file = TestFile::new(1).group(128, &TWO).synced_group("c", "3").group(0, &TWO);
        let durable = *file.groups.last().unwrap() as u64;
        let mut bytes = file.bytes.clone();
        *bytes.last_mut().unwrap() ^= 1;
        bytes.extend_from_slice(&[0; 4096]);
        let walked = walk(&bytes, Extent::tail(durable));
        assert_eq!((walked.records.len(), walked.damage.len()), (3, 0));
        assert_eq!((walked.found.end, walked.found.torn_bytes), (durable, file.end() - durable));
        // Damage in front of it is damage, and costs nothing behind it.
        bytes[140] ^= 1;
        let walked = walk(&bytes, Extent::tail(durable));
        assert_eq!((walked.records.len(), walked.damage.len()), (3, 1));
        assert_eq!(walked.found.end, durable);
    }

    #[test]
    fn another_files_bytes_are_never_salvaged() {
        let file = small();
        let foreign = ExpectedFile { file: crate::types::FileId(9), ..EXPECTED };
        let other = TestFile::of(&foreign, 1).group(0, &TWO).close();
        let walked = walk(&other.bytes, sealed(&file));
        assert_eq!((walked.records.len(), walked.damage.len()), (0, 1));
        let mut mixed = file.bytes.clone();
        let start = file.groups[1];
        let len = other.bytes.len() - 128;
        mixed[start..start + len].copy_from_slice(&other.bytes[128..]);
        for record in walk(&mixed, sealed(&file)).records {
            assert!(record.0 < start as u64 || record.0 >= (start + len) as u64);
        }
    }

    #[test]
    fn garbage_of_any_length_is_damage_and_nothing_else() {
        let mut random = fastrand::Rng::with_seed(1);
        for len in (0..300).chain([4096, 70_001]) {
            let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
            let walked = walk(&bytes, Extent::sealed(4096));
            assert_eq!((walked.records.len(), walked.damage.len()), (0, 1), "{len}");
            let walked = walk(&bytes, Extent::UNKNOWN);
            assert_eq!(walked.records.len(), 0, "{len}");
        }
    }

    /// Lengths that only a forged checksum could vouch for: refused, not allocated.
    #[test]
    fn sv3_a_group_longer_than_its_file_is_not_allocated() {
        let file = TestFile::new(1).synced_group("a", "1");
        let header = file.chain.group(u32::MAX - 7, PayloadCrc::default(), 1, 0);
        let file = file.append(&header, &[0; 64]);
        let walked = walk(&file.bytes, sealed(&file));
        assert_eq!((walked.records.len(), walked.damage.len()), (1, 1));
    }

    #[test]
    fn a_visitor_may_stop() {
        let file = small();
        let mut visited = 0;
        let mut visit = |_: Piece<'_>| {
            visited += 1;
            if visited == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let len = file.end();
        salvage(&file.bytes.as_slice(), len, &EXPECTED, sealed(&file), &mut visit).unwrap();
        assert_eq!(visited, 3);
    }

    /// One bad block costs what is in it, though the disk refuses every read that touches it.
    #[test]
    fn an_unreadable_block_is_damage_like_any_other() {
        struct Failing<'a>(&'a [u8], std::ops::Range<u64>);
        impl ReadAt for Failing<'_> {
            fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
                if offset < self.1.end && offset + buf.len() as u64 > self.1.start {
                    return Err(io::Error::from_raw_os_error(5));
                }
                self.0.read_at(buf, offset)
            }
        }
        let file = large();
        let all = walk(&file.bytes, sealed(&file)).records;
        let block = 8192..12288;
        let disk = Failing(&file.bytes, block.clone());
        let asked = std::cell::Cell::new(0);
        let progress = |bytes| asked.set(asked.get() + bytes);
        let reader = Patient::new(&disk, file.end(), &progress);
        let walked = walk_with(&reader, file.bytes.len(), sealed(&file));
        assert_eq!(walked.records, outside(&all, block));
        let (offset, error) = reader.into_error().unwrap();
        assert_eq!((offset, error.raw_os_error()), (8192, Some(5)));
        assert!(asked.get() >= file.end());
    }
}
