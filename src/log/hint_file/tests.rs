//! A hint that is written and read back: whole, damaged, forged and foreign.

use std::collections::BTreeMap;
use std::io;

use super::super::format::tests::{each_flip, hex};
use super::super::test_file::{EXPECTED, ShortReads};
use super::*;
use crate::len_code::round_len;
use crate::limits;
use crate::log::files::SealedFile;
use crate::log::format::FormatError;
use crate::log::format::data_header::{DATA_HEADER_LEN, DataHeader, ExpectedFile, FileKind};
use crate::log::format::group::GROUP_HEADER_LEN;
use crate::log::format::hint::block::{Block, HintEntry};
use crate::log::format::hint::ranges::HintRange;
use crate::log::format::hint::{HintSummary, TRAILER_LEN};
use crate::log::format::record::{Codec, Compression, Encryption, RecordHeader, RecordKind};
use crate::log::scanner::ReadAt;
use crate::ranges::RangeDel;
use crate::route::KeyHasher;
use crate::types::{FileId, KeyHash, KeyspaceId, PartitionId, Seqno, StoreId};

const HINT: ExpectedFile = ExpectedFile { kind: FileKind::Hint, ..EXPECTED };

/// An entry that owns its key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    kind: RecordKind,
    seqno: u64,
    offset: u32,
    len: u32,
    expires_at_ms: Option<u64>,
    codec: Codec,
    batch: Option<u64>,
}

/// What a hint has to say, by (keyspace, key).
type Entries = BTreeMap<(u32, Vec<u8>), Owned>;

/// The same, in order of visits.
type Visited = Vec<((u32, Vec<u8>), Owned)>;

/// The records of a data file that does not exist, and what its hint has to say.
struct Records {
    builder: HintBuilder,
    entries: Entries,
    sealed: SealedFile,
    record_bytes: u64,
    tombstones: (u64, u64),
}

impl Records {
    fn new() -> Records {
        let end = (DATA_HEADER_LEN + GROUP_HEADER_LEN) as u64;
        let (seqno_min, seqno_max) = (Seqno(0), Seqno(0));
        Records {
            builder: HintBuilder::new(),
            entries: Entries::new(),
            sealed: SealedFile {
                id: EXPECTED.file,
                len: end + GROUP_HEADER_LEN as u64,
                digest: 0xcafe_f00d,
                records: 0,
                seqno_min,
                seqno_max,
            },
            record_bytes: 0,
            tombstones: (0, 0),
        }
    }

    fn push(&mut self, header: RecordHeader, key: &[u8]) {
        let header = RecordHeader { key_len: key.len() as u16, ..header };
        let (offset, len) = (self.sealed.len - GROUP_HEADER_LEN as u64, header.record_len());
        self.builder.push(hash_of(header.keyspace, key), &header, key, offset, len);
        let RecordHeader { seqno, kind, keyspace, codec, expires_at_ms, batch, .. } = header;
        let owned =
            Owned { kind, seqno: seqno.0, offset: offset as u32, len, expires_at_ms, codec, batch };
        if !header.is_of_batch() {
            let entry = self.entries.entry((keyspace.0, key.to_vec())).or_insert(owned.clone());
            if entry.seqno < seqno.0 {
                *entry = owned;
            }
            if kind == RecordKind::Del {
                self.tombstones.0 += 1;
                self.tombstones.1 += u64::from(len);
            }
        }
        self.record_bytes += u64::from(len);
        let sealed = &mut self.sealed;
        sealed.seqno_min = if sealed.records == 0 { seqno } else { sealed.seqno_min.min(seqno) };
        sealed.seqno_max = sealed.seqno_max.max(seqno);
        sealed.records += 1;
        sealed.len += u64::from(len);
    }

    fn put(&mut self, seqno: u64, key: &str) {
        self.push(put_header(seqno), key.as_bytes());
    }

