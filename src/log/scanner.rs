//! Reads a data file front to back, as recovery, verification and repair do.
//!
//! The scan ends at the first commit group that does not verify or does not chain (F4). It says
//! where that was and why; whether it is the ordinary end of a log or damage is judged in
//! [`tail`](super::tail).
//!
//! ## Invariants
//! - **SC1** A record is visited only after its whole group verified: group header, place in the
//!   chain, every record's header and body, payload checksum, record count, and not a byte left
//!   over.
//! - **SC2** The buffer holds one piece of the file, or one group if that is longer, and is
//!   allocated only for lengths that a checksum vouches for and that the file really has (L1).

use std::io;

use super::format::data_header::{DATA_HEADER_LEN, DataHeader, ExpectedFile, FileIdentity, Place};
use super::format::group::{Chain, GROUP_HEADER_LEN, GroupHeader, GroupKind, PayloadCrc};
use super::format::record::{Record, RecordHeader, decode_record};
use super::format::{FormatError, check_crc};
use crate::types::Seqno;

/// Bytes read at once: long enough that the device streams, short enough to have one per partition.
const PIECE_LEN: usize = 1 << 20;

/// A file that is read by offset; short counts are allowed, zero is the end.
pub(crate) trait ReadAt {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// A verified record and its place in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordAt<'a> {
    pub(crate) offset: u64,
    /// Length of the record in bytes, padding included.
    pub(crate) len: u32,
    pub(crate) header: &'a RecordHeader,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Why a scan went no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The last group ends where the file does.
    EndOfFile,
    /// The file says itself that it is complete, and what its digest is.
    ClosingMark { digest: u32 },
    /// What is at `offset` does not continue the log.
    NoChain { offset: u64, why: FormatError },
}

/// What a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Where the log ends: behind the last group that verified, or behind the closing mark.
    pub(crate) end: u64,
    pub(crate) groups: u64,
    pub(crate) records: u64,
    /// Zero if there is no record.
    pub(crate) seqno_min: Seqno,
    /// Zero if there is no record.
    pub(crate) seqno_max: Seqno,
    /// The largest durable-through offset that any group claims.
    pub(crate) durable_through_max: u64,
    /// Where the next group, or the closing mark, would attach.
    pub(crate) chain: Chain,
    pub(crate) stop: Stop,
}

/// What the first bytes of a data file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The header of the expected file, and its checksum.
    Sound {
        header: DataHeader,
        crc: u32,
    },
    Faulty(HeaderFault),
}

/// Why a file has no usable header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// Not all of it ever arrived: the file is too short, or there are zeros where it should end.
    Unfinished,
    Damaged(FormatError),
    /// Sound, and of another file.
    Foreign(FormatError),
    Newer(FormatError),
}

/// Reads the file's header and holds it against what is expected.
pub(crate) fn read_opening(
    reader: &dyn ReadAt,
    file_len: u64,
    expected: &ExpectedFile,
) -> io::Result<Opening> {
    let mut window = Window::new(reader, file_len);
    let bytes = window.bytes(0, DATA_HEADER_LEN)?;
    // A write that was cut short leaves zeros, or nothing, where the checksum goes.
    let is_checksum_there = bytes.len() == DATA_HEADER_LEN && !bytes.ends_with(&[0; 4]);
    Ok(match DataHeader::decode(bytes) {
        Ok((header, crc)) => match header.check_expected(expected) {
            Ok(()) => Opening::Sound { header, crc },
            Err(why) => Opening::Faulty(HeaderFault::Foreign(why)),
        },
        Err(why) if why.is_newer() => Opening::Faulty(HeaderFault::Newer(why)),
        Err(_) if !is_checksum_there => Opening::Faulty(HeaderFault::Unfinished),
        Err(why) => Opening::Faulty(HeaderFault::Damaged(why)),
    })
}

