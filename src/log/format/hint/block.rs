//! Block: entries of a hint that are read and verified together.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | CRC-32C, seeded with the file's identity, of bytes 4 to the block's end |
//! | 4 | 4 | length of the block |
//! | 8 | 2 | number of entries |
//! | 10 | 2 | zero |
//! | 12 | | entries |
//! | at the end | 4 each | where every sixteenth entry begins, from the first, as offsets in the block |
//!
//! | size | field of an entry |
//! | --- | --- |
//! | varint | number of bytes that the key shares with the one before; 0 in every sixteenth entry |
//! | varint | number of bytes of the key that follow |
//! | 1 | kind as in a record in bits 0 to 2; flags in bits 3 to 6: 8 expiry, 16 batch, 32 codec, 64 keyspace |
//! | 5 | length code of the record in bits 0 to 9, its offset in units of 8 bytes in bits 10 to 38 |
//! | varint | sequence number, counted from the file's smallest |
//! | varint | keyspace, if flagged: it is another than that of the entry before, or, in every sixteenth, than 0 |
//! | 8 | expiry in milliseconds since 1970, if flagged |
//! | 8 | batch id, if flagged |
//! | 1 | codec as in a record, if flagged: it is not 0 |
//! | | bytes of the key that are not shared |
//!
//! A *varint* has seven bits in each byte, lowest first, and the eighth set in all but the last; it
//! is as short as it can be. Every sixteenth entry can be understood without those before it, so a
//! block can be entered in the middle and walked backwards.
//!
//! ## Invariants
//! - **BL1** An entry is looked at only after the checksum over the whole block held. Its length is
//!   used before; it is at most [`BLOCK_LEN_MAX`], and only slices.
//! - **BL2** An entry's record lies between the headers and the closing mark of the data file, is long
//!   enough for its key, and has a sequence number of the file's range.
//! - **BL3** There is one way to write a block: shared bytes are as many as there are, varints are
//!   short, fields that say nothing are absent, no byte is left over.

use super::super::data_header::{DATA_HEADER_LEN, FileIdentity};
use super::super::group::GROUP_HEADER_LEN;
use super::super::record::{Codec, RECORD_HEADER_LEN, RecordKind};
use super::super::{FormatError, check_crc, put, u16_at, u32_at};
use crate::len_code::{self, LEN_CODE_BITS, LEN_MAX, LEN_UNIT_BYTES};
use crate::limits;
use crate::log::files::SealedFile;
use crate::types::{KeyspaceId, Seqno};

/// A block is closed when it has this many bytes. Hints of 2, 4, 8 and 16 KiB blocks load equally
/// fast; larger ones make the index shorter, smaller ones make a seek decode less.
pub(in crate::log) const BLOCK_LEN_TARGET: usize = 8 << 10;

/// Longest block: one entry short of the target, then the longest entry.
pub(in crate::log) const BLOCK_LEN_MAX: usize = 128 << 10;

/// Length of what is in front of the entries.
pub(in crate::log) const BLOCK_HEAD_LEN: usize = 12;

/// Entries from one whole key to the next.
const RESTART_INTERVAL: usize = 16;
const RESTART_LEN: usize = size_of::<u32>();

const AT_CRC: usize = 0;
const AT_BLOCK_LEN: usize = 4;
const AT_ENTRY_COUNT: usize = 8;
const AT_RESERVED: usize = 10;

const KIND_MASK: u8 = 0b111;
const FLAG_EXPIRES: u8 = 8;
const FLAG_BATCH: u8 = 16;
const FLAG_CODEC: u8 = 32;
const FLAG_KEYSPACE: u8 = 64;
const FLAG_RESERVED: u8 = 128;

const PLACE_LEN: usize = 5;
const VARINT_LEN_MAX: usize = 10;

/// Shared and rest length, flags, place, sequence number, keyspace, expiry, batch, codec; and the key.
const ENTRY_LEN_MAX: usize =
    3 + 3 + 1 + PLACE_LEN + VARINT_LEN_MAX + 5 + 8 + 8 + 1 + limits::KEY_LEN_MAX;

/// An entry without optional fields, of a key with one byte.
const ENTRY_LEN_MIN: usize = 1 + 1 + 1 + PLACE_LEN + 1 + 1;