    fn write(self) -> Written {
        let Records { builder, entries, sealed, .. } = self;
        let mut bytes = Vec::new();
        let summary = builder
            .write(&data_header(&EXPECTED), &sealed, &mut |piece| {
                assert!(piece.len() <= 1 << 20);
                bytes.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        Written { bytes, sealed, entries, summary }
    }
}

struct Written {
    bytes: Vec<u8>,
    sealed: SealedFile,
    entries: Entries,
    summary: HintSummary,
}

fn data_header(expected: &ExpectedFile) -> DataHeader {
    let ExpectedFile { kind, store, partition, file, hash_key } = *expected;
    let (partition_count, map_epoch, open_id) = (4, 1, 0x1122_3344_5566_7788);
    let created_at_ms = 1_760_000_000_000;
    DataHeader {
        kind,
        store,
        partition,
        partition_count,
        file,
        map_epoch,
        hash_key,
        open_id,
        created_at_ms,
        key: crate::types::KeyId::NONE,
    }
}

fn put_header(seqno: u64) -> RecordHeader {
    RecordHeader { value_len: 100, body_crc: 7, ..RecordHeader::put(seqno, b"", b"") }
}

fn hash_of(keyspace: KeyspaceId, key: &[u8]) -> KeyHash {
    KeyHasher::new(&EXPECTED.hash_key).hash(keyspace, key)
}

fn owned(entry: &HintEntry<'_>) -> ((u32, Vec<u8>), Owned) {
    let HintEntry { keyspace, key, kind, seqno, offset, len, expires_at_ms, codec, batch } = *entry;
    let seqno = seqno.0;
    let owned = Owned { kind, seqno, offset, len, expires_at_ms, codec, batch };
    ((keyspace.0, key.to_vec()), owned)
}

/// Everything that can be read from a hint, or the first error of any part.
fn read_all(
    reader: &dyn ReadAt,
    file_len: u64,
    expected: &ExpectedFile,
    sealed: &SealedFile,
) -> Result<(HintSummary, Visited), FormatError> {
    let hint = HintFile::open(reader, file_len, expected, sealed).unwrap()?;
    let mut visited = Vec::new();
    hint.visit(&mut |entry| visited.push(owned(&entry))).unwrap()?;
    let filter = hint.filter().unwrap()?;
    for ((keyspace, key), _) in &visited {
        assert!(filter.may_contain(hash_of(KeyspaceId(*keyspace), key)));
    }
    let index = hint.index().unwrap()?;
    let by_block = read_blocks(&hint)?;
    assert_eq!(by_block, visited);
    assert_eq!(index.len() == 0, visited.is_empty());
    Ok((hint.summary().clone(), visited))
}

/// The entries by way of the index, each block entered at its last restart first.
fn read_blocks(hint: &HintFile<'_>) -> Result<Visited, FormatError> {
    let index = hint.index().unwrap()?;
    let mut decoder = hint.decoder();
    let mut buf = Vec::new();
    let mut backwards = Vec::new();
    for number in (0..index.len()).rev() {
        let at = index.get(number).unwrap();
        let block: Block<'_> = hint.block(at.place, &mut buf).unwrap()?;
        let mut end = block.entry_count();
        for restart in (0..block.restart_count()).rev() {
            decoder.reset();
            let mut entries = block.entries_from(restart)?;
            let mut forwards = Vec::new();
            while restart * 16 + forwards.len() < end {
                forwards.push(owned(&entries.next(&mut decoder).unwrap()?));
            }
            end = restart * 16;
            backwards.extend(forwards.into_iter().rev());
        }
        let ((keyspace, key), _) = backwards.last().unwrap();
        assert_eq!((*keyspace, &key[..]), (at.keyspace.0, at.key));
        assert_eq!(index.find(at.keyspace, at.key), Some(number));
    }
    backwards.reverse();
    Ok(backwards)
}

impl Written {
    fn read(&self, bytes: &[u8]) -> Result<(HintSummary, Visited), FormatError> {
        read_all(&bytes, bytes.len() as u64, &HINT, &self.sealed)
    }

    fn check(&self) {
        let (summary, visited) = self.read(&self.bytes).unwrap();
        assert_eq!(summary, self.summary);
        assert_eq!(summary.entries, visited.len() as u64);
        assert!(visited.iter().map(|(key, _)| key).is_sorted_by(|a, b| a < b));
        assert_eq!(visited.into_iter().collect::<Entries>(), self.entries);
    }
}

/// Two versions of one key, a tombstone, keyspaces, every flag, and keys that share a prefix.
fn small() -> Records {
    let mut records = Records::new();
    records.put(1000, "user:1");
    records.put(1003, "user:2");
    records.put(1001, "user:10");
    records.push(RecordHeader { kind: RecordKind::Del, ..put_header(1004) }, b"user:2");
    records.push(
        RecordHeader {
            keyspace: KeyspaceId(300),
            kind: RecordKind::RangeDel,
            codec: Codec {
                compression: Compression::Zstd,
                encryption: Encryption::XChaCha20Poly1305,
            },
            expires_at_ms: Some(0x0102_0304_0506_0708),
            batch: Some(0x1112_1314_1516_1718),
            ..put_header(1200)
        },
        b"user",
    );
    records
}

/// Header; one block; index; filter; keys; trailer.
const GOLDEN: &str = "
    524341534b000000 0100020080000000
    73746f7265206f66 2061207465737421
    0300000004000000 1100000000000000
    0100000000000000 68617368206b6579
    206f662074657374 8877665544332211
    00c02cc899010000 0000000000000000
    0000000000000000 0000000000000000
    0000000000000000 00000000f28e712a

    5844984e50000000 0400000000060112
    5800000000757365 723a3106010112e8
    0000000130050102 1230010000043204
    007b1378010000c8 01ac020807060504
    0302011817161514 131211120c000000

    0100000050000000 0000000006007573
    65723a3127ca3bce

    0800001080000400 0000800042000400
    0008040000040000 0000880000024000
    0800400000000480 1120000000000100
    0001600000800000 0400000003200000
    ef79bea7

    757365723a317573 6572

    12f3ea0e0df0feca 1100000000000000
    b803000000000000 0500000000000000
    e803000000000000 b004000000000000
    d802000000000000 0100000000000000
    9000000000000000 0400000000000000
    0100000000000000 d000000000000000
    1800000000000000 e800000000000000
    4400000000000000 000000002c010000
    0600040077f9957a 0000000000000000
    a000000001000000 524348494e540000";

#[test]
fn golden_bytes_of_version_1() {
    let written = small().write();
    assert_eq!(written.bytes, hex(GOLDEN));
    written.check();
}

/// Breaks if a range tombstone takes the place of a record of the key that it begins with, or the other way
/// round, or two of one begin take each other's.
#[test]
fn range_tombstones_stand_beside_the_entries() {
    let mut records = Records::new();
    records.put(3, "a");
    let mut ranges = Vec::new();
    for (seqno, begin, end) in [(7, "a", "c"), (5, "a", ""), (9, "b", "bb")] {
        let (begin, end) = (begin.as_bytes(), end.as_bytes());
        let header = RecordHeader {
            kind: RecordKind::RangeDel,
            key_len: begin.len() as u16,
            value_len: end.len() as u32,
            ..put_header(seqno)
        };
        let (offset, len) = (records.sealed.len - GROUP_HEADER_LEN as u64, header.record_len());
        records.builder.push_range(&header, begin, end, offset, len);
        let range = RangeDel::of(&header, begin, end);
        ranges.push(HintRange { range, offset: offset as u32, len });
        records.sealed.len += u64::from(len);
        records.sealed.records += 1;
        records.sealed.seqno_max = records.sealed.seqno_max.max(header.seqno);
    }
    records.put(8, "a");
    let written = records.write();
    ranges.sort_by_key(|range| range.range.seqno);
    assert_eq!(written.summary.ranges, ranges);
    assert_eq!((written.summary.entries, written.summary.totals.tombstone_records), (1, 3));
    written.check();
}

#[test]
fn the_newest_record_of_a_key_is_kept_and_totals_are_of_all() {
    let records = small();
    let (record_bytes, tombstones) = (records.record_bytes, records.tombstones);
    let written = records.write();
    let HintSummary { sealed, totals, entries, tombstone_entries, keys, .. } = &written.summary;
    assert_eq!((sealed.records, *entries, *tombstone_entries), (5, 4, 1));
    assert_eq!(totals.record_bytes, record_bytes);
    assert_eq!((totals.tombstone_records, totals.tombstone_bytes), tombstones);
    let keys = keys.as_ref().unwrap();
    assert_eq!((keys.first.keyspace, &keys.first.key[..]), (KeyspaceId(0), b"user:1".as_slice()));
    assert_eq!((keys.last.keyspace, &keys.last.key[..]), (KeyspaceId(300), b"user".as_slice()));

    // A tombstone that a newer put supersedes is no entry, and still in the totals.
    let mut records = Records::new();
    records.push(RecordHeader { kind: RecordKind::Del, ..put_header(5) }, b"k");
    records.put(6, "k");
    records.put(4, "k");
    let written = records.write();
    written.check();
    assert_eq!((written.summary.entries, written.summary.tombstone_entries), (1, 0));
    assert_eq!(written.summary.totals.tombstone_records, 1);
}

#[test]
fn a_data_file_without_records_has_a_hint() {
    let written = Records::new().write();
    written.check();
    assert_eq!((written.summary.entries, &written.summary.keys), (0, &None));
    each_flip(&written.bytes, |index, bytes| {
        assert!(written.read(bytes).is_err(), "byte {index}");
    });
}

/// No byte is outside of every check, or damage there would go unseen (H1).
#[test]
fn every_flip_is_refused() {
    let written = small().write();
    each_flip(&written.bytes, |index, bytes| {
        assert!(written.read(bytes).is_err(), "byte {index}");
    });
}

#[test]
fn every_truncation_and_every_appended_byte_is_refused() {
    let written = small().write();
    for len in 0..written.bytes.len() {
        let cut = &written.bytes[..len];
        assert!(written.read(cut).is_err(), "{len} bytes");
        // Cut while it is read.
        let read = read_all(&cut, written.bytes.len() as u64, &HINT, &written.sealed);
        assert!(read.is_err(), "{len} bytes of a file that was longer");
        let mut torn = written.bytes.clone();
        torn[len..].fill(0);
        // The last two bytes are zero anyway.
        assert!(written.read(&torn).is_err() || torn == written.bytes, "{len} bytes and zeros");
    }
    let longer = [&written.bytes[..], &[0]].concat();
    assert!(written.read(&longer).is_err());
}

#[test]
fn a_disk_that_reads_a_few_bytes_at_a_time_gives_the_same() {
    let written = small().write();
    let len = written.bytes.len() as u64;
    let slow = read_all(&ShortReads(&written.bytes), len, &HINT, &written.sealed);
    assert_eq!(slow, written.read(&written.bytes));
}

#[test]
fn failed_reads_are_not_damage() {
    struct FailingFrom<'a>(&'a [u8], u64);
    impl ReadAt for FailingFrom<'_> {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            if offset >= self.1 {
                return Err(io::Error::from_raw_os_error(5));
            }
            self.0.read_at(buf, offset)
        }
    }
    let written = small().write();
    let len = written.bytes.len() as u64;
    let failing = FailingFrom(&written.bytes, 0);
    assert!(HintFile::open(&failing, len, &HINT, &written.sealed).is_err());
    let whole = written.bytes.as_slice();
    let open = HintFile::open(&whole, len, &HINT, &written.sealed).unwrap().unwrap();
    assert!(open.visit(&mut |_| ()).is_ok() && open.filter().is_ok() && open.index().is_ok());
}