/// Reads every group behind the header, and hands their records to `visit` in log order.
///
/// `start` comes from the file's header: [`Chain::start`]. An `Err` is a failed read; whatever the
/// bytes are, that is said by the [`Scan`].
pub(crate) fn scan(
    reader: &dyn ReadAt,
    file_len: u64,
    identity: FileIdentity,
    start: Chain,
    visit: &mut dyn FnMut(RecordAt<'_>),
) -> io::Result<Scan> {
    let mut scan = Scan::start(start);
    scan.read_on(reader, file_len, identity, u64::MAX, visit)?;
    Ok(scan)
}

impl Scan {
    /// Behind the header of a file, before its first group.
    pub(crate) fn start(chain: Chain) -> Scan {
        Scan {
            end: DATA_HEADER_LEN as u64,
            groups: 0,
            records: 0,
            seqno_min: Seqno::default(),
            seqno_max: Seqno::default(),
            durable_through_max: 0,
            chain,
            stop: Stop::EndOfFile,
        }
    }

    /// Goes on where it stands for about `budget` bytes; true once there is nothing more to read.
    pub(crate) fn read_on(
        &mut self,
        reader: &dyn ReadAt,
        file_len: u64,
        identity: FileIdentity,
        budget: u64,
        visit: &mut dyn FnMut(RecordAt<'_>),
    ) -> io::Result<bool> {
        self.read_groups_on(reader, file_len, identity, budget, &mut |group| {
            group.records().for_each(&mut *visit);
        })
    }

    /// As [`read_on`](Self::read_on), for whoever can do with many records at once.
    pub(crate) fn read_groups_on(
        &mut self,
        reader: &dyn ReadAt,
        file_len: u64,
        identity: FileIdentity,
        budget: u64,
        visit: &mut dyn FnMut(&Group<'_>),
    ) -> io::Result<bool> {
        let until = self.end.saturating_add(budget);
        let mut window = Window::new(reader, file_len);
        while self.end < file_len && self.stop == Stop::EndOfFile {
            if self.end >= until {
                return Ok(false);
            }
            match read_group(&mut window, self.end, identity, &self.chain) {
                Ok(group) => {
                    visit(&group);
                    self.take_group(&group);
                }
                Err(Fault::Format(why)) => {
                    self.stop = Stop::NoChain { offset: self.end, why };
                }
                Err(Fault::Io(error)) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The file's digest, if the closing mark was reached.
    #[cfg(test)]
    pub(crate) fn closed(&self) -> Option<u32> {
        match self.stop {
            Stop::ClosingMark { digest } => Some(digest),
            Stop::EndOfFile | Stop::NoChain { .. } => None,
        }
    }

    /// Counts a verified group.
    fn take_group(&mut self, group: &Group<'_>) {
        for record in group.records() {
            let seqno = record.header.seqno;
            self.seqno_min = if self.records == 0 { seqno } else { self.seqno_min.min(seqno) };
            self.seqno_max = self.seqno_max.max(seqno);
            self.records += 1;
        }
        self.end = group.records_at + u64::from(group.header.payload_len);
        self.durable_through_max = self.durable_through_max.max(group.header.durable_through);
        self.chain.advance(group.header_crc);
        match group.header.kind {
            GroupKind::Records => self.groups += 1,
            GroupKind::ClosingMark => {
                self.stop = Stop::ClosingMark { digest: group.header_crc };
            }
        }
    }
}

/// A group whose every byte was verified (SC1).
pub(crate) struct Group<'a> {
    header: GroupHeader,
    header_crc: u32,
    /// Offset of the first record.
    records_at: u64,
    records: Vec<Record<'a>>,
}

impl Group<'_> {
    pub(crate) fn records(&self) -> impl Iterator<Item = RecordAt<'_>> {
        self.records.iter().scan(self.records_at, |next, record| {
            let (offset, len) = (*next, record.header.record_len());
            *next += u64::from(len);
            let Record { header, key, value, .. } = record;
            Some(RecordAt { offset, len, header, key, value })
        })
    }
}

/// Keeps a failed read apart from bytes that were read and are not a group.
pub(super) enum Fault {
    Io(io::Error),
    Format(FormatError),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl From<FormatError> for Fault {
    fn from(error: FormatError) -> Fault {
        Fault::Format(error)
    }
}

fn read_group<'w>(
    window: &'w mut Window<'_>,
    offset: u64,
    identity: FileIdentity,
    chain: &Chain,
) -> Result<Group<'w>, Fault> {
    let bytes = window.bytes(offset, GROUP_HEADER_LEN)?;
    let (header, header_crc) = GroupHeader::decode(bytes, identity)?;
    chain.admit(&header, offset)?;

    let payload_offset = offset + GROUP_HEADER_LEN as u64;
    let payload_len = header.payload_len as usize;
    let incomplete = FormatError::Incomplete { need: GROUP_HEADER_LEN.saturating_add(payload_len) };
    // The file's length decides before the buffer grows (SC2).
    if window.file_len.saturating_sub(payload_offset) < u64::from(header.payload_len) {
        return Err(incomplete.into());
    }
    let payload = window.bytes(payload_offset, payload_len)?;
    if payload.len() != payload_len {
        return Err(incomplete.into());
    }
    let records = verify_payload(&header, payload, identity.at(payload_offset))?;
    Ok(Group { header, header_crc, records_at: payload_offset, records })
}

/// The records of a group whose bytes are all there, if every one of them verifies (SC1).
pub(in crate::log) fn verify_payload<'a>(
    header: &GroupHeader,
    payload: &'a [u8],
    mut place: Place,
) -> Result<Vec<Record<'a>>, FormatError> {
    let mut records = Vec::new();
    let mut crc = PayloadCrc::default();
    let mut rest = payload;
    while !rest.is_empty() {
        let record = decode_record(rest, place).map_err(|why| match why {
            // All of the payload is here, so more bytes will not come.
            FormatError::Incomplete { .. } => {
                FormatError::invalid("a record reaches past the end of its commit group")
            }
            why => why,
        })?;
        crc.push(record.header_crc);
        let len = record.header.record_len() as usize;
        rest = rest.get(len..).unwrap_or_default();
        place = place.plus(len);
        records.push(record);
    }
    check_crc("commit group payload", header.payload_crc, crc.get())?;
    if records.len() == header.record_count as usize {
        Ok(records)
    } else {
        Err(FormatError::invalid("a commit group holds another number of records than it says"))
    }
}

