//! Collects the records of one data file and writes its hint.

use std::io;

use super::order::newest_by_key;
use super::run::Run;
use super::sealed::SealedSink;
use crate::len_code::{self, LEN_UNIT_BYTES, round_len};
use crate::limits;
use crate::log::codec::Codecs;
use crate::log::files::SealedFile;
use crate::log::format::FormatError;
use crate::log::format::data_header::{DATA_HEADER_LEN, DataHeader, FileIdentity, FileKind};
use crate::log::format::group::GROUP_HEADER_LEN;
use crate::log::format::hint::block::{BlockBuilder, HintEntry, RECORDS_START};
use crate::log::format::hint::filter::Filter;
use crate::log::format::hint::index::{Index, encode_count, encode_line};
use crate::log::format::hint::ranges::HintRange;
use crate::log::format::hint::{HintKey, HintSummary, HintTail, KeyRange, RecordTotals, Section};
use crate::log::format::record::{Codec, RecordHeader, RecordKind};
use crate::log::scanner::RecordAt;
use crate::planted::{Bug, is_planted};
use crate::ranges::RangeDel;
use crate::scratch;
use crate::types::{FileId, KeyHash, KeyId, KeyspaceId, Seqno};

/// Bytes handed out at once.
const PIECE_LEN: usize = 1 << 20;

/// Entries gathered before they are encoded.
const GATHER_COUNT: usize = 64;

/// Length of the keyspace in front of a key in the arena.
const KEYSPACE_LEN: usize = size_of::<u32>();

/// The records of one data file, in any order; becomes its hint.
///
/// Costs 40 bytes for each record, and its key with 4 bytes more.
#[derive(Default)]
pub(crate) struct HintBuilder {
    records: Vec<Pending>,
    /// For each record keyspace, key, and expiry and batch if it has them.
    arena: Vec<u8>,
    /// Range tombstones, whole.
    ranges: Vec<HintRange>,
    totals: RecordTotals,
    seqno_min: Seqno,
    seqno_max: Seqno,
    /// Where the record ends that ends last.
    records_end: u64,
    /// Records of batches, which have no entries.
    passed_over: u64,
    /// Keys of those that are intents: the filter has them, because a tombstone must outlive them (C1).
    intents: Vec<KeyHash>,
    /// What keeps the records from having a hint.
    obstacle: Option<&'static str>,
}

/// A record that was pushed.
pub(super) struct Pending {
    hash_bucket: u64,
    seqno: Seqno,
    /// Where in the arena its keyspace begins, and behind that its key.
    at: usize,
    hash_table: u32,
    offset_units: u32,
    len_code: u16,
    key_len: u16,
    codec: Codec,
    kind: RecordKind,
    /// Which of [`EXTRA_EXPIRES`] and [`EXTRA_BATCH`] follow its key in the arena, in this order.
    extras: u8,
}

const EXTRA_EXPIRES: u8 = 1;
const EXTRA_BATCH: u8 = 2;

// There is one for each record of a file that may have millions.
const _: () = assert!(size_of::<Pending>() <= 40);

impl Pending {
    /// Bytes that compare like (keyspace, key).
    #[inline]
    pub(super) fn sort_key<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.at..self.key_end()]
    }

    /// What is larger for the newer one of two records with the same key (K3).
    pub(super) fn age(&self) -> (Seqno, u32) {
        (self.seqno, self.offset_units)
    }

    fn key_end(&self) -> usize {
        self.at + KEYSPACE_LEN + usize::from(self.key_len)
    }

    fn hash(&self) -> KeyHash {
        // The route is the same for all keys of a partition, and no part of the filter.
        KeyHash { bucket: self.hash_bucket, table: self.hash_table, route: 0 }
    }

    fn entry<'a>(&self, arena: &'a [u8]) -> HintEntry<'a> {
        let (keyspace, key) = split_sort_key(self.sort_key(arena));
        let mut extras = arena[self.key_end()..].as_chunks().0.iter();
        let mut take = |extra: u8| {
            if self.extras & extra == 0 {
                None
            } else {
                extras.next().copied().map(u64::from_le_bytes)
            }
        };
        HintEntry {
            keyspace,
            key,
            kind: self.kind,
            seqno: self.seqno,
            offset: self.offset_units * LEN_UNIT_BYTES,
            len: len_code::decode(u32::from(self.len_code)),
            expires_at_ms: take(EXTRA_EXPIRES),
            codec: self.codec,
            batch: take(EXTRA_BATCH),
        }
    }
}