const _: () = assert!(AT_RESERVED + size_of::<u16>() == BLOCK_HEAD_LEN);
const _: () = assert!(2 * BLOCK_LEN_TARGET + ENTRY_LEN_MAX <= BLOCK_LEN_MAX);
const _: () = assert!(BLOCK_LEN_TARGET / ENTRY_LEN_MIN < u16::MAX as usize);
const _: () = assert!(RecordKind::BatchResolve as u8 <= KIND_MASK);
// Offset and length code fit their five bytes.
const _: () = assert!(
    (limits::DATA_FILE_LEN_LIMIT / LEN_UNIT_BYTES as u64) << LEN_CODE_BITS <= 1 << (8 * PLACE_LEN)
);

/// Where the newest record of a key is (HI1), and what else loading it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HintEntry<'a> {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: &'a [u8],
    pub(crate) kind: RecordKind,
    pub(crate) seqno: Seqno,
    /// Where the record begins in the data file.
    pub(crate) offset: u32,
    /// Length of the record in bytes, padding included.
    pub(crate) len: u32,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) codec: Codec,
    /// The batch whose intent the record is.
    pub(crate) batch: Option<u64>,
}

/// Encodes one block after the other.
pub(in crate::log) struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    entry_count: usize,
    /// Of the entry before.
    keyspace: KeyspaceId,
    key: Vec<u8>,
}

impl BlockBuilder {
    pub(in crate::log) fn new() -> BlockBuilder {
        BlockBuilder {
            bytes: vec![0; BLOCK_HEAD_LEN],
            restarts: Vec::new(),
            entry_count: 0,
            keyspace: KeyspaceId::default(),
            key: Vec::new(),
        }
    }

    pub(in crate::log) fn is_full(&self) -> bool {
        self.bytes.len() + self.restarts.len() * RESTART_LEN >= BLOCK_LEN_TARGET
    }

    /// Appends the entry that follows the last one in order of keys.
    pub(in crate::log) fn push(&mut self, entry: &HintEntry<'_>, seqno_min: Seqno) {
        if self.entry_count.is_multiple_of(RESTART_INTERVAL) {
            self.restarts.push(self.bytes.len() as u32);
            self.keyspace = KeyspaceId::default();
            self.key.clear();
        }
        self.entry_count += 1;
        let shared = shared_len(&self.key, entry.key);
        let rest = &entry.key[shared..];
        let mut flags = entry.kind as u8;
        for (flag, is_set) in [
            (FLAG_EXPIRES, entry.expires_at_ms.is_some()),
            (FLAG_BATCH, entry.batch.is_some()),
            (FLAG_CODEC, entry.codec != Codec::default()),
            (FLAG_KEYSPACE, entry.keyspace != self.keyspace),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        let place = u64::from(entry.offset / LEN_UNIT_BYTES) << LEN_CODE_BITS
            | u64::from(len_code::encode(entry.len));

        let bytes = &mut self.bytes;
        put_varint(bytes, shared as u64);
        put_varint(bytes, rest.len() as u64);
        bytes.push(flags);
        bytes.extend_from_slice(&place.to_le_bytes()[..PLACE_LEN]);
        put_varint(bytes, entry.seqno.0 - seqno_min.0);
        if flags & FLAG_KEYSPACE != 0 {
            put_varint(bytes, u64::from(entry.keyspace.0));
        }
        if let Some(expires_at_ms) = entry.expires_at_ms {
            bytes.extend_from_slice(&expires_at_ms.to_le_bytes());
        }
        if let Some(batch) = entry.batch {
            bytes.extend_from_slice(&batch.to_le_bytes());
        }
        if flags & FLAG_CODEC != 0 {
            bytes.push(entry.codec.to_byte());
        }
        bytes.extend_from_slice(rest);
        self.keyspace = entry.keyspace;
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
    }

    /// The bytes of the block, which is closed by it; [`clear`](Self::clear) begins the next one.
    pub(in crate::log) fn finish(&mut self, identity: FileIdentity) -> &[u8] {
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        assert!(self.bytes.len() <= BLOCK_LEN_MAX, "BL1");
        let block_len = self.bytes.len() as u32;
        put(&mut self.bytes, AT_BLOCK_LEN, block_len.to_le_bytes());
        put(&mut self.bytes, AT_ENTRY_COUNT, (self.entry_count as u16).to_le_bytes());
        let crc = crc32c::crc32c_append(identity.0, &self.bytes[AT_BLOCK_LEN..]);
        put(&mut self.bytes, AT_CRC, crc.to_le_bytes());
        &self.bytes
    }

    pub(in crate::log) fn clear(&mut self) {
        self.bytes.truncate(BLOCK_HEAD_LEN);
        self.restarts.clear();
        self.entry_count = 0;
    }
}

/// A block whose checksum held (BL1); what its entries say is checked as they are decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    bytes: &'a [u8],
    entry_count: usize,
    /// Where the entries end and the restarts begin.
    entries_end: usize,
}