/// Which groups behind the end of a log prove that bytes before them are lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Witness {
    /// Of this open.
    pub(crate) open_id: u64,
    /// Not older than this: a value may hold a copy of the file's own earlier bytes, and those
    /// verify.
    pub(crate) number_min: u64,
    /// Claims that bytes from this offset on were durable.
    pub(crate) durable_above: u64,
}

impl Witness {
    fn is(self, header: &GroupHeader, offset: u64) -> bool {
        header.open_id == self.open_id
            && header.number >= self.number_min
            && header.durable_through <= offset
            && header.durable_through > self.durable_above
    }
}

/// What is in a file behind the end of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Where the first group is that proves a loss.
    pub(crate) witness: Option<u64>,
    /// Everything from here to the end of the file is zero.
    pub(crate) zeros_from: u64,
}

/// Looks for a group header that verifies, at every multiple of 8 from `from` to the end (L2).
///
/// The payload does not matter: a header that verifies was written by this store, at that place,
/// and what it says about the bytes before it holds even if its own records are torn.
pub(crate) fn search_rest(
    reader: &dyn ReadAt,
    file_len: u64,
    identity: FileIdentity,
    from: u64,
    witness: Witness,
) -> io::Result<Rest> {
    const WORD_LEN: usize = 8;
    // A header that starts in the last words of a piece is whole only in the next one.
    const STEP: u64 = (PIECE_LEN - (GROUP_HEADER_LEN - WORD_LEN)) as u64;

    let mut window = Window::new(reader, file_len);
    let mut zeros_from = from;
    let mut offset = from;
    while offset < file_len {
        let piece = window.bytes(offset, PIECE_LEN)?;
        for (index, word) in piece.chunks(WORD_LEN).enumerate() {
            // Space that was written ahead is zeros, so this is the loop's usual way round.
            if word.iter().all(|byte| *byte == 0) {
                continue;
            }
            let word_offset = offset + (index * WORD_LEN) as u64;
            zeros_from = word_offset + word.len() as u64;
            let may_start =
                word.first_chunk().is_some_and(|word| GroupHeader::may_start_with(*word));
            let bytes = piece.get(index * WORD_LEN..).unwrap_or_default();
            if may_start
                && let Ok((header, _)) = GroupHeader::decode(bytes, identity)
                && witness.is(&header, word_offset)
            {
                return Ok(Rest { witness: Some(word_offset), zeros_from });
            }
        }
        if piece.len() < PIECE_LEN {
            break;
        }
        offset += STEP;
    }
    Ok(Rest { witness: None, zeros_from })
}