fn split_sort_key(sort_key: &[u8]) -> (KeyspaceId, &[u8]) {
    match sort_key.split_first_chunk() {
        Some((keyspace, key)) => (KeyspaceId(u32::from_le_bytes(*keyspace).swap_bytes()), key),
        None => (KeyspaceId::default(), sort_key),
    }
}

/// Bytes of a key with what stands beside it, for a first guess.
const KEY_LEN_GUESS: usize = 32;

impl HintBuilder {
    /// For about so many records.
    pub(crate) fn for_records(count: u64) -> HintBuilder {
        let count = count as usize;
        HintBuilder {
            records: scratch::vec(count),
            arena: scratch::vec(count * KEY_LEN_GUESS),
            ..HintBuilder::default()
        }
    }

    pub(crate) fn new() -> HintBuilder {
        HintBuilder::default()
    }

    /// Takes in a record at `offset` of the data file, `len` bytes long with its padding.
    ///
    /// # Panics
    /// If no record can be there: the hint would lead to other bytes.
    pub(crate) fn push(
        &mut self,
        hash: KeyHash,
        header: &RecordHeader,
        key: &[u8],
        offset: u64,
        len: u32,
    ) {
        assert!(offset.is_multiple_of(u64::from(LEN_UNIT_BYTES)), "L2");
        assert!(
            (RECORDS_START..limits::DATA_FILE_LEN_LIMIT).contains(&offset),
            "a record is behind the headers, and its offset fits 32 bits"
        );
        assert_eq!(len, round_len(len), "the length of a record has a code");
        assert_eq!(key.len(), usize::from(header.key_len), "the key is as long as its header says");
        if header.is_of_batch() {
            self.take_totals(header, offset, len);
            self.passed_over += 1;
            if header.key_len > 0 {
                self.intents.push(hash);
            }
            return;
        }
        let at = self.arena.len();
        // Its bytes compare like the number: the largest comes first.
        self.arena.extend_from_slice(&header.keyspace.0.swap_bytes().to_le_bytes());
        self.arena.extend_from_slice(key);
        let mut extras = 0;
        for (flag, extra) in [(EXTRA_EXPIRES, header.expires_at_ms), (EXTRA_BATCH, header.batch)] {
            if let Some(extra) = extra {
                self.arena.extend_from_slice(&extra.to_le_bytes());
                extras |= flag;
            }
        }
        self.take_totals(header, offset, len);
        self.records.push(Pending {
            hash_bucket: hash.bucket,
            seqno: header.seqno,
            at,
            hash_table: hash.table,
            offset_units: (offset / u64::from(LEN_UNIT_BYTES)) as u32,
            len_code: len_code::encode(len) as u16,
            key_len: header.key_len,
            codec: header.codec,
            kind: header.kind,
            extras,
        });
    }

    /// Takes in a range tombstone at `offset` of the data file.
    ///
    /// # Panics
    /// As [`push`](Self::push).
    pub(crate) fn push_range(
        &mut self,
        header: &RecordHeader,
        begin: &[u8],
        end: &[u8],
        offset: u64,
        len: u32,
    ) {
        assert!(
            (RECORDS_START..limits::DATA_FILE_LEN_LIMIT).contains(&offset),
            "a record is behind the headers, and its offset fits 32 bits"
        );
        self.take_totals(header, offset, len);
        self.totals.tombstone_records += 1;
        self.totals.tombstone_bytes += u64::from(len);
        self.ranges.push(HintRange {
            range: RangeDel::of(header, begin, end),
            offset: offset as u32,
            len,
        });
    }