/// H1, HI2: the bytes are sound, and would lead to records that are not there.
#[test]
fn hi2_a_hint_of_another_file_is_refused() {
    let written = small().write();
    let len = written.bytes.len() as u64;
    let bytes = written.bytes.as_slice();
    for other in [
        EXPECTED,
        ExpectedFile { store: StoreId([7; 16]), ..HINT },
        ExpectedFile { partition: PartitionId(4), ..HINT },
        ExpectedFile { file: FileId(18), ..HINT },
        ExpectedFile { hash_key: [7; 16], ..HINT },
    ] {
        let error = HintFile::open(&bytes, len, &other, &written.sealed).unwrap().err().unwrap();
        assert!(matches!(error, FormatError::Foreign(_)), "{error}");
        // Under the header that is expected, the rest gives it away.
        if other.kind == FileKind::Hint && other.hash_key == HINT.hash_key {
            let mut moved = written.bytes.clone();
            moved[..DATA_HEADER_LEN].copy_from_slice(&data_header(&other).encode().0);
            let error = read_all(&moved.as_slice(), len, &other, &written.sealed).unwrap_err();
            assert!(matches!(error, FormatError::Checksum { .. }), "{error}");
        }
    }
    let sealed = written.sealed;
    for stale in [
        SealedFile { id: FileId(18), ..sealed },
        SealedFile { len: sealed.len + 8, ..sealed },
        SealedFile { digest: sealed.digest ^ 1, ..sealed },
        SealedFile { records: sealed.records + 1, ..sealed },
        SealedFile { seqno_min: Seqno(999), ..sealed },
        SealedFile { seqno_max: Seqno(1201), ..sealed },
    ] {
        let error = HintFile::open(&bytes, len, &HINT, &stale).unwrap().err().unwrap();
        assert_eq!(error, FormatError::Stale);
    }
}