/// One piece of a file in memory, moved forward as it is asked for (SC2).
pub(super) struct Window<'r> {
    reader: &'r dyn ReadAt,
    file_len: u64,
    /// Offset of `buf` in the file.
    start: u64,
    /// Bytes of `buf` that hold bytes of the file.
    filled: usize,
    buf: Vec<u8>,
}

impl<'r> Window<'r> {
    pub(super) fn new(reader: &'r dyn ReadAt, file_len: u64) -> Window<'r> {
        Window { reader, file_len, start: 0, filled: 0, buf: Vec::new() }
    }

    /// The bytes at `offset`: `len` of them, or as many as the file has.
    ///
    /// `len` is a constant or was compared with the file's length.
    pub(super) fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let available = usize::try_from(self.file_len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(available);
        let inside = offset.checked_sub(self.start).and_then(|inside| usize::try_from(inside).ok());
        let inside = match inside {
            Some(inside) if inside <= self.filled && self.filled - inside >= len => inside,
            inside => {
                self.refill(offset, inside, len.max(PIECE_LEN).min(available))?;
                0
            }
        };
        let end = self.filled.min(inside + len);
        Ok(self.buf.get(inside..end).unwrap_or_default())
    }

    /// Starts the window at `offset`, which is at `inside` of it now if the two overlap.
    fn refill(&mut self, offset: u64, inside: Option<usize>, len: usize) -> io::Result<()> {
        // What was read already and not used is the start of the new window.
        let kept = match inside {
            Some(inside) if inside < self.filled => {
                self.buf.copy_within(inside..self.filled, 0);
                self.filled - inside
            }
            _ => 0,
        };
        self.start = offset;
        self.filled = kept;
        if self.buf.len() < len {
            // One group can be as long as the longest value: out of memory is an error here.
            self.buf.try_reserve_exact(len - self.buf.len())?;
            self.buf.resize(len, 0);
        }
        let space = self.buf.get_mut(kept..len).unwrap_or_default();
        self.filled += read_full(self.reader, space, offset + kept as u64)?;
        Ok(())
    }
}

/// Reads until `buf` is full or the file ends, and says how many bytes there were.
pub(in crate::log) fn read_full(
    reader: &dyn ReadAt,
    buf: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(space) = buf.get_mut(filled..).filter(|space| !space.is_empty()) {
        match reader.read_at(space, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled.min(buf.len()))
}

#[cfg(test)]
mod tests {
    use super::super::test_file::{EXPECTED, ShortReads, TWO, TestFile};
    use super::*;

    /// Records as (offset, sequence number, key, value).
    type Visited = Vec<(u64, u64, Vec<u8>, Vec<u8>)>;

    fn scan_all(reader: &dyn ReadAt, file_len: usize) -> (Scan, Visited) {
        let opening = read_opening(reader, file_len as u64, &EXPECTED).unwrap();
        let Opening::Sound { header, crc } = opening else { panic!("{opening:?}") };
        let start = Chain::start(header.open_id, crc);
        let mut visited = Vec::new();
        let scan = scan(reader, file_len as u64, EXPECTED.identity(), start, &mut |record| {
            let RecordAt { offset, len, header, key, value } = record;
            assert_eq!(len, header.record_len());
            visited.push((offset, header.seqno.0, key.to_vec(), value.to_vec()));
        })
        .unwrap();
        (scan, visited)
    }

    #[test]
    fn a_closed_file_is_read_to_its_mark() {
        let file = TestFile::new(1).group(128, &TWO).synced_group("c", "3").close();
        let (scan, visited) = scan_all(&file.bytes.as_slice(), file.bytes.len());
        assert_eq!(scan.stop, Stop::ClosingMark { digest: file.listed().digest });
        assert_eq!((scan.end, scan.groups, scan.records), (file.end(), 2, 3));
        assert_eq!((scan.seqno_min, scan.seqno_max), (Seqno(100), Seqno(102)));
        assert_eq!(scan.durable_through_max, *file.groups.last().unwrap() as u64);
        assert_eq!(scan.chain, file.chain);
        let keys: Vec<&[u8]> = visited.iter().map(|(_, _, key, _)| &key[..]).collect();
        assert_eq!(keys, [b"apple".as_slice(), b"banana", b"c"]);
        for (offset, seqno, key, value) in &visited {
            let record =
                decode_record(&file.bytes[*offset as usize..], EXPECTED.identity().at(*offset))
                    .unwrap();
            assert_eq!(
                (record.header.seqno.0, record.key, record.value),
                (*seqno, &key[..], &value[..])
            );
        }
    }

    #[test]
    fn a_disk_that_reads_a_few_bytes_at_a_time_gives_the_same() {
        let file = TestFile::new(1).group(128, &TWO).synced_group("c", "3").close();
        let bytes = file.bytes.as_slice();
        assert_eq!(scan_all(&ShortReads(bytes), bytes.len()), scan_all(&bytes, bytes.len()));
    }

    /// A group that begins in one piece and ends in the next, and one longer than a piece.
    #[test]
    fn groups_across_and_beyond_a_piece_are_read() {
        let small = "s".repeat(PIECE_LEN / 3);
        let large = "l".repeat(PIECE_LEN * 2 + 5);
        let mut file = TestFile::new(1);
        for value in [&small, &small, &small, &small, &large, &small] {
            file = file.synced_group("key", value);
        }
        let file = file.close();
        let (scan, visited) = scan_all(&file.bytes.as_slice(), file.bytes.len());
        assert_eq!(scan.closed(), Some(file.listed().digest));
        let lens: Vec<usize> = visited.iter().map(|(.., value)| value.len()).collect();
        let (small, large) = (small.len(), large.len());
        assert_eq!(lens, [small, small, small, small, large, small]);
    }

    #[test]
    fn sc1_a_group_is_visited_whole_or_not_at_all() {
        let file = TestFile::new(1).synced_group("a", "1").group(0, &TWO);
        let last = *file.groups.last().unwrap();
        let (_, visited) = scan_all(&file.bytes.as_slice(), file.bytes.len());
        assert_eq!(visited.len(), 3);
        for index in last..file.bytes.len() {
            let mut bytes = file.bytes.clone();
            bytes[index] ^= 0x10;
            let (scan, visited) = scan_all(&bytes.as_slice(), bytes.len());
            assert_eq!((scan.end, visited.len()), (last as u64, 1), "byte {index}");
            let is_there =
                matches!(scan.stop, Stop::NoChain { offset, .. } if offset == last as u64);
            assert!(is_there, "byte {index}: {:?}", scan.stop);
        }
    }

    /// SC2: the length of a group is believed only as far as the file goes.
    #[test]
    fn sc2_a_group_longer_than_its_file_is_not_allocated() {
        let file = TestFile::new(1).synced_group("a", "1");
        let end = file.end();
        let header = file.chain.group(u32::MAX - 7, PayloadCrc::default(), 1, 0);
        let file = file.append(&header, &[0; 64]);
        let (scan, _) = scan_all(&file.bytes.as_slice(), file.bytes.len());
        let why = FormatError::Incomplete { need: GROUP_HEADER_LEN + u32::MAX as usize - 7 };
        assert_eq!(scan.stop, Stop::NoChain { offset: end, why });
    }

    #[test]
    fn groups_that_lie_about_their_records_are_refused() {
        let honest = TestFile::new(1).group(0, &TWO);
        let payload = honest.last_group()[GROUP_HEADER_LEN..].to_vec();
        let (header, _) = GroupHeader::decode(honest.last_group(), EXPECTED.identity()).unwrap();
        for lie in [
            GroupHeader { record_count: 1, ..header },
            GroupHeader { record_count: 3, ..header },
            GroupHeader { payload_crc: header.payload_crc ^ 1, ..header },
            GroupHeader { payload_len: header.payload_len - 8, ..header },
            GroupHeader { payload_len: header.payload_len + 8, ..header },
            GroupHeader { durable_through: 129, ..header },
        ] {
            let file = TestFile::new(1).append(&lie, &[&payload[..], &[0; 8]].concat());
            let (scan, visited) = scan_all(&file.bytes.as_slice(), file.bytes.len());
            assert!(matches!(scan.stop, Stop::NoChain { offset: 128, .. }), "{lie:?}");
            assert_eq!((scan.records, visited.len()), (0, 0));
        }
    }

    /// A group may say nothing but how much is durable.
    #[test]
    fn an_empty_group_chains() {
        let file = TestFile::new(1).group(0, &[]).group(0, &TWO);
        let (scan, _) = scan_all(&file.bytes.as_slice(), file.bytes.len());
        assert_eq!((scan.stop, scan.groups, scan.records), (Stop::EndOfFile, 2, 2));
    }

    #[test]
    fn failed_reads_are_not_the_end_of_a_log() {
        struct Failing;
        impl ReadAt for Failing {
            fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(5))
            }
        }
        let start = Chain::start(1, 0);
        let error = scan(&Failing, 4096, EXPECTED.identity(), start, &mut |_| ()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5));
    }

    #[test]
    fn openings_are_told_apart() {
        let sound = TestFile::new(1).bytes;
        let opening = |bytes: &[u8]| read_opening(&bytes, bytes.len() as u64, &EXPECTED).unwrap();
        assert!(matches!(opening(&sound), Opening::Sound { .. }));
        for len in 0..sound.len() {
            assert_eq!(opening(&sound[..len]), Opening::Faulty(HeaderFault::Unfinished), "{len}");
            if len <= sound.len() - 4 {
                let mut torn = sound.clone();
                torn[len..].fill(0);
                assert_eq!(opening(&torn), Opening::Faulty(HeaderFault::Unfinished), "{len}");
            }
        }
        let mut damaged = sound.clone();
        damaged[20] ^= 1;
        assert!(matches!(opening(&damaged), Opening::Faulty(HeaderFault::Damaged(_))));
        let mut newer = sound;
        newer[8] = 2;
        let why = FormatError::NewerVersion(2);
        assert_eq!(opening(&newer), Opening::Faulty(HeaderFault::Newer(why)));
    }

    /// At every distance from the edge of a piece, so that the overlap is neither short nor long.
    #[test]
    fn a_witness_is_found_across_pieces() {
        let header = Chain { open_id: 1, number: 9, previous: 0 }.closing_mark(64);
        let (mark, _) = header.encode(EXPECTED.identity());
        let witness = Witness { open_id: 1, number_min: 9, durable_above: 0 };
        let mut bytes = vec![0_u8; 2 * PIECE_LEN];
        for distance in (0..=64).step_by(8) {
            let at = PIECE_LEN + 16 - distance;
            bytes[at..at + mark.len()].copy_from_slice(&mark);
            let len = bytes.len() as u64;
            let identity = EXPECTED.identity();
            let rest = search_rest(&bytes.as_slice(), len, identity, 0, witness).unwrap();
            assert_eq!(rest.witness, Some(at as u64), "{distance}");
            let later = Witness { number_min: 10, ..witness };
            let rest = search_rest(&bytes.as_slice(), len, identity, 0, later).unwrap();
            let no_claim = Witness { durable_above: 64, ..witness };
            let other_open = Witness { open_id: 2, ..witness };
            for stranger in [no_claim, other_open] {
                let rest = search_rest(&bytes.as_slice(), len, identity, 0, stranger).unwrap();
                assert_eq!(rest.witness, None, "{stranger:?}");
            }
            let zeros_from = (at + mark.len()) as u64;
            assert_eq!(rest, Rest { witness: None, zeros_from }, "{distance}");
            bytes[at..at + mark.len()].fill(0);
        }
    }

    /// GR2: a group cannot know that bytes behind it are durable, so this is a copy that moved.
    #[test]
    fn a_header_that_claims_bytes_behind_itself_is_no_witness() {
        let header = Chain { open_id: 1, number: 9, previous: 0 }.closing_mark(64);
        let (mark, _) = header.encode(EXPECTED.identity());
        let witness = Witness { open_id: 1, number_min: 9, durable_above: 0 };
        for (at, found) in [(56, None), (64, Some(64))] {
            let bytes = [&vec![0; at][..], &mark].concat();
            let (reader, len) = (bytes.as_slice(), bytes.len() as u64);
            let rest = search_rest(&reader, len, EXPECTED.identity(), 0, witness).unwrap();
            assert_eq!(rest.witness, found);
        }
    }
}