impl<'a> Block<'a> {
    /// Length of the block that begins with `head`, as far as it can be known without a checksum:
    /// at most [`BLOCK_LEN_MAX`].
    pub(in crate::log) fn len_of(head: &[u8]) -> Result<usize, FormatError> {
        let block_len = u32_at(head, AT_BLOCK_LEN)? as usize;
        if (BLOCK_HEAD_LEN..=BLOCK_LEN_MAX).contains(&block_len) {
            Ok(block_len)
        } else {
            Err(FormatError::invalid("a hint block has a length that none can have"))
        }
    }

    /// The block that `bytes`, all of them, are.
    pub(crate) fn decode(
        bytes: &'a [u8],
        identity: FileIdentity,
    ) -> Result<Block<'a>, FormatError> {
        if Block::len_of(bytes)? != bytes.len() {
            return Err(FormatError::invalid("a hint block is not as long as it says"));
        }
        let covered = bytes.get(AT_BLOCK_LEN..).unwrap_or_default();
        let found = crc32c::crc32c_append(identity.0, covered);
        check_crc("hint block", u32_at(bytes, AT_CRC)?, found)?;
        if u16_at(bytes, AT_RESERVED)? != 0 {
            return Err(FormatError::Unsupported("a reserved field of a hint block"));
        }
        let entry_count = usize::from(u16_at(bytes, AT_ENTRY_COUNT)?);
        let restarts_len = entry_count.div_ceil(RESTART_INTERVAL) * RESTART_LEN;
        match bytes.len().checked_sub(restarts_len) {
            Some(entries_end) if entry_count > 0 && entries_end > BLOCK_HEAD_LEN => {
                Ok(Block { bytes, entry_count, entries_end })
            }
            _ => Err(FormatError::invalid("a hint block has no room for its entries")),
        }
    }

    #[cfg_attr(
        not(any(test, feature = "cli")),
        expect(dead_code, reason = "the command prints it")
    )]
    pub(crate) fn entry_count(&self) -> usize {
        self.entry_count
    }

    /// Number of entries at which the block can be entered.
    pub(crate) fn restart_count(&self) -> usize {
        self.entry_count.div_ceil(RESTART_INTERVAL)
    }

    /// The entries from a restart on; with a decoder that was [reset](EntryDecoder::reset), or that
    /// has decoded those before.
    pub(crate) fn entries_from(&self, restart: usize) -> Result<Entries<'a>, FormatError> {
        let at = self.restart_at(restart)?;
        if at >= BLOCK_HEAD_LEN && at < self.entries_end {
            Ok(Entries { block: *self, at, index: restart * RESTART_INTERVAL })
        } else {
            Err(RESTART_WRONG)
        }
    }

    fn restart_at(&self, restart: usize) -> Result<usize, FormatError> {
        Ok(u32_at(self.bytes, self.entries_end + restart * RESTART_LEN)? as usize)
    }
}

/// Makes the checksum of a made-up block good.
#[cfg(feature = "sim")]
pub(in crate::log) fn forge_block(bytes: &mut [u8], identity: FileIdentity) {
    let Some(covered) = bytes.get(AT_BLOCK_LEN..) else { return };
    let crc = crc32c::crc32c_append(identity.0, covered);
    put(bytes, AT_CRC, crc.to_le_bytes());
}

