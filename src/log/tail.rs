//! What the end of a scan means: a log that simply ends, one that was cut short, or damage.
//!
//! ## The tail: the active file, whose length no list knows
//!
//! | row | header | the scan stops at | behind it | verdict | how a disk gets there |
//! | --- | --- | --- | --- | --- | --- |
//! | A | sound | closing mark | not looked at | sealed | closed, or sealed and killed before `FILES` was replaced; zeros written ahead may follow |
//! | B | sound | end of file | nothing | seal there | killed between two groups, nothing written ahead |
//! | C | sound | no chain | zeros | seal there | killed between two groups, zeros written ahead |
//! | D | sound | no chain | bytes, no witness | cut there | killed, or power lost, with groups on their way: none of them was durable |
//! | E | sound | no chain | a witness | corrupt there | a later group says these bytes were durable: the device lost or changed them |
//! | F | sound | bytes of a newer build | not looked at | refuse | written by a newer version, then opened by this one |
//! | G | missing | – | not looked at | corrupt at 0 | the device lost it: the header is durable before `FILES` names the file |
//! | H | damaged | – | not looked at | corrupt at 0 | the device changed it |
//! | I | of another file | – | not looked at | corrupt at 0 | renamed, or copied from another store |
//! | J | newer | – | not looked at | refuse | created by a newer version |
//!
//! A *witness* is a group header or closing mark that verifies, is not older than the group that is
//! missing, and says that bytes behind the stop were durable when it was written ([`Witness`]).
//! Groups without such a claim prove nothing: the kernel writes pages back in any order, so after a
//! power cut a later group can be there while an earlier one, just as unsynced, is not.
//!
//! ## A sealed file
//!
//! It was durable, closed and listed before anything relied on it, so there is nothing to weigh:
//! it is what `FILES` says, or it is damaged at the first byte that is not.
//!
//! ## Invariants
//! - **TA1** Every combination of header, stop and rest is in exactly one row.
//! - **TA2** A cut never drops bytes that a group claims were durable, and never what a newer build
//!   wrote.

use std::io;

use super::files::SealedFile;
use super::format::FormatError;
use super::format::data_header::{DataHeader, ExpectedFile};
use super::format::group::{Chain, GROUP_HEADER_LEN, GroupHeader, GroupKind};
use super::scanner::{
    HeaderFault, Opening, ReadAt, RecordAt, Rest, Scan, Stop, Witness, read_full, read_opening,
    scan, search_rest,
};
use crate::planted::{Bug, is_planted};

/// What to do with the tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TailVerdict {
    /// Complete: list it with this length and digest, and cut what follows, which is written-ahead
    /// space.
    Sealed { len: u64, digest: u32 },
    /// Cut at `end` and append the closing mark. `dropped` bytes behind it were written and not
    /// durable: zero, or a number to log.
    Seal { end: u64, dropped: u64 },
    /// Bytes that were durable are not what was written; `offset` is where they start.
    Corrupt { offset: u64, why: FormatError },
    /// A newer build wrote it.
    Refuse { why: FormatError },
}

/// A judged tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The row of the module's table, for the log.
    pub(crate) row: Row,
    pub(crate) verdict: TailVerdict,
    /// `None` unless the header is sound.
    pub(crate) log: Option<TailLog>,
}

/// What sealing the tail needs to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TailLog {
    pub(crate) header: DataHeader,
    pub(crate) scan: Scan,
}

/// A row of the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    A,
    B,
    C,
    D,
    E,
    F,
    G,
    H,
    I,
    J,
}

