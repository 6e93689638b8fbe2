//! Whole data files: scanned, judged, salvaged, and turned into a hint.

use std::ops::ControlFlow;

use super::{IDENTITY, check_error, each_form};
use crate::limits;
use crate::log::files::SealedFile;
use crate::log::format::data_header::{
    DATA_HEADER_LEN, DataHeader, ExpectedFile, FileKind, forge_data_header,
};
use crate::log::format::group::{GROUP_HEADER_LEN, GroupHeader, PayloadCrc, forge_group_header};
use crate::log::format::record::{decode_record, forge_record};
use crate::log::hint_file::{HintBuilder, HintFile, disagreement};
use crate::log::in_memory::ShortReads;
use crate::log::salvage::{Extent, Piece, Salvage, salvage};
use crate::log::scanner::{Opening, ReadAt, RecordAt, Scan, Stop, read_opening};
use crate::log::tail::{SealedVerdict, TailVerdict, read_sealed, read_sealed_ends, read_tail};
use crate::route::KeyHasher;
use crate::types::{FileId, PartitionId, StoreId};

/// The file that a header is of.
pub(super) fn expected_of(header: &DataHeader) -> ExpectedFile {
    let DataHeader { kind, store, partition, file, hash_key, .. } = *header;
    ExpectedFile { kind, store, partition, file, hash_key }
}

const NO_FILE: ExpectedFile = ExpectedFile {
    kind: FileKind::Data,
    store: StoreId(*b"store of a fuzz!"),
    partition: PartitionId(3),
    file: FileId(17),
    hash_key: *b"hash key of fuzz",
};

pub(super) fn data_file(bytes: &[u8]) {
    each_form(bytes, forge_file, check_file);
}

/// Makes the checksums of one group after the other good, until something is no group.
pub(super) fn forge_file(bytes: &mut [u8]) {
    forge_data_header(bytes);
    let (identity, mut previous) = match DataHeader::decode(bytes) {
        Ok((header, crc)) => (header.identity(), crc),
        Err(_) => (IDENTITY, 0),
    };
    let mut rest = bytes.get_mut(DATA_HEADER_LEN..).unwrap_or_default();
    let mut start = DATA_HEADER_LEN as u64;
    loop {
        forge_group_header(rest, identity);
        let Ok((header, _)) = GroupHeader::decode(rest, identity) else { return };
        let (head, behind) = rest.split_at_mut(GROUP_HEADER_LEN);
        let payload_len = behind.len().min(header.payload_len as usize);
        let (mut payload, behind) = behind.split_at_mut(payload_len);
        let mut payload_crc = PayloadCrc::default();
        let mut place = identity.at(start + GROUP_HEADER_LEN as u64);
        start += (GROUP_HEADER_LEN + payload_len) as u64;
        while !payload.is_empty() {
            forge_record(payload, place);
            let Ok(record) = decode_record(payload, place) else { break };
            payload_crc.push(record.header_crc);
            let len = record.header.record_len() as usize;
            payload = &mut payload[len..];
            place = place.plus(len);
        }
        let header = GroupHeader { previous, payload_crc: payload_crc.get(), ..header };
        let (forged, crc) = header.encode(identity);
        head.copy_from_slice(&forged);
        previous = crc;
        rest = behind;
    }
}