const RESTART_WRONG: FormatError = FormatError::Invalid(std::borrow::Cow::Borrowed(
    "a hint block says wrongly where keys are whole",
));

/// Entries of one block that are still to be decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries<'a> {
    block: Block<'a>,
    at: usize,
    /// Number of the next entry in the block.
    index: usize,
}

impl Entries<'_> {
    /// The next entry, `None` behind the last.
    #[expect(
        clippy::inline_always,
        reason = "returned through memory it makes opening a third slower"
    )]
    #[inline(always)]
    pub(crate) fn next<'d>(
        &mut self,
        decoder: &'d mut EntryDecoder,
    ) -> Option<Result<HintEntry<'d>, FormatError>> {
        if self.index < self.block.entry_count { Some(self.decode_next(decoder)) } else { None }
    }

    #[expect(
        clippy::inline_always,
        reason = "returned through memory it makes opening a third slower"
    )]
    #[inline(always)]
    fn decode_next<'d>(
        &mut self,
        decoder: &'d mut EntryDecoder,
    ) -> Result<HintEntry<'d>, FormatError> {
        let is_whole = self.index.is_multiple_of(RESTART_INTERVAL);
        if is_whole && self.block.restart_at(self.index / RESTART_INTERVAL)? != self.at {
            return Err(RESTART_WRONG);
        }
        let entries = self.block.bytes.get(self.at..self.block.entries_end).unwrap_or_default();
        let mut fields = Fields { rest: entries };
        let entry = decoder.decode(&mut fields, is_whole)?;
        self.at = self.block.entries_end - fields.rest.len();
        self.index += 1;
        if self.index == self.block.entry_count && !fields.rest.is_empty() {
            return Err(FormatError::invalid("bytes are left over behind the entries of a block"));
        }
        Ok(entry)
    }
}

/// A block with its bytes, and an entry in it that is next.
#[derive(Debug)]
pub(crate) struct HeldBlock {
    bytes: Vec<u8>,
    entry_count: usize,
    entries_end: usize,
    at: usize,
    index: usize,
}

impl HeldBlock {
    /// The block that `bytes`, all of them, are, before its first entry.
    pub(crate) fn decode(bytes: Vec<u8>, identity: FileIdentity) -> Result<HeldBlock, FormatError> {
        let Block { entry_count, entries_end, .. } = Block::decode(&bytes, identity)?;
        let mut block = HeldBlock { bytes, entry_count, entries_end, at: 0, index: 0 };
        block.jump(0)?;
        Ok(block)
    }

    fn block(&self) -> Block<'_> {
        let HeldBlock { ref bytes, entry_count, entries_end, .. } = *self;
        Block { bytes, entry_count, entries_end }
    }

    /// Number of entries at which the block can be entered.
    pub(crate) fn restart_count(&self) -> usize {
        self.block().restart_count()
    }

    /// Goes to a restart; the decoder has to be [reset](EntryDecoder::reset).
    pub(crate) fn jump(&mut self, restart: usize) -> Result<(), FormatError> {
        let Entries { at, index, .. } = self.block().entries_from(restart)?;
        (self.at, self.index) = (at, index);
        Ok(())
    }

    /// The next entry, `None` behind the last.
    #[inline]
    pub(crate) fn next<'d>(
        &mut self,
        decoder: &'d mut EntryDecoder,
    ) -> Option<Result<HintEntry<'d>, FormatError>> {
        let mut entries = Entries { block: self.block(), at: self.at, index: self.index };
        let entry = entries.next(decoder);
        let Entries { at, index, .. } = entries;
        (self.at, self.index) = (at, index);
        entry
    }

    /// Whether the next entry is one at which the block can be entered.
    pub(crate) fn is_at_restart(&self) -> bool {
        self.index.is_multiple_of(RESTART_INTERVAL)
    }

    /// The buffer, to be filled with another block.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Decodes entries in order, and refuses those that a hint of its data file cannot have (BL2, BL3).
///
/// The key is put together in one buffer. What came before an entry, in the same block or the one
/// before, has to be smaller.
#[derive(Clone, Debug)]
pub(crate) struct EntryDecoder {
    seqno_min: Seqno,
    /// From the smallest to the largest sequence number.
    seqno_span: u64,
    /// Where the last record of the data file ends, at the latest.
    records_end: u64,
    /// Of the entry before.
    keyspace: KeyspaceId,
    /// Of the entry before, empty if there is none: no key is, so that one is in front of all.
    key: Vec<u8>,
}