/// Reads the active file of a store that is being opened, and judges where its log ends.
///
/// Records are visited as they are verified, so what `visit` collected counts only if the verdict
/// is neither `Corrupt` nor `Refuse`. An `Err` is a failed read.
pub(crate) fn read_tail(
    reader: &dyn ReadAt,
    file_len: u64,
    expected: &ExpectedFile,
    visit: &mut dyn FnMut(RecordAt<'_>),
) -> io::Result<Tail> {
    let identity = expected.identity();
    match read_opening(reader, file_len, expected)? {
        Opening::Sound { header, crc } => {
            let start = Chain::start(header.open_id, crc);
            let scan = scan(reader, file_len, identity, start, visit)?;
            let rest = match witness_behind(&scan) {
                Some(witness) => search_rest(reader, file_len, identity, scan.end, witness)?,
                None => Rest { witness: None, zeros_from: scan.end },
            };
            let (row, verdict) = decide_log(&scan, &rest);
            Ok(Tail { row, verdict, log: Some(TailLog { header, scan }) })
        }
        Opening::Faulty(fault) => {
            let (row, verdict) = decide_without_header(&fault);
            Ok(Tail { row, verdict, log: None })
        }
    }
}

/// What would prove that the log went on behind this scan; `None` for rows that look at no rest.
fn witness_behind(scan: &Scan) -> Option<Witness> {
    let is_open = matches!(scan.stop, Stop::NoChain { .. }) && !is_planted(Bug::DamagedTailCut);
    is_open.then_some(Witness {
        open_id: scan.chain.open_id,
        number_min: scan.chain.number,
        durable_above: scan.end,
    })
}

/// Rows A to F. No arm overlaps another but by `is_newer` (TA1).
fn decide_log(scan: &Scan, rest: &Rest) -> (Row, TailVerdict) {
    let dropped = rest.zeros_from.saturating_sub(scan.end);
    match (&scan.stop, rest.witness) {
        (Stop::ClosingMark { digest }, _) => {
            (Row::A, TailVerdict::Sealed { len: scan.end, digest: *digest })
        }
        (Stop::EndOfFile, _) => (Row::B, TailVerdict::Seal { end: scan.end, dropped: 0 }),
        // TA2: before anything is cut.
        (Stop::NoChain { why, .. }, _) if why.is_newer() => {
            (Row::F, TailVerdict::Refuse { why: why.clone() })
        }
        (Stop::NoChain { .. }, None) if dropped == 0 => {
            (Row::C, TailVerdict::Seal { end: scan.end, dropped: 0 })
        }
        (Stop::NoChain { .. }, None) => (Row::D, TailVerdict::Seal { end: scan.end, dropped }),
        (Stop::NoChain { offset, why }, Some(witness)) => {
            let why = FormatError::invalid(format!(
                "{why}, in bytes that were durable when the group at offset {witness} was written"
            ));
            (Row::E, TailVerdict::Corrupt { offset: *offset, why })
        }
    }
}

/// Rows G to J.
fn decide_without_header(fault: &HeaderFault) -> (Row, TailVerdict) {
    let corrupt = |why: &FormatError| TailVerdict::Corrupt { offset: 0, why: why.clone() };
    match fault {
        HeaderFault::Unfinished => (Row::G, corrupt(&FormatError::invalid(HEADER_MISSING))),
        HeaderFault::Damaged(why) => (Row::H, corrupt(why)),
        HeaderFault::Foreign(why) => (Row::I, corrupt(why)),
        HeaderFault::Newer(why) => (Row::J, TailVerdict::Refuse { why: why.clone() }),
    }
}

const HEADER_MISSING: &str = "the file header is missing";

/// Whether a listed file is what the list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SealedVerdict {
    Intact,
    /// `offset` is where the first byte is that is not what was written, as far as that shows.
    Corrupt {
        offset: u64,
        why: FormatError,
    },
    /// A newer build wrote it.
    Refuse {
        why: FormatError,
    },
}