    /// Takes in a record of whatever kind.
    pub(crate) fn push_record(&mut self, hash: KeyHash, record: &RecordAt<'_>) {
        let RecordAt { offset, len, header, key, value } = *record;
        if header.kind == RecordKind::RangeDel {
            self.push_range(header, key, value, offset, len);
        } else {
            self.push(hash, header, key, offset, len);
        }
    }

    fn take_totals(&mut self, header: &RecordHeader, offset: u64, len: u32) {
        let len = u64::from(len);
        let seqno = header.seqno;
        self.seqno_min = if self.record_count() == 0 { seqno } else { self.seqno_min.min(seqno) };
        self.seqno_max = self.seqno_max.max(seqno);
        self.records_end = self.records_end.max(offset + len);
        self.totals.record_bytes += len;
        if header.is_of_batch() {
            return;
        }
        if header.kind == RecordKind::Del {
            self.totals.tombstone_records += 1;
            self.totals.tombstone_bytes += len;
        }
        if header.key_len == 0 && header.kind != RecordKind::RangeDel {
            self.obstacle = Some("a record has an empty key");
        }
    }

    fn record_count(&self) -> u64 {
        self.pushed_count() + self.passed_over
    }

    /// Writes the hint of the data file with this header, in pieces of at most 1 MiB, in order.
    ///
    /// # Errors
    /// `InvalidInput` if the records that were pushed are not those of `sealed`, before anything is
    /// written; or what `out` returns.
    pub(crate) fn write(
        mut self,
        header: &DataHeader,
        sealed: &SealedFile,
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<HintSummary> {
        self.ranges.sort_unstable_by_key(|range| range.range.seqno);
        if let Some(obstacle) = self.obstacle.or_else(|| self.mismatch(header, sealed)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, obstacle));
        }
        let header = DataHeader { kind: FileKind::Hint, ..*header };
        let mut sink = Sink::new(header.identity(), out, PIECE_LEN);
        sink.write(&header.encode().0)?;
        let order = newest_by_key(&self.records, &self.arena);
        let (blocks, tombstone_entries) = self.write_blocks(&order, sealed.seqno_min, &mut sink)?;
        let index = write_index(&blocks, &mut sink)?;
        let filter = self.write_filter(order.len() as u64, &mut sink)?;
        let summary = HintSummary {
            sealed: *sealed,
            totals: self.totals,
            entries: order.len() as u64,
            tombstone_entries,
            has_intents: self.has_intents(),
            keys: self.key_range(&order),
            ranges: self.ranges,
        };
        let tail = HintTail { summary, index, filter };
        sink.write(&tail.encode(sink.identity))?;
        sink.finish()?;
        Ok(tail.summary)
    }

    /// The same entries, in memory: for records of a file that has no hint, or none yet.
    pub(crate) fn into_run(self, identity: FileIdentity) -> Result<Run, FormatError> {
        let sealed = SealedFile {
            id: FileId::default(),
            len: self.records_end + GROUP_HEADER_LEN as u64,
            digest: 0,
            records: self.records.len() as u64,
            seqno_min: self.seqno_min,
            seqno_max: self.seqno_max,
        };
        let order = newest_by_key(&self.records, &self.arena);
        let (mut blocks, mut index) = (Vec::new(), Vec::new());
        // Memory refuses nothing.
        let written = {
            let mut out = into_memory(&mut blocks);
            let mut sink = Sink::new(identity, &mut out, 0);
            let written = self.write_blocks(&order, sealed.seqno_min, &mut sink);
            written.and_then(|written| sink.finish().map(|()| written.0))
        };
        let written = written.map_err(|_| FormatError::invalid("memory refused a block"))?;
        {
            let mut out = into_memory(&mut index);
            let mut sink = Sink::new(identity, &mut out, 0);
            write_index(&written, &mut sink)
                .and_then(|_| sink.finish())
                .map_err(|_| FormatError::invalid("memory refused an index"))?;
        }
        let blocks_end = (DATA_HEADER_LEN + blocks.len()) as u64;
        let index = Index::decode(index, blocks_end, identity)?;
        blocks.shrink_to_fit();
        Ok(Run::new(identity, sealed, blocks, index, order.len()))
    }

    /// Number of records that were pushed.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Records that were pushed, range tombstones included.
    fn pushed_count(&self) -> u64 {
        (self.records.len() + self.ranges.len()) as u64
    }

    /// The range tombstones, in order of sequence numbers.
    pub(super) fn ranges(&self) -> Vec<HintRange> {
        let mut ranges = self.ranges.clone();
        ranges.sort_unstable_by_key(|range| range.range.seqno);
        ranges
    }

    /// As [`write`](Self::write), in encrypted pages if there is a key.
    pub(crate) fn write_sealed(
        self,
        codecs: &Codecs,
        header: &DataHeader,
        sealed: &SealedFile,
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<HintSummary> {
        if codecs.key_id() == KeyId::NONE || is_planted(Bug::HintInPlain) {
            return self.write(header, sealed, out);
        }
        let mut sink = SealedSink::begin(codecs, header, out);
        let summary = self.write(header, sealed, &mut |bytes| sink.write(bytes))?;
        sink.finish()?;
        Ok(summary)
    }

    /// What the hint would say, in order of keys (HI1).
    pub(super) fn entries(&self) -> impl Iterator<Item = HintEntry<'_>> {
        newest_by_key(&self.records, &self.arena)
            .into_iter()
            .map(|record| self.records[record].entry(&self.arena))
    }

    pub(super) fn hashes(&self) -> impl Iterator<Item = KeyHash> {
        self.records.iter().map(Pending::hash).chain(self.intents.iter().copied())
    }

    pub(super) fn has_intents(&self) -> bool {
        !self.intents.is_empty()
    }

    pub(super) fn totals(&self) -> RecordTotals {
        self.totals
    }

    /// In what the records are not those of `sealed`.
    fn mismatch(&self, header: &DataHeader, sealed: &SealedFile) -> Option<&'static str> {
        let records_end_max = sealed.len.saturating_sub(GROUP_HEADER_LEN as u64);
        if header.file != sealed.id {
            Some("the header is of another file than the one that was sealed")
        } else if self.record_count() != sealed.records {
            Some("the sealed file has another number of records")
        } else if (self.seqno_min, self.seqno_max) != (sealed.seqno_min, sealed.seqno_max) {
            Some("the sealed file has another range of sequence numbers")
        } else if !self.ranges.is_sorted_by(|a, b| a.range.seqno < b.range.seqno) {
            Some("two range tombstones have one sequence number")
        } else if self.records_end > records_end_max {
            Some("a record is behind the end of the sealed file")
        } else {
            None
        }
    }

    /// Writes the blocks, and says what they are and how many of their entries are tombstones.
    fn write_blocks(
        &self,
        order: &[usize],
        seqno_min: Seqno,
        sink: &mut Sink<'_>,
    ) -> io::Result<(Vec<WrittenBlock<'_>>, u64)> {
        let mut blocks = Vec::new();
        let mut block = BlockBuilder::new();
        let mut first = None;
        let mut tombstone_entries = 0;
        // Records lie in log order, so each is a cache miss or two. Gathering some before any is
        // encoded lets their misses overlap, and takes 30 to 45 % off the whole for random keys.
        let mut gathered = Vec::with_capacity(GATHER_COUNT);
        for records in order.chunks(GATHER_COUNT) {
            gathered.extend(records.iter().map(|record| self.records[*record].entry(&self.arena)));
            for entry in gathered.drain(..) {
                let HintEntry { keyspace, key, .. } = entry;
                first.get_or_insert((keyspace, key));
                block.push(&entry, seqno_min);
                tombstone_entries += u64::from(entry.kind == RecordKind::Del);
                if block.is_full() {
                    write_block(&mut block, &mut first, &mut blocks, sink)?;
                }
            }
        }
        write_block(&mut block, &mut first, &mut blocks, sink)?;
        Ok((blocks, tombstone_entries))
    }

    fn write_filter(&self, entries: u64, sink: &mut Sink<'_>) -> io::Result<Section> {
        let mut filter = Filter::for_entries(entries);
        // In log order, which is quicker; superseded records have the hash of their key's newest.
        for hash in self.hashes() {
            filter.insert(hash);
        }
        let offset = sink.begin_section();
        for block in filter.encode() {
            sink.write_covered(&block)?;
        }
        sink.end_section(offset)
    }

    fn key_range(&self, order: &[usize]) -> Option<KeyRange> {
        let key_of = |record: &usize| {
            let (keyspace, key) = split_sort_key(self.records[*record].sort_key(&self.arena));
            HintKey { keyspace, key: key.to_vec() }
        };
        Some(KeyRange { first: key_of(order.first()?), last: key_of(order.last()?) })
    }
}