/// Where the first record of a data file begins, at the earliest.
pub(crate) const RECORDS_START: u64 = (DATA_HEADER_LEN + GROUP_HEADER_LEN) as u64;

impl EntryDecoder {
    pub(crate) fn new(sealed: &SealedFile) -> EntryDecoder {
        let len = sealed.len.min(limits::DATA_FILE_LEN_LIMIT);
        EntryDecoder {
            seqno_min: sealed.seqno_min,
            seqno_span: sealed.seqno_max.0.saturating_sub(sealed.seqno_min.0),
            records_end: len.saturating_sub(GROUP_HEADER_LEN as u64),
            keyspace: KeyspaceId::default(),
            key: Vec::new(),
        }
    }

    /// Forgets the entry before, to go on at any restart.
    pub(crate) fn reset(&mut self) {
        self.keyspace = KeyspaceId::default();
        self.key.clear();
    }

    /// Keyspace and key of the entry that was decoded last.
    pub(crate) fn key(&self) -> (KeyspaceId, &[u8]) {
        (self.keyspace, &self.key)
    }

    #[expect(
        clippy::inline_always,
        reason = "returned through memory it makes opening a third slower"
    )]
    #[inline(always)]
    fn decode(
        &mut self,
        fields: &mut Fields<'_>,
        is_whole: bool,
    ) -> Result<HintEntry<'_>, FormatError> {
        let shared = fields.varint()?;
        let rest_len = fields.varint()?;
        let [flags] = fields.array()?;
        let mut place = [0; 8];
        put(&mut place, 0, fields.array::<PLACE_LEN>()?);
        let place = u64::from_le_bytes(place);
        let seqno = fields.varint()?;
        let before = if is_whole { KeyspaceId::default() } else { self.keyspace };
        let keyspace = if flags & FLAG_KEYSPACE == 0 { before } else { fields.keyspace(before)? };
        let expires_at_ms = if flags & FLAG_EXPIRES == 0 { None } else { Some(fields.u64()?) };
        let batch = if flags & FLAG_BATCH == 0 { None } else { Some(fields.u64()?) };
        let codec = if flags & FLAG_CODEC == 0 { Codec::default() } else { fields.codec()? };
        if flags & FLAG_RESERVED != 0 {
            return Err(FormatError::Unsupported("a flag of a hint entry"));
        }
        let kind = RecordKind::from_byte(flags & KIND_MASK)
            .ok_or(FormatError::Unsupported("a record kind in a hint"))?;

        let rest = fields.bytes(rest_len)?;
        let key_len = self.push_key(keyspace, shared, rest, is_whole)?;
        let (offset, len) = self.check_place(place, key_len)?;
        if seqno > self.seqno_span {
            return Err(FormatError::invalid("a hint entry has a sequence number of another file"));
        }
        let seqno = Seqno(self.seqno_min.0 + seqno);
        let key = &self.key;
        Ok(HintEntry { keyspace, key, kind, seqno, offset, len, expires_at_ms, codec, batch })
    }

    /// Makes the next key of the one before, and returns its length.
    #[inline]
    fn push_key(
        &mut self,
        keyspace: KeyspaceId,
        shared: u64,
        rest: &[u8],
        is_whole: bool,
    ) -> Result<usize, FormatError> {
        let shared_max = if is_whole { 0 } else { self.key.len() };
        let shared = match usize::try_from(shared) {
            Ok(shared) if shared <= shared_max => shared,
            _ => return Err(FormatError::invalid("a hint entry shares more than there is")),
        };
        let key_len = shared + rest.len();
        if key_len == 0 || key_len > limits::KEY_LEN_MAX {
            return Err(FormatError::invalid("a hint entry has a key of impossible length"));
        }
        let is_larger = if keyspace != self.keyspace {
            keyspace > self.keyspace
        } else if is_whole {
            rest > self.key.as_slice()
        } else {
            // More would be shared if the next bytes were equal (BL3), so they decide.
            rest.first() > self.key.get(shared)
        };
        if !is_larger {
            return Err(FormatError::invalid("the keys of a hint are out of order (HI1)"));
        }
        self.keyspace = keyspace;
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
        Ok(key_len)
    }

    /// Offset and length of a record that can be in the data file (BL2).
    #[inline]
    fn check_place(&self, place: u64, key_len: usize) -> Result<(u32, u32), FormatError> {
        const CODE_MASK: u64 = (1 << LEN_CODE_BITS) - 1;
        const CODE_MAX: u32 = len_code::encode(LEN_MAX);
        let code = (place & CODE_MASK) as u32;
        let offset = (place >> LEN_CODE_BITS) * u64::from(LEN_UNIT_BYTES);
        let len = if code <= CODE_MAX { len_code::decode(code) } else { 0 };
        if (len as usize) < RECORD_HEADER_LEN + key_len {
            Err(FormatError::invalid("a hint entry has a record too short for its key"))
        } else if offset < RECORDS_START || offset + u64::from(len) > self.records_end {
            Err(FormatError::invalid("a hint entry has a record outside of its data file"))
        } else {
            // The data file ends before 4 GiB, so nothing is lost.
            Ok((offset as u32, len))
        }
    }
}