#[test]
fn a_newer_version_is_not_damage() {
    let written = small().write();
    for at in [8, written.bytes.len() - 12] {
        let mut bytes = written.bytes.clone();
        bytes[at] = 2;
        assert_eq!(written.read(&bytes), Err(FormatError::NewerVersion(2)));
    }
}

/// The hint with the checksums of all its parts made good, as far as their lengths can be followed.
fn sealed_again(mut bytes: Vec<u8>) -> Vec<u8> {
    let trailer = bytes.len() - TRAILER_LEN;
    let part = |bytes: &[u8], at| {
        let field: [u8; 8] = bytes[trailer + at..][..8].try_into().unwrap();
        usize::try_from(u64::from_le_bytes(field)).unwrap().min(trailer)
    };
    let (index, filter) = (part(&bytes, 88), part(&bytes, 104));
    let filter_end = filter.saturating_add(part(&bytes, 112)).min(trailer);
    let mut block = DATA_HEADER_LEN;
    while block + 8 <= index {
        let len: [u8; 4] = bytes[block + 4..block + 8].try_into().unwrap();
        let end = block + u32::from_le_bytes(len) as usize;
        if end <= block + 8 || end > index {
            break;
        }
        seal(&mut bytes, block + 4..end, block);
        block = end;
    }
    for (start, end) in [(index, filter), (filter, filter_end)] {
        if start + 4 <= end {
            seal(&mut bytes, start..end - 4, end - 4);
        }
    }
    seal(&mut bytes, filter_end..trailer, trailer + 132);
    let end = bytes.len();
    seal(&mut bytes, trailer + 4..end, trailer);
    bytes
}