/// A block that is in the file: the key of its first entry, and its length.
struct WrittenBlock<'a> {
    keyspace: KeyspaceId,
    key: &'a [u8],
    len: u32,
}

/// Writes the block that begins with `first` and is empty afterwards; none if there is no entry.
fn write_block<'a>(
    block: &mut BlockBuilder,
    first: &mut Option<(KeyspaceId, &'a [u8])>,
    blocks: &mut Vec<WrittenBlock<'a>>,
    sink: &mut Sink<'_>,
) -> io::Result<()> {
    let Some((keyspace, key)) = first.take() else { return Ok(()) };
    let bytes = block.finish(sink.identity);
    blocks.push(WrittenBlock { keyspace, key, len: bytes.len() as u32 });
    sink.write(bytes)?;
    block.clear();
    Ok(())
}

fn write_index(blocks: &[WrittenBlock<'_>], sink: &mut Sink<'_>) -> io::Result<Section> {
    let offset = sink.begin_section();
    sink.write_covered(&encode_count(blocks.len() as u32))?;
    for WrittenBlock { keyspace, key, len } in blocks {
        sink.write_covered(&encode_line(*len, *keyspace, key))?;
        sink.write_covered(key)?;
    }
    sink.end_section(offset)
}

fn into_memory(bytes: &mut Vec<u8>) -> impl FnMut(&[u8]) -> io::Result<()> + '_ {
    |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    }
}

/// Gathers what is written into pieces.
struct Sink<'o> {
    identity: FileIdentity,
    out: &'o mut dyn FnMut(&[u8]) -> io::Result<()>,
    piece: Vec<u8>,
    /// Bytes of the file up to here.
    len: u64,
    /// Checksum of the section that is being written.
    crc: u32,
}

impl<'o> Sink<'o> {
    fn new(
        identity: FileIdentity,
        out: &'o mut dyn FnMut(&[u8]) -> io::Result<()>,
        piece_len: usize,
    ) -> Sink<'o> {
        Sink { identity, out, piece: Vec::with_capacity(piece_len), len: 0, crc: 0 }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_LEN - self.piece.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == PIECE_LEN {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Where the section begins.
    fn begin_section(&mut self) -> u64 {
        self.crc = self.identity.0;
        self.len
    }

    fn write_covered(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.write(bytes)
    }

    fn end_section(&mut self, offset: u64) -> io::Result<Section> {
        self.write(&self.crc.to_le_bytes())?;
        Ok(Section { offset, len: self.len - offset })
    }

    fn finish(mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.out)(&self.piece)?;
        self.piece.clear();
        Ok(())
    }
}