/// The bytes of entries, field by field.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or(ENTRY_CUT)?;
        self.rest = rest;
        Ok(*field)
    }

    #[inline]
    fn bytes(&mut self, len: u64) -> Result<&'a [u8], FormatError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let (field, rest) = self.rest.split_at_checked(len).ok_or(ENTRY_CUT)?;
        self.rest = rest;
        Ok(field)
    }

    #[inline]
    fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, FormatError> {
        match self.rest.split_first() {
            Some((byte, rest)) if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.varint_long(),
        }
    }

    fn varint_long(&mut self) -> Result<u64, FormatError> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().take(VARINT_LEN_MAX).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                let is_overflow = index == VARINT_LEN_MAX - 1 && *byte > 1;
                if *byte == 0 || is_overflow {
                    break;
                }
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(FormatError::invalid("a number in a hint entry has no end"))
    }

    /// A keyspace that is another than `before`.
    fn keyspace(&mut self, before: KeyspaceId) -> Result<KeyspaceId, FormatError> {
        match u32::try_from(self.varint()?) {
            Ok(keyspace) if keyspace != before.0 => Ok(KeyspaceId(keyspace)),
            _ => {
                Err(FormatError::invalid("a hint entry names a keyspace that is none, or no other"))
            }
        }
    }

    /// A codec that is not the default.
    fn codec(&mut self) -> Result<Codec, FormatError> {
        let [byte] = self.array()?;
        match Codec::from_byte(byte)? {
            codec if codec != Codec::default() => Ok(codec),
            _ => Err(FormatError::invalid("a hint entry names the codec that need not be named")),
        }
    }
}