/// Puts the checksum of a range at an offset.
fn seal(bytes: &mut [u8], covered: std::ops::Range<usize>, at: usize) {
    let crc = crc32c::crc32c_append(EXPECTED.identity().0, &bytes[covered]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Without the checksums' protection every check of content stands alone. Nothing may panic, and
/// what passes may differ only where the hint alone knows the truth: it never leads out of the file.
#[test]
fn forged_bytes_under_good_checksums_never_lead_outside() {
    let written = small().write();
    assert_eq!(sealed_again(written.bytes.clone()), written.bytes);
    let sealed = written.sealed;
    let mut refused = 0;
    for index in DATA_HEADER_LEN..written.bytes.len() {
        for byte in 0..=u8::MAX {
            let mut bytes = written.bytes.clone();
            bytes[index] = byte;
            let bytes = sealed_again(bytes);
            let (reader, len) = (bytes.as_slice(), bytes.len() as u64);
            let Ok(hint) = HintFile::open(&reader, len, &HINT, &sealed).unwrap() else {
                refused += 1;
                continue;
            };
            let mut before = None;
            let read = hint.visit(&mut |entry| {
                let range = sealed.seqno_min..=sealed.seqno_max;
                assert!(range.contains(&entry.seqno), "byte {index} is {byte}");
                assert!(entry.offset >= 176, "byte {index} is {byte}");
                let end = u64::from(entry.offset) + u64::from(entry.len);
                assert!(end <= sealed.len - 48, "byte {index} is {byte}");
                assert!(!entry.key.is_empty() && entry.key.len() <= limits::KEY_LEN_MAX);
                let key = Some((entry.keyspace, entry.key.to_vec()));
                assert!(before < key, "byte {index} is {byte}");
                before = key;
            });
            let parts = [
                read.unwrap().is_ok(),
                hint.index().unwrap().is_ok(),
                hint.filter().unwrap().is_ok(),
            ];
            refused += usize::from(parts.contains(&false));
        }
    }
    // Most of what passes are keys, expiries and bits of the filter, which nothing else knows.
    let forged = (written.bytes.len() - DATA_HEADER_LEN) * 256;
    assert!(refused > forged / 2, "{refused} of {forged}");
}

/// L1: the lengths of index, filter and keys are believed only as far as the file goes.
#[test]
fn forged_lengths_are_not_allocated() {
    let written = small().write();
    let trailer = written.bytes.len() - TRAILER_LEN;
    for at in [72, 80, 88, 96, 104, 112] {
        let original = u64::from_le_bytes(written.bytes[trailer + at..][..8].try_into().unwrap());
        for forged in [0, 1, 127, original + 1, original - 1, 1 << 32, 1 << 62, u64::MAX] {
            let mut bytes = written.bytes.clone();
            bytes[trailer + at..][..8].copy_from_slice(&forged.to_le_bytes());
            let bytes = sealed_again(bytes);
            let is_refused = written.read(&bytes).is_err();
            // One tombstone more is for the file's totals to refuse, one less shows when it is read.
            assert!(is_refused || forged == original, "{at}: {forged}");
        }
    }
}

fn random_key(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut key = match rng.u8(..8) {
        0 => b"user:profile:".to_vec(),
        1 => b"user:".to_vec(),
        2 => vec![0; rng.usize(..20)],
        3 => vec![0xff; rng.usize(..20)],
        _ => Vec::new(),
    };
    let len = if rng.u8(..20) == 0 { rng.usize(..3000) } else { rng.usize(..12) };
    let alphabet = if rng.bool() { 0..=255 } else { 0..=1 };
    key.extend(std::iter::repeat_with(|| rng.u8(alphabet.clone())).take(len));
    if key.is_empty() {
        key.push(rng.u8(..));
    }
    key
}

fn random_header(rng: &mut fastrand::Rng, seqno: u64) -> RecordHeader {
    let kinds = [
        RecordKind::Put,
        RecordKind::Put,
        RecordKind::Del,
        RecordKind::RangeDel,
        RecordKind::BatchDecision,
        RecordKind::BatchResolve,
    ];
    let codecs = [Compression::None, Compression::Lz4, Compression::Zstd];
    RecordHeader {
        kind: kinds[rng.usize(..kinds.len())],
        keyspace: KeyspaceId([0, 0, 0, 1, 127, 128, rng.u32(..300), u32::MAX][rng.usize(..8)]),
        codec: Codec { compression: codecs[rng.usize(..3)], ..Codec::default() },
        expires_at_ms: (rng.u8(..4) == 0).then(|| rng.u64(..)),
        batch: (rng.u8(..4) == 0).then(|| rng.u64(..)),
        raw_len: (rng.u8(..4) == 0).then_some(9),
        value_len: if rng.u8(..50) == 0 { rng.u32(..1 << 20) } else { rng.u32(..300) },
        ..put_header(seqno)
    }
}

/// Keys of every shape, against a map.
#[test]
fn random_records_come_back() {
    let seed = std::env::var("RINGCASK_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or(0..40, |seed| seed..seed + 1) {
        println!("RINGCASK_SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let count = rng.usize(1..2000);
        let mut seqnos: Vec<u64> = (0..count as u64)
            .map(|index| ((seed % 1000) << 40) + index * rng.u64(1..3).pow(3) * 1000 + index)
            .collect();
        seqnos.sort_unstable();
        seqnos.dedup();
        rng.shuffle(&mut seqnos);
        let pool: Vec<Vec<u8>> = (0..rng.usize(1..2000)).map(|_| random_key(&mut rng)).collect();
        let mut records = Records::new();
        for seqno in seqnos {
            let header = random_header(&mut rng, seqno);
            records.push(header, &pool[rng.usize(..pool.len())]);
        }
        records.write().check();
    }
}

/// Prefixes that only the last byte ends, one key that is the prefix of the next, both limits of
/// the length: where bytes of keys are compared in steps, each step has an edge.
#[test]
fn keys_of_awkward_lengths_come_back() {
    let mut records = Records::new();
    let longest = vec![b'k'; limits::KEY_LEN_MAX];
    let mut seqno = 0;
    let mut push = |key: &[u8]| {
        seqno += 1;
        records.push(put_header(seqno), key);
    };
    for len in (1..40).chain([255, 256, 4096, limits::KEY_LEN_MAX - 1, limits::KEY_LEN_MAX]) {
        push(&longest[..len]);
        push(&[&longest[..len - 1], &[0]].concat());
        push(&[&longest[..len - 1], &[255]].concat());
        push(&vec![0; len]);
    }
    for byte in 0..=u8::MAX {
        push(&[byte]);
    }
    let written = records.write();
    assert!(written.entries.len() > 350);
    written.check();
}

#[test]
fn a_hint_of_many_pieces_and_blocks_comes_back() {
    let mut records = Records::new();
    for seqno in 0..120_000_u64 {
        let key = seqno.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 100_000;
        records.put(seqno + 1, &format!("{key:05}:a key with a tail that is shared by no other"));
    }
    let written = records.write();
    assert!(written.bytes.len() > 2 << 20);
    written.check();
}

/// FI1 on the filter as it comes out of a file.
#[test]
fn the_filter_denies_nothing_and_grants_little() {
    let mut records = Records::new();
    for seqno in 0..20_000 {
        records.put(seqno, &format!("key {seqno}"));
    }
    let written = records.write();
    let bytes = written.bytes.as_slice();
    let hint = HintFile::open(&bytes, bytes.len() as u64, &HINT, &written.sealed).unwrap().unwrap();
    let filter = hint.filter().unwrap().unwrap();
    let granted = |keyspace, range: std::ops::Range<u32>| {
        let hashes = range.map(|n| hash_of(KeyspaceId(keyspace), format!("key {n}").as_bytes()));
        hashes.filter(|hash| filter.may_contain(*hash)).count()
    };
    assert_eq!(granted(0, 0..20_000), 20_000);
    assert!(granted(0, 100_000..200_000) < 1000);
    assert!(granted(1, 0..100_000) < 1000);
}

/// Written, it would be refused, or worse.
#[test]
fn records_that_are_not_those_of_the_sealed_file_get_no_hint() {
    let sealed = small().sealed;
    let header = data_header(&EXPECTED);
    let write = |records: Records, header: &DataHeader, sealed: &SealedFile| {
        let result = records.builder.write(header, sealed, &mut |_| panic!("nothing is written"));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    };
    for other in [
        SealedFile { id: FileId(18), ..sealed },
        SealedFile { records: 4, ..sealed },
        SealedFile { seqno_min: Seqno(999), ..sealed },
        SealedFile { seqno_max: Seqno(1201), ..sealed },
        SealedFile { len: sealed.len - 8, ..sealed },
    ] {
        write(small(), &header, &other);
    }
    let mut records = small();
    records.push(put_header(1100), b"");
    let sealed = records.sealed;
    write(records, &header, &sealed);
}

#[test]
fn a_failed_write_ends_it() {
    let records = small();
    let sealed = records.sealed;
    let full = || io::Error::from_raw_os_error(28);
    let result = records.builder.write(&data_header(&EXPECTED), &sealed, &mut |_| Err(full()));
    assert_eq!(result.unwrap_err().raw_os_error(), Some(28));
}

#[test]
fn lengths_in_entries_are_those_of_records() {
    let mut records = Records::new();
    for (seqno, value_len) in
        [0, 1, 400, 1 << 12, 1 << 20, limits::VALUE_LEN_MAX as u32].into_iter().enumerate()
    {
        let header = RecordHeader { value_len, ..put_header(seqno as u64) };
        records.push(header, &[seqno as u8 + 1]);
    }
    let written = records.write();
    written.check();
    assert!(written.entries.values().all(|entry| entry.len == round_len(entry.len)));
}

/// What verify says of the hint that `written` is, beside a data file with these records.
fn disagreement_with(written: &Written, records: &Records) -> Option<(&'static str, u64)> {
    let reader = written.bytes.as_slice();
    // Only the records differ, as if the hint had been made of others by mistake.
    let hint = HintFile::open(&reader, written.bytes.len() as u64, &HINT, &written.sealed);
    let found = disagreement(&hint.unwrap().unwrap(), &records.builder).unwrap().unwrap();
    found.map(|wrong| (wrong.what, wrong.place.offset))
}

#[test]
fn a_hint_is_held_against_the_records_of_its_data_file() {
    let of = |records: &[(u64, &str)]| {
        let mut built = Records::new();
        for (seqno, key) in records {
            built.put(*seqno, key);
        }
        built
    };
    let base = [(1, "b"), (2, "d"), (3, "d")];
    let written = of(&base).write();
    assert_eq!(disagreement_with(&written, &of(&base)), None);
    let stale = "the entry is not of the newest record of the key";
    let invented = "the data file has no record of the key";
    let block = DATA_HEADER_LEN as u64;
    for (records, what) in [
        (vec![(1, "b"), (3, "d"), (2, "d")], stale),
        (vec![(4, "b"), (2, "d"), (3, "d")], stale),
        (vec![(1, "b"), (2, "d"), (3, "d"), (4, "d")], stale),
        (vec![(1, "b"), (2, "b"), (3, "b")], stale),
        (vec![(1, "b")], invented),
        (vec![], invented),
        (vec![(1, "c"), (2, "d"), (3, "d")], invented),
        (vec![(1, "a"), (2, "b"), (3, "d")], "the key has a record and no entry"),
        (vec![(1, "b"), (2, "d"), (3, "d"), (4, "e")], "keys of the data file have no entry"),
    ] {
        assert_eq!(disagreement_with(&written, &of(&records)), Some((what, block)), "{records:?}");
    }
}

/// Compaction asks whether there are intents, which no entry stands for.
#[test]
fn a_hint_says_whether_there_are_intents() {
    let with = |header: RecordHeader, key: &[u8]| {
        let mut records = Records::new();
        records.put(1, "b");
        records.push(header, key);
        records
    };
    // Of the same length, so that nothing else differs.
    let of_batch = RecordHeader { batch: Some(7), ..put_header(2) };
    let intent = || with(RecordHeader { value_len: 7, ..of_batch }, b"b");
    let resolve = RecordHeader { kind: RecordKind::BatchResolve, value_len: 8, ..of_batch };
    let resolve = || with(resolve, b"");
    for (records, has_intents) in [(intent(), true), (resolve(), false)] {
        let written = records.write();
        written.check();
        assert_eq!((written.summary.has_intents, written.summary.entries), (has_intents, 1));
        let (right, wrong) =
            if has_intents { (intent(), resolve()) } else { (resolve(), intent()) };
        assert_eq!(disagreement_with(&written, &right), None);
        let (what, _) = disagreement_with(&written, &wrong).unwrap();
        assert_eq!(what, "whether there are intents of batches is not what the data file says");
    }
}

/// Compaction asks the filter which tombstones may go; an index that leads astray hides keys from a scan.
#[test]
fn a_filter_or_an_index_that_does_not_fit_the_entries_is_found() {
    let mut records = Records::new();
    (0..2000).for_each(|n| records.put(n, &format!("key {n:05}")));
    let mut again = Records::new();
    (0..2000).for_each(|n| again.put(n, &format!("key {n:05}")));
    let mut written = records.write();
    assert_eq!(disagreement_with(&written, &again), None);
    let reader = written.bytes.as_slice();
    let len = written.bytes.len() as u64;
    let sections =
        HintFile::open(&reader, len, &HINT, &written.sealed).unwrap().unwrap().sections();
    let reseal = |bytes: &mut [u8], offset: u64, len: u64| {
        let end = (offset + len) as usize - size_of::<u32>();
        let crc = crc32c::crc32c_append(HINT.identity().0, &bytes[offset as usize..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
    };
    let sound = written.bytes.clone();
    let filter = sections.filter;
    written.bytes[filter.offset as usize..][..64].fill(0);
    reseal(&mut written.bytes, filter.offset, filter.len);
    let denies = "the filter denies a key of the data file";
    assert_eq!(disagreement_with(&written, &again), Some((denies, filter.offset)));

    written.bytes = sound;
    let index = sections.index;
    // The last byte of the last block's first key: still in order.
    let at = (index.offset + index.len) as usize - size_of::<u32>() - 1;
    written.bytes[at] ^= 1;
    reseal(&mut written.bytes, index.offset, index.len);
    let (what, place) = disagreement_with(&written, &again).unwrap();
    assert_eq!(what, "the block does not begin with the key that the index says");
    assert!(place > DATA_HEADER_LEN as u64 && place < index.offset);
}