/// Reads a sealed file whole, and holds it against its entry in `FILES`.
///
/// Records are visited as they are verified, whatever the verdict is in the end: repair keeps those
/// in front of the damage. An `Err` is a failed read.
pub(crate) fn read_sealed(
    reader: &dyn ReadAt,
    file_len: u64,
    expected: &ExpectedFile,
    listed: &SealedFile,
    visit: &mut dyn FnMut(RecordAt<'_>),
) -> io::Result<SealedVerdict> {
    match read_opening(reader, file_len, expected)? {
        Opening::Sound { header, crc } => {
            let start = Chain::start(header.open_id, crc);
            let scan = scan(reader, file_len, expected.identity(), start, visit)?;
            Ok(judge_sealed(&scan, file_len, listed))
        }
        Opening::Faulty(fault) => Ok(decide_sealed_without_header(&fault)),
    }
}

/// Reads header and closing mark of a sealed file, which is what open can afford when a hint makes
/// reading the file unnecessary.
///
/// It finds a file that is missing, shorter, longer, foreign, or of another digest; damage between
/// the two ends is found when it is read.
pub(crate) fn read_sealed_ends(
    reader: &dyn ReadAt,
    file_len: u64,
    expected: &ExpectedFile,
    listed: &SealedFile,
) -> io::Result<SealedVerdict> {
    let header = match read_opening(reader, file_len, expected)? {
        Opening::Sound { header, .. } => header,
        Opening::Faulty(fault) => return Ok(decide_sealed_without_header(&fault)),
    };
    if let Some(verdict) = decide_sealed_len(file_len, listed) {
        return Ok(verdict);
    }
    let mark_offset = listed.len.saturating_sub(GROUP_HEADER_LEN as u64);
    let mut bytes = [0; GROUP_HEADER_LEN];
    let count = read_full(reader, &mut bytes, mark_offset)?;
    let mark = bytes.get(..count).unwrap_or_default();
    let why = match GroupHeader::decode(mark, expected.identity()) {
        Ok((mark, digest))
            if mark.kind == GroupKind::ClosingMark
                && mark.open_id == header.open_id
                && digest == listed.digest =>
        {
            return Ok(SealedVerdict::Intact);
        }
        Ok(_) => FormatError::invalid("the file does not end in the closing mark that is listed"),
        Err(why) => why,
    };
    Ok(SealedVerdict::Corrupt { offset: mark_offset, why })
}

/// Holds what was read of a sealed file, up to its end, against its entry in `FILES`.
pub(crate) fn judge_sealed(scan: &Scan, file_len: u64, listed: &SealedFile) -> SealedVerdict {
    let corrupt = |offset, why| SealedVerdict::Corrupt { offset, why };
    match &scan.stop {
        Stop::NoChain { why, .. } if why.is_newer() => SealedVerdict::Refuse { why: why.clone() },
        Stop::NoChain { offset, why } => corrupt(*offset, why.clone()),
        Stop::EndOfFile => {
            let why = "the file ends without its closing mark";
            corrupt(scan.end, FormatError::invalid(why))
        }
        Stop::ClosingMark { digest } => {
            let found = (scan.records, scan.seqno_min, scan.seqno_max);
            if let Some(verdict) = decide_sealed_len(file_len, listed) {
                verdict
            } else if scan.end != file_len {
                corrupt(scan.end, FormatError::invalid("the closing mark is not at the end"))
            } else if *digest != listed.digest {
                let (expected, found) = (listed.digest, *digest);
                let what = "file digest";
                corrupt(scan.end, FormatError::Checksum { what, expected, found })
            } else if found != (listed.records, listed.seqno_min, listed.seqno_max) {
                let why = "the file holds other records than its entry says";
                corrupt(scan.end, FormatError::invalid(why))
            } else {
                SealedVerdict::Intact
            }
        }
    }
}

fn decide_sealed_len(file_len: u64, listed: &SealedFile) -> Option<SealedVerdict> {
    (file_len != listed.len).then(|| SealedVerdict::Corrupt {
        offset: file_len.min(listed.len),
        why: FormatError::invalid(format!(
            "the file has {file_len} bytes, and {} are listed",
            listed.len
        )),
    })
}

fn decide_sealed_without_header(fault: &HeaderFault) -> SealedVerdict {
    let why = match fault {
        HeaderFault::Unfinished => FormatError::invalid(HEADER_MISSING),
        HeaderFault::Damaged(why) | HeaderFault::Foreign(why) => why.clone(),
        HeaderFault::Newer(why) => return SealedVerdict::Refuse { why: why.clone() },
    };
    SealedVerdict::Corrupt { offset: 0, why }
}

#[cfg(test)]
mod tests {
    use super::super::format::data_header::DATA_HEADER_LEN;
    use super::super::format::group::PayloadCrc;
    use super::super::test_file::{EXPECTED, ShortReads, TWO, TestFile};
    use super::*;
    use crate::types::{FileId, PartitionId, Seqno, StoreId};

    fn tail_of(bytes: &[u8]) -> Tail {
        let tail = read_tail(&bytes, bytes.len() as u64, &EXPECTED, &mut |_| ()).unwrap();
        let slow = read_tail(&ShortReads(bytes), bytes.len() as u64, &EXPECTED, &mut |_| ());
        assert_eq!(slow.unwrap(), tail);
        tail
    }

    fn sealed_of(bytes: &[u8], listed: &SealedFile) -> SealedVerdict {
        let len = bytes.len() as u64;
        read_sealed(&bytes, len, &EXPECTED, listed, &mut |_| ()).unwrap()
    }

    fn sealed_ends_of(bytes: &[u8], listed: &SealedFile) -> SealedVerdict {
        read_sealed_ends(&bytes, bytes.len() as u64, &EXPECTED, listed).unwrap()
    }

    /// TA1: the table once more, as one predicate per row, against every input there is.
    #[test]
    fn ta1_every_input_is_in_exactly_one_row() {
        let no_chain = |why| Stop::NoChain { offset: 200, why };
        let stops = [
            Stop::ClosingMark { digest: 7 },
            Stop::EndOfFile,
            no_chain(FormatError::invalid("torn")),
            no_chain(FormatError::Incomplete { need: 48 }),
            no_chain(FormatError::Unsupported("a record kind")),
            no_chain(FormatError::NewerVersion(2)),
        ];
        let damage = || FormatError::invalid("damage");
        let rests =
            [None, Some(400)].map(|witness| [0, 208].map(|zeros_from| (witness, zeros_from)));
        for (witness, zeros_from) in rests.into_iter().flatten() {
            for stop in &stops {
                let rest = Rest { witness, zeros_from: zeros_from.max(200) };
                let is_newer = matches!(stop, Stop::NoChain { why, .. } if why.is_newer());
                let is_torn = matches!(stop, Stop::NoChain { .. }) && !is_newer;
                let is_zeros = rest.zeros_from == 200;
                let rows = [
                    (Row::A, matches!(stop, Stop::ClosingMark { .. })),
                    (Row::B, *stop == Stop::EndOfFile),
                    (Row::C, is_torn && witness.is_none() && is_zeros),
                    (Row::D, is_torn && witness.is_none() && !is_zeros),
                    (Row::E, is_torn && witness.is_some()),
                    (Row::F, is_newer),
                ];
                let (row, verdict) = decide_log(&scan_that_ends_at_200(stop.clone()), &rest);
                assert_eq!(rows_that_hold(&rows), [row], "{stop:?} {rest:?}");
                assert_eq!(verdict_kind(&verdict), kind_of_row(row), "{row:?}");
            }
        }
        let faults = [
            (HeaderFault::Unfinished, Row::G),
            (HeaderFault::Damaged(damage()), Row::H),
            (HeaderFault::Foreign(damage()), Row::I),
            (HeaderFault::Newer(FormatError::NewerVersion(2)), Row::J),
        ];
        for (fault, expected) in &faults {
            let (row, verdict) = decide_without_header(fault);
            assert_eq!(row, *expected, "{fault:?}");
            assert_eq!(verdict_kind(&verdict), kind_of_row(row), "{row:?}");
        }
    }

    fn scan_that_ends_at_200(stop: Stop) -> Scan {
        Scan {
            end: 200,
            groups: 1,
            records: 1,
            seqno_min: Seqno(1),
            seqno_max: Seqno(1),
            durable_through_max: 0,
            chain: Chain::start(1, 1),
            stop,
        }
    }

    fn rows_that_hold(rows: &[(Row, bool)]) -> Vec<Row> {
        rows.iter().filter(|(_, holds)| *holds).map(|(row, _)| *row).collect()
    }

    fn verdict_kind(verdict: &TailVerdict) -> &'static str {
        match verdict {
            TailVerdict::Sealed { .. } => "sealed",
            TailVerdict::Seal { dropped: 0, .. } => "seal",
            TailVerdict::Seal { .. } => "cut",
            TailVerdict::Corrupt { .. } => "corrupt",
            TailVerdict::Refuse { .. } => "refuse",
        }
    }

    fn kind_of_row(row: Row) -> &'static str {
        match row {
            Row::A => "sealed",
            Row::B | Row::C => "seal",
            Row::D => "cut",
            Row::E | Row::G | Row::H | Row::I => "corrupt",
            Row::F | Row::J => "refuse",
        }
    }

    #[test]
    fn row_a_a_closed_tail_is_sealed_as_it_is() {
        let file = TestFile::new(1).synced_group("a", "1").close();
        let (len, digest) = (file.end(), file.listed().digest);
        let sealed = TailVerdict::Sealed { len, digest };
        assert_eq!(tail_of(&file.bytes).verdict, sealed);
        let ahead = [&file.bytes[..], &[0; 4096]].concat();
        assert_eq!(tail_of(&ahead).verdict, sealed);
    }

    #[test]
    fn rows_b_and_c_a_log_that_ends_between_groups_is_sealed_there() {
        for file in [TestFile::new(1), TestFile::new(1).group(0, &TWO), {
            TestFile::new(1).group(0, &TWO).synced_group("c", "3")
        }] {
            let seal = TailVerdict::Seal { end: file.end(), dropped: 0 };
            let tail = tail_of(&file.bytes);
            assert_eq!((tail.row, &tail.verdict), (Row::B, &seal));
            assert_eq!(tail.log.unwrap().scan.chain, file.chain);
            for zeros in [1, 8, 47, 48, 4096] {
                let tail = tail_of(&[&file.bytes[..], &vec![0; zeros]].concat());
                assert_eq!((tail.row, &tail.verdict), (Row::C, &seal), "{zeros} zeros");
            }
        }
    }

    /// Torn at every byte, by the end of the file and by zeros that were written ahead.
    #[test]
    fn row_d_a_torn_last_group_is_cut() {
        let kept = TestFile::new(1).group(0, &TWO).synced_group("c", "3");
        let end = kept.bytes.len();
        let file = kept.group(0, &TWO);
        for torn_at in end + 1..file.bytes.len() {
            let mut bytes = file.bytes[..torn_at].to_vec();
            let tail = tail_of(&bytes);
            let TailVerdict::Seal { end: cut_at, dropped } = tail.verdict else {
                panic!("torn at {torn_at}: {:?}", tail.verdict)
            };
            assert_eq!(cut_at, end as u64, "torn at {torn_at}");
            assert!(dropped <= (torn_at - end) as u64, "torn at {torn_at}");
            assert_eq!(tail.log.unwrap().scan.records, 3);

            bytes.resize(file.bytes.len() + 4096, 0);
            let tail = tail_of(&bytes);
            // Torn within its last zeros of padding, the group is not torn at all.
            let is_whole = bytes.starts_with(&file.bytes);
            let expected = if is_whole { file.bytes.len() } else { end };
            let TailVerdict::Seal { end: cut_at, .. } = tail.verdict else {
                panic!("torn at {torn_at}, then zeros: {:?}", tail.verdict)
            };
            assert_eq!(cut_at, expected as u64, "torn at {torn_at}, then zeros");
        }
    }

    /// Without a claim of durability, pages that arrived out of order are no loss.
    #[test]
    fn row_d_a_later_group_that_claims_nothing_is_cut_with_the_torn_one() {
        let kept = TestFile::new(1).synced_group("a", "1");
        let (end, durable) = (kept.bytes.len(), kept.end());
        let file = kept.group(durable, &TWO).group(durable, &TWO).group(durable, &[("z", "26")]);
        let mut bytes = file.bytes.clone();
        bytes[end..file.groups[2]].fill(0);
        let tail = tail_of(&bytes);
        let dropped = (file.bytes.len() - end) as u64;
        assert!(matches!(tail.verdict, TailVerdict::Seal { dropped: found, .. }
            if found <= dropped && found > dropped - 8));
        assert_eq!((tail.row, tail.log.unwrap().scan.end), (Row::D, end as u64));
    }

    /// Every byte of a group that a later one calls durable, changed or lost.
    #[test]
    fn row_e_damage_below_a_durable_mark_is_corrupt() {
        let file = TestFile::new(1).synced_group("a", "1").group(0, &TWO);
        let damaged_group = file.groups[1]..file.bytes.len();
        let later = file.synced_group("c", "3");
        let closed = TestFile::new(1).synced_group("a", "1").group(0, &TWO).close();
        for file in [later, closed] {
            for index in damaged_group.clone() {
                let mut bytes = file.bytes.clone();
                bytes[index] ^= 0x40;
                let tail = tail_of(&bytes);
                let TailVerdict::Corrupt { offset, why } = tail.verdict else {
                    panic!("byte {index}: {:?}", tail.verdict)
                };
                assert_eq!(offset, damaged_group.start as u64, "byte {index}: {why}");
            }
            let mut bytes = file.bytes.clone();
            bytes[damaged_group.clone()].fill(0);
            assert_eq!(tail_of(&bytes).row, Row::E);
        }
    }

    /// Cutting what a newer build wrote would destroy it.
    #[test]
    fn row_f_a_record_of_a_newer_build_is_refused() {
        let file = TestFile::new(1).synced_group("a", "1");
        let mut record = file.last_group()[GROUP_HEADER_LEN..].to_vec();
        record[26] = 77;
        let crc = crc32c::crc32c_append(EXPECTED.identity().0, &record[4..32]);
        let offset = file.end() as u32 + GROUP_HEADER_LEN as u32;
        record[..4].copy_from_slice(&(crc ^ (offset / 8)).to_le_bytes());
        let mut payload_crc = PayloadCrc::default();
        payload_crc.push(crc);
        let header = file.chain.group(record.len() as u32, payload_crc, 1, 0);
        let file = file.append(&header, &record);
        let tail = tail_of(&file.bytes);
        let why = FormatError::Unsupported("a record kind");
        assert_eq!((tail.row, tail.verdict), (Row::F, TailVerdict::Refuse { why }));
    }

    /// Without it a store whose last file the device had lost would open as if nothing was in it.
    #[test]
    fn rows_g_and_h_a_header_that_is_missing_or_damaged_is_corrupt() {
        let file = TestFile::new(1).synced_group("a", "1");
        let mut zeroed = file.bytes.clone();
        zeroed[..DATA_HEADER_LEN].fill(0);
        let cut = (0..DATA_HEADER_LEN).map(|len| file.bytes[..len].to_vec());
        for bytes in cut.chain([zeroed, vec![0; 8192]]) {
            let tail = tail_of(&bytes);
            assert_eq!(tail.row, Row::G, "{} bytes", bytes.len());
            assert!(matches!(tail.verdict, TailVerdict::Corrupt { offset: 0, .. }));
        }
        for index in (0..DATA_HEADER_LEN).filter(|index| !matches!(index, 8 | 9)) {
            let mut bytes = file.bytes.clone();
            bytes[index] ^= 0x80;
            let tail = tail_of(&bytes);
            assert_eq!(tail.row, Row::H, "byte {index}");
            assert!(matches!(tail.verdict, TailVerdict::Corrupt { offset: 0, .. }));
        }
    }

    #[test]
    fn row_i_a_swapped_file_is_refused() {
        for other in [
            ExpectedFile { store: StoreId([9; 16]), ..EXPECTED },
            ExpectedFile { partition: PartitionId(4), ..EXPECTED },
            ExpectedFile { file: FileId(18), ..EXPECTED },
            ExpectedFile { hash_key: [9; 16], ..EXPECTED },
        ] {
            let file = TestFile::of(&other, 1).synced_group("a", "1").close();
            let tail = tail_of(&file.bytes);
            assert_eq!((tail.row, tail.log), (Row::I, None));
            assert!(matches!(tail.verdict, TailVerdict::Corrupt { offset: 0, .. }));
            let verdict = sealed_of(&file.bytes, &file.listed());
            assert!(matches!(verdict, SealedVerdict::Corrupt { offset: 0, .. }), "{verdict:?}");
            assert_eq!(sealed_ends_of(&file.bytes, &file.listed()), verdict);
        }
    }

    #[test]
    fn row_j_a_newer_file_is_refused() {
        let mut file = TestFile::new(1).synced_group("a", "1");
        file.bytes[8] = 2;
        let why = FormatError::NewerVersion(2);
        assert_eq!(tail_of(&file.bytes).verdict, TailVerdict::Refuse { why: why.clone() });
        assert_eq!(sealed_of(&file.bytes, &file.listed()), SealedVerdict::Refuse { why });
    }

    /// A group of the same length, in the very place where the next one would be.
    #[test]
    fn stale_groups_do_not_come_alive() {
        let kept = || TestFile::new(1).group(0, &[("a", "1")]);
        let end = kept().end();
        let dropped_at_most = kept().last_group().len() as u64;
        let older_open = TestFile::new(2).group(0, &[("a", "1")]).group(0, &[("a", "2")]);
        let older_place = kept().group(0, &[("a", "2")]).group(0, &[("a", "3")]);
        let same_place_other_past =
            TestFile::new(1).group(0, &[("a", "9")]).group(0, &[("a", "2")]);
        let repeated = kept();
        for stale in [older_open, older_place, same_place_other_past, repeated] {
            let bytes = [&kept().bytes[..], stale.last_group()].concat();
            let tail = tail_of(&bytes);
            let TailVerdict::Seal { end: cut_at, dropped } = tail.verdict else {
                panic!("{:?}", tail.verdict)
            };
            assert_eq!((tail.row, cut_at), (Row::D, end));
            assert!(dropped <= dropped_at_most);
        }
    }

    /// A store may hold backups of itself: copies of its own groups verify, and prove nothing.
    #[test]
    fn a_value_that_holds_the_file_itself_is_no_witness() {
        let before = TestFile::new(1).synced_group("a", "1").synced_group("b", "2");
        // As text, since values of these files are text: the copy is laid over the value's bytes.
        let copy = before.bytes.clone();
        let value = "-".repeat(copy.len() + 64);
        let end = before.bytes.len();
        let file = before.synced_group("backup", &value);
        let mut bytes = file.bytes.clone();
        let at = bytes.windows(8).position(|word| word == b"--------").unwrap().next_multiple_of(8);
        bytes[at..at + copy.len()].copy_from_slice(&copy);
        let tail = tail_of(&bytes);
        assert_eq!((tail.row, tail.log.unwrap().scan.end), (Row::D, end as u64));
    }

    #[test]
    fn a_sealed_file_is_what_is_listed_or_corrupt() {
        let file = TestFile::new(1).synced_group("a", "1").group(0, &TWO).close();
        let listed = file.listed();
        assert_eq!(sealed_of(&file.bytes, &listed), SealedVerdict::Intact);
        assert_eq!(sealed_ends_of(&file.bytes, &listed), SealedVerdict::Intact);

        for index in (0..file.bytes.len()).filter(|index| !matches!(index, 8 | 9)) {
            let mut bytes = file.bytes.clone();
            bytes[index] ^= 2;
            let verdict = sealed_of(&bytes, &listed);
            let group = file.groups.iter().rfind(|offset| **offset <= index).copied();
            let start = group.unwrap_or_default() as u64;
            let is_there =
                matches!(verdict, SealedVerdict::Corrupt { offset, .. } if offset == start);
            assert!(is_there, "byte {index}: {verdict:?}");
        }
        for len in 0..file.bytes.len() {
            let verdict = sealed_of(&file.bytes[..len], &listed);
            assert!(matches!(verdict, SealedVerdict::Corrupt { .. }), "{len} bytes: {verdict:?}");
            let verdict = sealed_ends_of(&file.bytes[..len], &listed);
            assert!(matches!(verdict, SealedVerdict::Corrupt { .. }), "{len} bytes: {verdict:?}");
        }
        let longer = [&file.bytes[..], &[0; 8]].concat();
        for listed in [listed, SealedFile { len: listed.len + 8, ..listed }] {
            let verdict = sealed_of(&longer, &listed);
            assert!(matches!(verdict, SealedVerdict::Corrupt { .. }), "{verdict:?}");
            let verdict = sealed_ends_of(&longer, &listed);
            assert!(matches!(verdict, SealedVerdict::Corrupt { .. }), "{verdict:?}");
        }
    }

    /// Random damage of every sort, to a file in every state: nothing panics, no record appears
    /// that was not written in this place, and none is skipped with a later one kept.
    #[test]
    fn random_damage_only_ever_shortens_the_log() {
        let open = TestFile::new(1).synced_group("a", "1").group(0, &TWO).synced_group("c", "3");
        let written = records_of(&open.bytes);
        let closed = TestFile::new(1).synced_group("a", "1").group(0, &TWO).synced_group("c", "3");
        for bytes in [open.bytes, closed.close().bytes] {
            for seed in 0..3000 {
                let mut damaged = bytes.clone();
                let mut rng = fastrand::Rng::with_seed(seed);
                for _ in 0..rng.usize(1..4) {
                    damage(&mut damaged, &mut rng);
                }
                let found = records_of(&damaged);
                assert!(written.starts_with(&found), "seed {seed}: {found:?}");
            }
        }
    }

    /// Sequence number, key and value of each record, in the order of visits.
    fn records_of(bytes: &[u8]) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
        let mut records = Vec::new();
        read_tail(&bytes, bytes.len() as u64, &EXPECTED, &mut |record| {
            records.push((record.header.seqno.0, record.key.to_vec(), record.value.to_vec()));
        })
        .unwrap();
        records
    }

    fn damage(bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
        let at = rng.usize(..=bytes.len());
        let len = rng.usize(..=bytes.len() - at).min(rng.usize(1..200));
        match rng.u8(..5) {
            0 => bytes.truncate(at),
            1 => bytes[at..at + len].fill(0),
            2 => rng.fill(&mut bytes[at..at + len]),
            3 => {
                let to = rng.usize(..=bytes.len() - len);
                bytes.copy_within(at..at + len, to);
            }
            _ => bytes.extend(std::iter::repeat_n(rng.u8(..2), len)),
        }
    }

    /// Without the digest, a file of the same id and length from a restored backup would pass.
    #[test]
    fn a_sealed_file_of_another_history_is_corrupt() {
        let listed = TestFile::new(1).synced_group("a", "1").close().listed();
        for other in [
            TestFile::new(1).synced_group("a", "2").close(),
            TestFile::new(2).synced_group("a", "1").close(),
        ] {
            assert_eq!(other.end(), listed.len);
            let verdict = sealed_of(&other.bytes, &listed);
            assert!(matches!(verdict, SealedVerdict::Corrupt { .. }), "{verdict:?}");
            let verdict = sealed_ends_of(&other.bytes, &listed);
            assert!(matches!(verdict, SealedVerdict::Corrupt { .. }), "{verdict:?}");
        }
        let file = TestFile::new(1).synced_group("a", "1").close();
        for listed in [
            SealedFile { records: 2, ..listed },
            SealedFile { seqno_min: Seqno(99), ..listed },
            SealedFile { seqno_max: Seqno(101), ..listed },
        ] {
            let verdict = sealed_of(&file.bytes, &listed);
            assert!(matches!(verdict, SealedVerdict::Corrupt { .. }), "{verdict:?}");
        }
    }

    #[test]
    fn a_sealed_file_under_the_header_of_another_open_is_corrupt() {
        let mut file = TestFile::new(1).synced_group("a", "1").close();
        file.bytes[..DATA_HEADER_LEN].copy_from_slice(&TestFile::new(2).bytes);
        for verdict in
            [sealed_of(&file.bytes, &file.listed()), sealed_ends_of(&file.bytes, &file.listed())]
        {
            assert!(matches!(verdict, SealedVerdict::Corrupt { .. }), "{verdict:?}");
        }
    }

    #[test]
    fn a_sealed_file_without_its_mark_is_corrupt() {
        let file = TestFile::new(1).synced_group("a", "1");
        let verdict = sealed_of(&file.bytes, &file.listed());
        let is_at_end =
            matches!(verdict, SealedVerdict::Corrupt { offset, .. } if offset == file.end());
        assert!(is_at_end, "{verdict:?}");
    }
}