const ENTRY_CUT: FormatError =
    FormatError::Invalid(std::borrow::Cow::Borrowed("a hint block ends inside of an entry"));

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Number of bytes that both begin with.
#[inline]
pub(in crate::log) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    // Eight at a time: keys that share a long prefix are the usual case.
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let shared = 8 * words.take_while(|(a, b)| a == b).count();
    let rest = a.iter().zip(b).skip(shared);
    shared + rest.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{each_flip, hex};
    use super::*;
    use crate::types::FileId;

    const IDENTITY: FileIdentity = FileIdentity(0x210d_8c8e);

    const SEALED: SealedFile = SealedFile {
        id: FileId(17),
        len: 4096,
        digest: 0xcafe_f00d,
        records: 20,
        seqno_min: Seqno(1000),
        seqno_max: Seqno(1200),
    };

    /// `user:1` and `user:2`, the second a tombstone of keyspace 7 with an expiry.
    const GOLDEN: &str = "
        4749b3ca 33000000 0200 0000
        00 06 01 0558000000 00 757365723a31
        05 01 4a 076c000000 c801 07 0807060504030201 32
        0c000000";

    fn entry(key: &[u8]) -> HintEntry<'_> {
        HintEntry {
            keyspace: KeyspaceId(0),
            key,
            kind: RecordKind::Put,
            seqno: Seqno(1000),
            offset: 176,
            len: 40,
            expires_at_ms: None,
            codec: Codec::default(),
            batch: None,
        }
    }

    fn encoded(entries: &[HintEntry<'_>]) -> Vec<u8> {
        let mut block = BlockBuilder::new();
        for entry in entries {
            block.push(entry, SEALED.seqno_min);
        }
        block.finish(IDENTITY).to_vec()
    }

    /// Decodes a block whole; the first error of any entry.
    fn decode(bytes: &[u8], check: &mut dyn FnMut(HintEntry<'_>)) -> Result<(), FormatError> {
        let mut decoder = EntryDecoder::new(&SEALED);
        let mut entries = Block::decode(bytes, IDENTITY)?.entries_from(0)?;
        while let Some(entry) = entries.next(&mut decoder) {
            check(entry?);
        }
        Ok(())
    }

    /// A block of these entries, with one restart, under a good checksum.
    fn forged(entry_count: u16, entries: &str) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK_HEAD_LEN];
        bytes.extend_from_slice(&hex(entries));
        bytes.extend_from_slice(&(BLOCK_HEAD_LEN as u32).to_le_bytes());
        let block_len = bytes.len() as u32;
        put(&mut bytes, AT_BLOCK_LEN, block_len.to_le_bytes());
        put(&mut bytes, AT_ENTRY_COUNT, entry_count.to_le_bytes());
        sealed(bytes)
    }

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = crc32c::crc32c_append(IDENTITY.0, &bytes[AT_BLOCK_LEN..]);
        put(&mut bytes, AT_CRC, crc.to_le_bytes());
        bytes
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let second = HintEntry {
            keyspace: KeyspaceId(7),
            kind: RecordKind::Del,
            seqno: Seqno(1200),
            offset: 216,
            len: 56,
            expires_at_ms: Some(0x0102_0304_0506_0708),
            ..entry(b"user:2")
        };
        let expected = [entry(b"user:1"), second];
        let bytes = encoded(&expected);
        assert_eq!(bytes, hex(GOLDEN));
        let mut expected = expected.iter();
        decode(&bytes, &mut |entry| assert_eq!(Some(&entry), expected.next())).unwrap();
        assert_eq!(expected.next(), None);
    }

    #[test]
    fn every_flip_and_every_truncation_is_refused() {
        let bytes = hex(GOLDEN);
        each_flip(&bytes, |index, bytes| {
            assert!(Block::decode(bytes, IDENTITY).is_err(), "byte {index}");
        });
        for len in 0..bytes.len() {
            assert!(Block::decode(&bytes[..len], IDENTITY).is_err(), "{len} bytes");
        }
        assert!(Block::decode(&bytes, FileIdentity(7)).is_err());
    }

    /// BL2, BL3: each row is the entry of the first test with one thing wrong.
    #[test]
    fn bl2_bl3_entries_that_cannot_be_are_refused() {
        let sound = "00 01 01 0558000000 00 61";
        assert_eq!(decode(&forged(1, sound), &mut |_| ()), Ok(()));
        for (what, entries) in [
            ("shares with nothing", "01 01 01 0558000000 00 61"),
            ("an empty key", "00 00 01 0558000000 00"),
            ("a key that is cut", "00 02 01 0558000000 00 61"),
            ("a key without end", "00 ffffffffffffffffff01 01 0558000000 00 61"),
            ("a byte left over", "00 01 01 0558000000 00 61 00"),
            ("no kind", "00 01 00 0558000000 00 61"),
            ("a kind of a newer build", "00 01 06 0558000000 00 61"),
            ("a reserved flag", "00 01 81 0558000000 00 61"),
            ("a long varint", "00 8100 01 0558000000 00 61"),
            ("a varint over 64 bits", "00 01 01 0558000000 ffffffffffffffffff02 61"),
            ("a sequence number above the range", "00 01 01 0558000000 c901 61"),
            ("a sequence number that overflows", "00 01 01 0558000000 ffffffffffffffffff01 61"),
            ("a record in the headers", "00 01 01 0554000000 00 61"),
            ("a record behind the end", "00 01 01 05e8070000 00 61"),
            ("a record far behind the end", "00 01 01 05fcffffff 00 61"),
            ("a record shorter than its key", "00 01 01 0458000000 00 61"),
            ("a length without a code", "00 01 01 2053000000 00 61"),
            ("the keyspace that it is in", "00 01 41 0558000000 00 00 61"),
            ("a keyspace over 32 bits", "00 01 41 0558000000 00 8080808010 61"),
            ("the codec that is none", "00 01 21 0558000000 00 00 61"),
            ("a codec of a newer build", "00 01 21 0558000000 00 03 61"),
            ("an expiry that is cut", "00 01 09 0558000000 00 61"),
            ("a batch that is cut", "00 01 11 0558000000 00 61"),
        ] {
            assert!(decode(&forged(1, entries), &mut |_| ()).is_err(), "{what}");
        }
        for (what, second) in [
            ("the same key", "01 00 01 0558000000 00"),
            ("the same key, not shared", "00 01 01 0558000000 00 61"),
            ("a smaller key", "00 01 01 0558000000 00 60"),
            ("bytes that should be shared", "00 02 01 0558000000 00 61 62"),
            ("more than there is", "02 01 01 0558000000 00 61"),
        ] {
            let entries = format!("{sound} {second}");
            assert!(decode(&forged(2, &entries), &mut |_| ()).is_err(), "{what}");
        }
        let larger = format!("{sound} 01 01 01 0558000000 00 00");
        assert_eq!(decode(&forged(2, &larger), &mut |_| ()), Ok(()));
        for entry_count in [0, 1, 3, 16, 17, u16::MAX] {
            let error = decode(&forged(entry_count, &larger), &mut |_| ());
            assert!(error.is_err(), "{entry_count} entries");
        }
    }

    /// A cursor that enters the block in the middle must not see other entries than one that does not.
    #[test]
    fn restarts_that_lie_are_refused() {
        let keys: Vec<String> = (0..40).map(|number| format!("key {number:02}")).collect();
        let entries: Vec<HintEntry<'_>> = keys.iter().map(|key| entry(key.as_bytes())).collect();
        let bytes = encoded(&entries);
        assert_eq!(decode(&bytes, &mut |_| ()), Ok(()));
        let block = Block::decode(&bytes, IDENTITY).unwrap();
        assert_eq!((block.entry_count(), block.restart_count()), (40, 3));
        let mut decoder = EntryDecoder::new(&SEALED);
        let third = block.entries_from(2).unwrap().next(&mut decoder).unwrap().unwrap();
        assert_eq!(third.key, b"key 32");
        assert!(block.entries_from(3).is_err());

        for restart in 0..3 {
            let at = bytes.len() - (3 - restart) * RESTART_LEN;
            let original = u32_at(&bytes, at).unwrap();
            for lie in [0, 11, original - 1, original + 1, bytes.len() as u32, u32::MAX] {
                let mut bytes = bytes.clone();
                put(&mut bytes, at, lie.to_le_bytes());
                assert!(decode(&sealed(bytes), &mut |_| ()).is_err(), "restart {restart}: {lie}");
            }
        }
    }

    #[test]
    fn the_longest_entry_fits_a_block_that_is_almost_full() {
        let mut block = BlockBuilder::new();
        let mut number = 0_u32;
        while !block.is_full() {
            block.push(&entry(format!("{number:06}").as_bytes()), Seqno(1000));
            number += 1;
        }
        let key = vec![0xff; limits::KEY_LEN_MAX];
        let longest = HintEntry {
            keyspace: KeyspaceId(u32::MAX),
            seqno: Seqno(u64::MAX),
            expires_at_ms: Some(0),
            batch: Some(0),
            ..entry(&key)
        };
        block.push(&longest, Seqno(0));
        assert!(
            block.finish(IDENTITY).len() <= BLOCK_LEN_TARGET + ENTRY_LEN_MAX + BLOCK_LEN_TARGET
        );
    }

    #[test]
    fn shared_bytes_are_counted_across_words() {
        let bytes = [7; 40];
        for len in 0..40 {
            assert_eq!(shared_len(&bytes, &bytes[..len]), len);
            let mut other = bytes;
            other[len] = 8;
            assert_eq!(shared_len(&bytes, &other), len);
        }
    }
}