/// A record as it was visited.
#[derive(Debug, PartialEq, Eq)]
struct Visited {
    offset: u64,
    seqno: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Visited {
    fn of(record: RecordAt<'_>) -> Visited {
        let (key, value) = (record.key.to_vec(), record.value.to_vec());
        Visited { offset: record.offset, seqno: record.header.seqno.0, key, value }
    }
}

fn check_file(bytes: &[u8]) {
    let expected = match DataHeader::decode(bytes) {
        Ok((header, _)) => expected_of(&header),
        Err(why) => {
            check_error(why, 0);
            NO_FILE
        }
    };
    let file_len = bytes.len() as u64;
    let mut records = Vec::new();
    let mut visit = |record: RecordAt<'_>| records.push(Visited::of(record));
    let tail = read_tail(&bytes, file_len, &expected, &mut visit).expect("memory can be read");
    for record in &records {
        let found =
            decode_record(&bytes[record.offset as usize..], expected.identity().at(record.offset))
                .expect("what was visited is a record");
        assert_eq!((found.key, found.value), (&record.key[..], &record.value[..]), "SC1");
    }
    match &tail.verdict {
        TailVerdict::Sealed { len, .. } => assert!(*len <= file_len),
        TailVerdict::Seal { end, dropped } => assert!(end + dropped <= file_len),
        TailVerdict::Corrupt { offset, .. } => assert!(*offset <= file_len),
        TailVerdict::Refuse { why } => assert!(why.is_newer()),
    }
    let Some(log) = tail.log else {
        assert!(records.is_empty(), "nothing is read behind a header that is none");
        check_salvage(bytes, &expected, None);
        return;
    };
    let scan = log.scan;
    assert_eq!(scan.records, records.len() as u64);
    assert!(scan.end <= file_len);
    if let TailVerdict::Seal { end, .. } = tail.verdict {
        assert!(end >= scan.durable_through_max, "TA2");
    }
    check_pieces(bytes, &expected, &scan);
    check_salvage(bytes, &expected, Some((&scan, &records)));
    if expected.kind == FileKind::Data {
        check_sealed(bytes, &expected, &log.header, &scan);
    }
}

/// Read in small pieces, with pauses, a file is the same.
fn check_pieces(bytes: &[u8], expected: &ExpectedFile, whole: &Scan) {
    let reader = ShortReads(bytes);
    let file_len = bytes.len() as u64;
    let opening = read_opening(&reader, file_len, expected).expect("memory can be read");
    let Opening::Sound { header, crc } = opening else { panic!("the header was sound") };
    let mut scan = Scan::start(crate::log::format::group::Chain::start(header.open_id, crc));
    let mut read_on = || {
        scan.read_on(&reader, file_len, expected.identity(), 1, &mut |_| {})
            .expect("memory can be read")
    };
    while !read_on() {}
    assert_eq!(scan, *whole);
}

/// Salvage finds every record that a scan finds, and calls nothing damaged in a file that has no damage.
fn check_salvage(bytes: &[u8], expected: &ExpectedFile, scanned: Option<(&Scan, &[Visited])>) {
    let file_len = bytes.len() as u64;
    for extent in [
        Extent::UNKNOWN,
        Extent::tail(scanned.map_or(0, |(scan, _)| scan.durable_through_max)),
        Extent::sealed(file_len),
        Extent::sealed(file_len / 2),
    ] {
        let (mut records, mut damage_count, mut damage_end) = (Vec::new(), 0, 0);
        let mut visit = |piece: Piece<'_>| {
            match piece {
                Piece::Group { offset, header, header_crc } => {
                    let found = GroupHeader::decode(&bytes[offset as usize..], expected.identity());
                    assert_eq!(found, Ok((*header, header_crc)), "a group is where it was found");
                }
                Piece::Record(record) => records.push(Visited::of(record)),
                Piece::Damage(damage) => {
                    assert!(damage.offset >= damage_end, "SV2: ranges of damage do not overlap");
                    damage_end = damage.offset + damage.len;
                    damage_count += 1;
                }
            }
            ControlFlow::Continue(())
        };
        let found: Salvage =
            salvage(&bytes, file_len, expected, extent, &mut visit).expect("memory can be read");
        assert_eq!((found.records, found.damage_count), (records.len() as u64, damage_count));
        for record in &records {
            let sound = decode_record(
                &bytes[record.offset as usize..],
                expected.identity().at(record.offset),
            );
            // All but the padding, which may be damaged.
            assert!(!matches!(sound, Err(ref why) if why.is_newer()), "SV1");
        }
        if let Some((scan, scanned)) = scanned {
            assert!(records.len() >= scanned.len(), "a scan finds more than salvage");
            assert_eq!(records[..scanned.len()], *scanned);
            let is_whole = scan.end == file_len && !matches!(scan.stop, Stop::NoChain { .. });
            if is_whole && extent.listed_len.is_none() {
                assert_eq!(records.len(), scanned.len());
                assert_eq!(damage_count, 0, "SV2");
            }
        }
    }
}

/// A file that closes itself is what its list entry says, and its hint says the same as its records.
fn check_sealed(bytes: &[u8], expected: &ExpectedFile, header: &DataHeader, scan: &Scan) {
    let Stop::ClosingMark { digest } = scan.stop else { return };
    let bytes = &bytes[..scan.end as usize];
    let sealed = SealedFile {
        id: header.file,
        len: scan.end,
        digest,
        records: scan.records,
        seqno_min: scan.seqno_min,
        seqno_max: scan.seqno_max,
    };
    let hasher = KeyHasher::new(&header.hash_key);
    let mut builder = HintBuilder::new();
    let mut again = HintBuilder::new();
    let mut visit = |record: RecordAt<'_>| {
        let hash = hasher.hash(record.header.keyspace, record.key);
        for builder in [&mut builder, &mut again] {
            builder.push(hash, record.header, record.key, record.offset, record.len);
        }
    };
    let verdict = read_sealed(&bytes, scan.end, expected, &sealed, &mut visit);
    assert_eq!(verdict.expect("memory can be read"), SealedVerdict::Intact);
    let verdict = read_sealed_ends(&bytes, scan.end, expected, &sealed);
    assert_eq!(verdict.expect("memory can be read"), SealedVerdict::Intact);

    let mut hint = Vec::new();
    let mut out = |piece: &[u8]| {
        hint.extend_from_slice(piece);
        Ok(())
    };
    if builder.write(header, &sealed, &mut out).is_err() {
        return; // Records with an empty key have no hint.
    }
    let expected = ExpectedFile { kind: FileKind::Hint, ..*expected };
    let hint = hint.as_slice();
    let reader: &dyn ReadAt = &hint;
    let opened = HintFile::open(reader, hint.len() as u64, &expected, &sealed);
    let opened = opened.expect("memory can be read").expect("a hint that was just written");
    let disagreement = disagreement(&opened, &again).expect("memory can be read");
    assert_eq!(disagreement, Ok(None));
    assert!(hint.len() as u64 <= limits::DATA_FILE_LEN_LIMIT);
}
