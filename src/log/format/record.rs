//! Record: one change to one key (F3).
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | header CRC: CRC-32C, seeded with the file's identity, of bytes 4 to 32 + extension; XOR the record's offset in the file / 8 |
//! | 4 | 4 | body CRC: CRC-32C of key ‖ stored value |
//! | 8 | 8 | sequence number |
//! | 16 | 4 | length of the stored value |
//! | 20 | 4 | keyspace |
//! | 24 | 2 | length of the key |
//! | 26 | 1 | kind: 1 put, 2 del, 3 range del (key = begin, value = end), 4 batch decision, 5 batch resolve |
//! | 27 | 1 | codec: low nibble compression (0 none, 1 lz4, 2 zstd), high nibble encryption (0 none, 1 xchacha20poly1305) |
//! | 28 | 2 | flags: which extension fields follow |
//! | 30 | 2 | length of the extension, a multiple of 8 |
//! | 32 | | extension: 8 bytes for each flag that is set, lowest flag first |
//! | | | key, value, zeros up to a length with a code ([`len_code`](crate::len_code)) |
//!
//! | flag | extension field |
//! | --- | --- |
//! | 1 `EXPIRES` | expiry in milliseconds since 1970 |
//! | 2 `BATCH` | batch id: the record is an intent of that batch (B1), or its decision or resolve, which have neither key nor value |
//! | 4 `RAW_LEN` | length of the value once decompressed |
//!
//! A key and value that are encrypted are as the module [`codec`](crate::log::codec) says; the value is then
//! [`SEAL_LEN`] bytes longer.
//!
//! The body CRC does not know which file it is in: a caller computes it before the record has a
//! place, and compaction carries key, value and CRC over verbatim. The header CRC covers it, and says
//! which file and where in it, so the pair together belongs to one place only: a sector that a drive
//! writes, or reads, at another place of the same file is noticed.
//!
//! ## Invariants
//! - **RE1** No length is used before the header CRC holds. The extension's is the exception that
//!   cannot be avoided, it says where the checksummed bytes end; it is 16 bits wide and only
//!   slices.
//! - **RE2** What a checksum vouches for and this build does not know is `Unsupported`, not damage.
//! - **RE3** Padding is zero and is checked: no byte of a data file is outside every check.

use super::data_header::Place;
use super::{FormatError, check_crc, put, u8_at, u16_at, u32_at, u64_at};
use crate::len_code::{LEN_MAX, round_len};
use crate::limits;
use crate::planted::{Bug, is_planted};
use crate::types::{ExpiresAt, KeyspaceId, Seqno};

/// Length of a record's header without its extension.
pub(crate) const RECORD_HEADER_LEN: usize = 32;

/// Longest header of version 1: every extension field present.
pub(crate) const RECORD_HEADER_LEN_MAX: usize = RECORD_HEADER_LEN + 3 * EXTENSION_FIELD_LEN;

/// What an encrypted value has in front of it.
pub(crate) const SEAL_LEN: usize = 64;

/// Longest value as it is stored.
const STORED_LEN_MAX: usize = limits::VALUE_LEN_MAX + SEAL_LEN;

/// Length of the longest record: longest header, key and value.
pub(crate) const RECORD_LEN_MAX: u32 =
    round_len((RECORD_HEADER_LEN_MAX + limits::KEY_LEN_MAX + STORED_LEN_MAX) as u32);

const EXTENSION_FIELD_LEN: usize = 8;

const AT_HEADER_CRC: usize = 0;
const AT_BODY_CRC: usize = 4;
const AT_SEQNO: usize = 8;
const AT_VALUE_LEN: usize = 16;
const AT_KEYSPACE: usize = 20;
const AT_KEY_LEN: usize = 24;
const AT_KIND: usize = 26;
const AT_CODEC: usize = 27;
const AT_FLAGS: usize = 28;
const AT_EXTENSION_LEN: usize = 30;

const FLAG_EXPIRES: u16 = 1;
const FLAG_BATCH: u16 = 2;
const FLAG_RAW_LEN: u16 = 4;
const FLAGS_KNOWN: u16 = FLAG_EXPIRES | FLAG_BATCH | FLAG_RAW_LEN;

const _: () = assert!(AT_EXTENSION_LEN + size_of::<u16>() == RECORD_HEADER_LEN);
const _: () = assert!(RECORD_HEADER_LEN.is_multiple_of(8), "L2");
const _: () = assert!(limits::KEY_LEN_MAX <= u16::MAX as usize);
const _: () = assert!(RECORD_LEN_MAX < LEN_MAX);
// A record of the longest value still fits in a file of its own.
const _: () = assert!((RECORD_LEN_MAX as u64) < limits::DATA_FILE_LEN_LIMIT);

/// What a record does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum RecordKind {
    Put = 1,
    /// A tombstone: shadows every older record of the key.
    Del = 2,
    /// A range tombstone: `key` is where the range begins, `value` where it ends (N1).
    RangeDel = 3,
    /// The batch is committed (B1).
    BatchDecision = 4,
    /// This partition has made ordinary records of the batch's intents (B1).
    BatchResolve = 5,
}

impl RecordKind {
    pub(super) fn from_byte(byte: u8) -> Option<RecordKind> {
        match byte {
            1 => Some(RecordKind::Put),
            2 => Some(RecordKind::Del),
            3 => Some(RecordKind::RangeDel),
            4 => Some(RecordKind::BatchDecision),
            5 => Some(RecordKind::BatchResolve),
            _ => None,
        }
    }
}

/// How the stored value is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Compression {
    #[default]
    None = 0,
    Lz4 = 1,
    Zstd = 2,
}

/// How the stored value is encrypted, after compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Encryption {
    #[default]
    None = 0,
    XChaCha20Poly1305 = 1,
}

/// How to get from the stored value to the caller's; the default is "it is the caller's".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Codec {
    pub(crate) compression: Compression,
    pub(crate) encryption: Encryption,
}

impl Codec {
    pub(in crate::log) fn to_byte(self) -> u8 {
        self.compression as u8 | (self.encryption as u8) << 4
    }

    pub(super) fn from_byte(byte: u8) -> Result<Codec, FormatError> {
        let compression = match byte & 0x0f {
            0 => Compression::None,
            1 => Compression::Lz4,
            2 => Compression::Zstd,
            _ => return Err(FormatError::Unsupported("the compression of a record")),
        };
        let encryption = match byte >> 4 {
            0 => Encryption::None,
            1 => Encryption::XChaCha20Poly1305,
            _ => return Err(FormatError::Unsupported("the encryption of a record")),
        };
        Ok(Codec { compression, encryption })
    }
}

/// Everything a record says besides its key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) seqno: Seqno,
    pub(crate) kind: RecordKind,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) codec: Codec,
    pub(crate) expires_at_ms: Option<u64>,
    /// The batch whose intent this record is, or that it decides or resolves.
    pub(crate) batch: Option<u64>,
    /// Length of the value once decompressed.
    pub(crate) raw_len: Option<u64>,
    pub(crate) key_len: u16,
    /// Length of the value as stored.
    pub(crate) value_len: u32,
    pub(crate) body_crc: u32,
}

impl RecordHeader {
    /// Of a put of the default keyspace with nothing special to it.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn put(seqno: u64, key: &[u8], value: &[u8]) -> RecordHeader {
        RecordHeader {
            seqno: Seqno(seqno),
            kind: RecordKind::Put,
            keyspace: KeyspaceId(0),
            codec: Codec::default(),
            expires_at_ms: None,
            batch: None,
            raw_len: None,
            key_len: key.len() as u16,
            value_len: value.len() as u32,
            body_crc: body_crc(key, value),
        }
    }

    /// The tombstone that shadows what this record does to the caller's `key`, unencrypted.
    pub(crate) fn tombstone(&self, key: &[u8]) -> RecordHeader {
        RecordHeader {
            kind: RecordKind::Del,
            codec: Codec::default(),
            expires_at_ms: None,
            raw_len: None,
            value_len: 0,
            body_crc: body_crc(key, &[]),
            ..*self
        }
    }

    /// Whether key and value are encrypted.
    pub(crate) fn is_sealed(&self) -> bool {
        self.codec.encryption != Encryption::None
    }

    /// Whether the record is an intent of a batch, or says what became of one. Such a record says nothing of any
    /// key to whoever reads the log for its keys (B1).
    pub(crate) fn is_of_batch(&self) -> bool {
        match self.kind {
            RecordKind::Put | RecordKind::Del => self.batch.is_some(),
            RecordKind::BatchDecision | RecordKind::BatchResolve => true,
            RecordKind::RangeDel => false,
        }
    }

    /// When the record stops to count; zero on disk is as good as none.
    pub(crate) fn expires_at(&self) -> Option<ExpiresAt> {
        self.expires_at_ms.and_then(ExpiresAt::from_ms)
    }

    /// Length of the header in bytes, extension included: where the key starts.
    #[inline]
    pub(crate) fn header_len(&self) -> usize {
        let fields = [self.expires_at_ms, self.batch, self.raw_len];
        RECORD_HEADER_LEN + fields.iter().flatten().count() * EXTENSION_FIELD_LEN
    }

    /// Length of the whole record in bytes, padding included.
    #[inline]
    pub(crate) fn record_len(&self) -> u32 {
        debug_assert!(self.value_len as usize <= STORED_LEN_MAX, "what a decoder accepts");
        round_len(self.header_len() as u32 + u32::from(self.key_len) + self.value_len)
    }

    /// The header at the start of `bytes`, and its checksum; key and value may be missing.
    ///
    /// `Incomplete` asks for more bytes before anything is verified, so a caller that has all of
    /// the record's bytes already must take it for damage. The checksum is returned as it was before
    /// the place was added to it.
    #[inline]
    pub(crate) fn decode(bytes: &[u8], place: Place) -> Result<(RecordHeader, u32), FormatError> {
        let fixed: &[u8; RECORD_HEADER_LEN] =
            bytes.first_chunk().ok_or(FormatError::Incomplete { need: RECORD_HEADER_LEN })?;
        let extension_len = usize::from(u16_at(fixed, AT_EXTENSION_LEN)?);
        let header_len = RECORD_HEADER_LEN + extension_len;
        let covered = bytes
            .get(AT_BODY_CRC..header_len)
            .ok_or(FormatError::Incomplete { need: header_len })?;
        // RE1: nothing but the extension's length was used up to here.
        let header_crc = u32_at(fixed, AT_HEADER_CRC)? ^ place.mask();
        if !is_planted(Bug::HeaderCrcIgnored) {
            let found = crc32c::crc32c_append(place.identity.0, covered);
            check_crc("record header", header_crc, found)?;
        }

        let flags = u16_at(fixed, AT_FLAGS)?;
        if flags & !FLAGS_KNOWN != 0 {
            return Err(FormatError::Unsupported("a record flag"));
        }
        let rest = covered.get(RECORD_HEADER_LEN - AT_BODY_CRC..).unwrap_or_default();
        let mut extension = Extension { rest, flags };
        let header = RecordHeader {
            seqno: Seqno(u64_at(fixed, AT_SEQNO)?),
            kind: RecordKind::from_byte(u8_at(fixed, AT_KIND)?)
                .ok_or(FormatError::Unsupported("a record kind"))?,
            keyspace: KeyspaceId(u32_at(fixed, AT_KEYSPACE)?),
            codec: Codec::from_byte(u8_at(fixed, AT_CODEC)?)?,
            expires_at_ms: extension.take(FLAG_EXPIRES)?,
            batch: extension.take(FLAG_BATCH)?,
            raw_len: extension.take(FLAG_RAW_LEN)?,
            key_len: u16_at(fixed, AT_KEY_LEN)?,
            value_len: u32_at(fixed, AT_VALUE_LEN)?,
            body_crc: u32_at(fixed, AT_BODY_CRC)?,
        };
        if !extension.rest.is_empty() {
            Err(EXTENSION_UNKNOWN)
        } else if header.value_len as usize > STORED_LEN_MAX {
            // Also what keeps `record_len` inside 32 bits.
            Err(FormatError::Unsupported("a value of this length"))
        } else {
            Ok((header, header_crc))
        }
    }

    /// Whether `bytes` can be the start of a header that this build writes.
    ///
    /// What a search over megabytes tests before it computes a checksum.
    #[inline]
    pub(crate) fn may_start_with(bytes: &[u8]) -> bool {
        let Some(fixed) = bytes.first_chunk::<RECORD_HEADER_LEN>() else { return false };
        let flags = u16_at(fixed, AT_FLAGS).unwrap_or(u16::MAX);
        let extension_len = u16_at(fixed, AT_EXTENSION_LEN).unwrap_or(u16::MAX);
        flags & !FLAGS_KNOWN == 0
            && u32::from(extension_len) == flags.count_ones() * EXTENSION_FIELD_LEN as u32
            && u8_at(fixed, AT_KIND).is_ok_and(|kind| RecordKind::from_byte(kind).is_some())
    }

    /// The header's bytes in front of zeros, and its checksum.
    #[inline]
    fn encode(&self, place: Place) -> ([u8; RECORD_HEADER_LEN_MAX], u32) {
        let mut bytes = [0; RECORD_HEADER_LEN_MAX];
        let mut flags = 0;
        let mut end = RECORD_HEADER_LEN;
        for (flag, field) in [
            (FLAG_EXPIRES, self.expires_at_ms),
            (FLAG_BATCH, self.batch),
            (FLAG_RAW_LEN, self.raw_len),
        ] {
            if let Some(field) = field {
                put(&mut bytes, end, field.to_le_bytes());
                end += EXTENSION_FIELD_LEN;
                flags |= flag;
            }
        }
        put(&mut bytes, AT_BODY_CRC, self.body_crc.to_le_bytes());
        put(&mut bytes, AT_SEQNO, self.seqno.0.to_le_bytes());
        put(&mut bytes, AT_VALUE_LEN, self.value_len.to_le_bytes());
        put(&mut bytes, AT_KEYSPACE, self.keyspace.0.to_le_bytes());
        put(&mut bytes, AT_KEY_LEN, self.key_len.to_le_bytes());
        put(&mut bytes, AT_KIND, [self.kind as u8]);
        put(&mut bytes, AT_CODEC, [self.codec.to_byte()]);
        put(&mut bytes, AT_FLAGS, u16::to_le_bytes(flags));
        put(&mut bytes, AT_EXTENSION_LEN, ((end - RECORD_HEADER_LEN) as u16).to_le_bytes());
        let crc = crc32c::crc32c_append(place.identity.0, &bytes[AT_BODY_CRC..end]);
        put(&mut bytes, AT_HEADER_CRC, (crc ^ place.mask()).to_le_bytes());
        (bytes, crc)
    }
}

const EXTENSION_UNKNOWN: FormatError = FormatError::Unsupported("a record extension");

/// The extension's fields, taken in the order of their flags.
struct Extension<'a> {
    rest: &'a [u8],
    flags: u16,
}

impl Extension<'_> {
    #[inline]
    fn take(&mut self, flag: u16) -> Result<Option<u64>, FormatError> {
        if self.flags & flag == 0 {
            return Ok(None);
        }
        let (field, rest) = self.rest.split_first_chunk().ok_or(EXTENSION_UNKNOWN)?;
        self.rest = rest;
        Ok(Some(u64::from_le_bytes(*field)))
    }
}

/// A record whose every byte was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) header: RecordHeader,
    /// What the commit group's payload checksum is made of.
    pub(crate) header_crc: u32,
    pub(crate) key: &'a [u8],
    /// The value as stored; see the header's codec.
    pub(crate) value: &'a [u8],
}

/// Checksum of a record's key and stored value.
#[inline]
pub(crate) fn body_crc(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

/// Appends a record that goes to `place` to `buf`, and returns its header's checksum, for the commit
/// group's.
///
/// The body's two parts are written one after the other: key and value, or both in one and nothing.
///
/// # Panics
/// If the parts are not as long as the header says: a record that lies about its length makes
/// everything behind it unreadable, so the comparison is not left to debug builds.
#[inline]
pub(crate) fn encode_record(
    buf: &mut Vec<u8>,
    place: Place,
    header: &RecordHeader,
    body: [&[u8]; 2],
) -> u32 {
    let body_len = usize::from(header.key_len) + header.value_len as usize;
    assert_eq!(body[0].len() + body[1].len(), body_len, "the body is as long as its header says");
    let end = buf.len() + header.record_len() as usize;
    buf.reserve(end - buf.len());
    let (bytes, header_crc) = header.encode(place);
    buf.extend_from_slice(&bytes[..header.header_len()]);
    buf.extend_from_slice(body[0]);
    buf.extend_from_slice(body[1]);
    buf.resize(end, 0);
    header_crc
}

/// Moves records, one behind the other in `bytes`, from where they were encoded for to another place of
/// the same file. They were encoded by this process, so their lengths are believed.
pub(crate) fn move_records(bytes: &mut [u8], from: Place, to: Place) {
    assert_eq!(from.identity, to.identity, "records never change their file");
    let (mut rest, mut at) = (bytes, 0);
    while let Some(fixed) = rest.first_chunk_mut::<RECORD_HEADER_LEN>() {
        let (from, to) = (from.plus(at), to.plus(at));
        let stored = u32::from_le_bytes([fixed[0], fixed[1], fixed[2], fixed[3]]);
        put(fixed, AT_HEADER_CRC, (stored ^ from.mask() ^ to.mask()).to_le_bytes());
        let len = len_of_encoded(fixed);
        at += len;
        rest = rest.get_mut(len..).unwrap_or_default();
    }
}

/// Length of a record that was encoded here.
fn len_of_encoded(fixed: &[u8; RECORD_HEADER_LEN]) -> usize {
    let le_u16 = |at: usize| u32::from(u16::from_le_bytes([fixed[at], fixed[at + 1]]));
    let value_len = [0, 1, 2, 3].map(|index| fixed[AT_VALUE_LEN + index]);
    let header_len = RECORD_HEADER_LEN as u32 + le_u16(AT_EXTENSION_LEN);
    round_len(header_len + le_u16(AT_KEY_LEN) + u32::from_le_bytes(value_len)) as usize
}

/// The record at the start of `bytes`, verified down to its padding; more bytes may follow it.
#[inline]
pub(crate) fn decode_record(bytes: &[u8], place: Place) -> Result<Record<'_>, FormatError> {
    let (header, header_crc) = RecordHeader::decode(bytes, place)?;
    let Some((key, value, padding)) = split_body(bytes, &header) else {
        return Err(FormatError::Incomplete { need: header.record_len() as usize });
    };
    if !is_planted(Bug::BodyCrcIgnored) {
        check_crc("record body", header.body_crc, body_crc(key, value))?;
    }
    if padding.iter().any(|byte| *byte != 0) {
        return Err(FormatError::invalid("the padding of a record is not zero"));
    }
    Ok(Record { header, header_crc, key, value })
}

/// Key, value and padding of the record at the start of `bytes`, whose header verified; none of the
/// three is. `None` if some of it is missing.
#[inline]
pub(in crate::log) fn split_body<'a>(
    bytes: &'a [u8],
    header: &RecordHeader,
) -> Option<(&'a [u8], &'a [u8], &'a [u8])> {
    let rest = bytes.get(header.header_len()..header.record_len() as usize)?;
    let (key, rest) = rest.split_at_checked(usize::from(header.key_len))?;
    let (value, padding) = rest.split_at_checked(header.value_len as usize)?;
    Some((key, value, padding))
}

/// Makes the checksums of a record good that made-up bytes begin with, as far as it is whole.
#[cfg(feature = "sim")]
pub(in crate::log) fn forge_record(bytes: &mut [u8], place: Place) {
    forge_record_header(bytes, place);
    let Ok((header, _)) = RecordHeader::decode(bytes, place) else { return };
    let Some((key, value, _)) = split_body(bytes, &header) else { return };
    let crc = body_crc(key, value);
    put(bytes, AT_BODY_CRC, crc.to_le_bytes());
    forge_record_header(bytes, place);
}

#[cfg(feature = "sim")]
fn forge_record_header(bytes: &mut [u8], place: Place) {
    let Ok(extension_len) = u16_at(bytes, AT_EXTENSION_LEN) else { return };
    let header_len = RECORD_HEADER_LEN + usize::from(extension_len);
    let Some(covered) = bytes.get(AT_BODY_CRC..header_len) else { return };
    let crc = crc32c::crc32c_append(place.identity.0, covered);
    put(bytes, AT_HEADER_CRC, (crc ^ place.mask()).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::data_header::FileIdentity;
    use super::super::tests::{each_flip, hex};
    use super::*;

    const IDENTITY: FileIdentity = FileIdentity(0x210d_8c8e);
    /// Where the golden group has its records.
    const PLACE: Place = Place { identity: IDENTITY, offset: 176 };

    const GOLDEN_PUT: &str = "
        b47554dd448900e8 0807060504030201
        0500000000000000 0300010000000000
        6b657976616c7565";

    /// Every extension field, a codec, a keyspace, no value, and seven bytes of padding.
    const GOLDEN_DEL: &str = "
        d5b39fc2086b32aa 0900000000000000
        0000000007000000 0100021207001800
        0038d360ba010000 bbbb000000000000
        0010000000000000 6b00000000000000";

    fn put_header(key: &[u8], value: &[u8]) -> RecordHeader {
        RecordHeader::put(0x0102_0304_0506_0708, key, value)
    }

    fn del_header() -> RecordHeader {
        RecordHeader {
            seqno: Seqno(9),
            kind: RecordKind::Del,
            keyspace: KeyspaceId(7),
            codec: Codec {
                compression: Compression::Zstd,
                encryption: Encryption::XChaCha20Poly1305,
            },
            expires_at_ms: Some(1_900_000_000_000),
            batch: Some(0xbbbb),
            raw_len: Some(4096),
            ..put_header(b"k", b"")
        }
    }

    fn encoded(header: &RecordHeader, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_record(&mut bytes, PLACE, header, [key, value]);
        bytes
    }

    /// The put with some bytes of its header changed and the header's checksum made good again.
    fn forged(offset: usize, field: &[u8]) -> Vec<u8> {
        let mut bytes = hex(GOLDEN_PUT);
        bytes[offset..offset + field.len()].copy_from_slice(field);
        let extension_len = usize::from(u16_at(&bytes, AT_EXTENSION_LEN).unwrap());
        let covered = &bytes[AT_BODY_CRC..RECORD_HEADER_LEN + extension_len];
        let crc = crc32c::crc32c_append(IDENTITY.0, covered) ^ PLACE.mask();
        put(&mut bytes, AT_HEADER_CRC, crc.to_le_bytes());
        bytes
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let put = put_header(b"key", b"value");
        let bytes = encoded(&put, b"key", b"value");
        assert_eq!(bytes, hex(GOLDEN_PUT));
        let record = decode_record(&bytes, PLACE).unwrap();
        let header_crc = 0xdd54_75a2;
        assert_eq!(record, Record { header: put, header_crc, key: b"key", value: b"value" });

        let bytes = encoded(&del_header(), b"k", b"");
        assert_eq!(bytes, hex(GOLDEN_DEL));
        let record = decode_record(&bytes, PLACE).unwrap();
        let header_crc = 0xc29f_b3c3;
        assert_eq!(record, Record { header: del_header(), header_crc, key: b"k", value: b"" });
    }

    #[test]
    fn every_combination_of_kind_codec_and_extension_comes_back() {
        let kinds = [
            RecordKind::Put,
            RecordKind::Del,
            RecordKind::RangeDel,
            RecordKind::BatchDecision,
            RecordKind::BatchResolve,
        ];
        let codecs = [Compression::None, Compression::Lz4, Compression::Zstd]
            .map(|compression| Codec { compression, encryption: Encryption::None });
        for (kind, codec) in kinds.into_iter().flat_map(|kind| codecs.map(|codec| (kind, codec))) {
            for fields in 0..8_u64 {
                let field = |bit: u64| (fields & bit != 0).then_some(u64::MAX - bit);
                let header = RecordHeader {
                    kind,
                    codec,
                    expires_at_ms: field(1),
                    batch: field(2),
                    raw_len: field(4),
                    ..put_header(b"key", b"value")
                };
                let bytes = encoded(&header, b"key", b"value");
                assert_eq!(bytes.len(), header.record_len() as usize);
                assert_eq!(decode_record(&bytes, PLACE).unwrap().header, header);
                assert_eq!(RecordHeader::decode(&bytes, PLACE).unwrap().0, header);
            }
        }
    }

    /// Lengths where a length code changes, a length field's byte carries, or padding is longest.
    #[test]
    fn boundary_lengths_come_back() {
        let key_lens = [0, 1, 7, 8, 9, 255, 256, limits::KEY_LEN_MAX];
        let value_lens = [0, 1, 464, 465, 472, 473, 1023, 1024, 1025, 65_535, 65_536, 70_000];
        let bytes_of = |len: usize| (0..len).map(|index| index as u8).collect::<Vec<u8>>();
        for (key_len, value_len) in
            key_lens.into_iter().flat_map(|key| value_lens.map(|value| (key, value)))
        {
            let (key, value) = (bytes_of(key_len), bytes_of(value_len));
            let header = put_header(&key, &value);
            let mut bytes = b"before".to_vec();
            encode_record(&mut bytes, PLACE, &header, [&key, &value]);
            bytes.extend_from_slice(b"behind");
            let record = decode_record(&bytes[6..], PLACE).unwrap();
            assert_eq!((record.key, record.value), (&key[..], &value[..]));
            assert_eq!(bytes.len(), 12 + header.record_len() as usize);
            assert!(header.record_len().is_multiple_of(8), "L2");
        }
    }

    #[test]
    fn a_body_in_one_part_gives_the_same_bytes() {
        let header = put_header(b"key", b"value");
        assert_eq!(encoded(&header, b"keyvalue", b""), hex(GOLDEN_PUT));
        assert_eq!(encoded(&header, b"", b"keyvalue"), hex(GOLDEN_PUT));
    }

    #[test]
    #[should_panic(expected = "the body is as long as its header says")]
    fn a_body_of_another_length_is_never_written() {
        encoded(&put_header(b"key", b"value"), b"key", b"valu");
    }

    /// RE3: the flips include the seven bytes of padding.
    #[test]
    fn every_flip_is_refused() {
        for golden in [GOLDEN_PUT, GOLDEN_DEL] {
            each_flip(&hex(golden), |index, bytes| {
                assert!(decode_record(bytes, PLACE).is_err(), "byte {index}");
            });
        }
    }

    #[test]
    fn every_truncation_asks_for_more() {
        for golden in [GOLDEN_PUT, GOLDEN_DEL] {
            let bytes = hex(golden);
            for len in 0..bytes.len() {
                match decode_record(&bytes[..len], PLACE) {
                    Err(FormatError::Incomplete { need }) => {
                        assert!(need > len && need <= bytes.len(), "{len} bytes: {need}");
                    }
                    other => panic!("{len} bytes: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn another_files_record_is_refused() {
        let identity = FileIdentity(IDENTITY.0 ^ 1);
        let error = decode_record(&hex(GOLDEN_PUT), identity.at(176)).unwrap_err();
        assert!(matches!(error, FormatError::Checksum { what: "record header", .. }), "{error}");
    }

    /// Without it a sector that a drive writes to another place of the same file could bring back what a key
    /// held before, wherever records line up.
    #[test]
    fn a_record_verifies_at_its_own_place_only() {
        for golden in [GOLDEN_PUT, GOLDEN_DEL].map(hex) {
            for offset in (0..1 << 16).step_by(8).chain([1 << 31, (1 << 32) - 8]) {
                let found = decode_record(&golden, IDENTITY.at(offset));
                assert_eq!(found.is_ok(), offset == PLACE.offset, "{offset}");
            }
        }
    }

    /// Records are encoded before it is known where their group begins.
    #[test]
    fn records_that_are_moved_verify_where_they_go() {
        let (mut bytes, group, del_at) = (Vec::new(), IDENTITY.at(0), hex(GOLDEN_PUT).len());
        encode_record(&mut bytes, group, &put_header(b"key", b"value"), [b"key", b"value"]);
        encode_record(&mut bytes, group.plus(del_at), &del_header(), [b"k", b""]);
        for (from, to) in [(group, PLACE), (PLACE, IDENTITY.at(1 << 31))] {
            move_records(&mut bytes, from, to);
            assert_eq!(decode_record(&bytes, to).unwrap().key, b"key");
            assert_eq!(decode_record(&bytes[del_at..], to.plus(del_at)).unwrap().key, b"k");
        }
    }

    #[test]
    fn a_damaged_body_is_told_from_a_damaged_header() {
        let mut bytes = hex(GOLDEN_PUT);
        bytes[35] ^= 1;
        assert!(RecordHeader::decode(&bytes, PLACE).is_ok());
        let error = decode_record(&bytes, PLACE).unwrap_err();
        assert!(matches!(error, FormatError::Checksum { what: "record body", .. }), "{error}");
    }

    #[test]
    fn re2_what_is_unknown_under_a_good_checksum_is_unsupported() {
        let too_long = (STORED_LEN_MAX as u32 + 1).to_le_bytes();
        for (offset, field) in [
            (AT_KIND, &[0][..]),
            (AT_KIND, &[6]),
            (AT_CODEC, &[3]),
            (AT_CODEC, &[0x20]),
            (AT_FLAGS, &[8]),
            (AT_FLAGS + 1, &[0x80]),
            // A flag without its field, and a field without its flag.
            (AT_FLAGS, &[1]),
            (AT_EXTENSION_LEN, &[8]),
            (AT_VALUE_LEN, &too_long),
            (AT_VALUE_LEN, &[0xff; 4]),
        ] {
            let error = decode_record(&forged(offset, field), PLACE).unwrap_err();
            assert!(matches!(error, FormatError::Unsupported(_)), "{offset} {field:?}: {error}");
        }
    }

    /// Every length that the header could claim, under a good checksum: none may panic or reach
    /// outside of the slice.
    #[test]
    fn forged_lengths_never_panic() {
        for len in (0..64).chain([255, 256, 1 << 16, 1 << 24, 1 << 30]) {
            let _ = decode_record(&forged(AT_VALUE_LEN, &u32::to_le_bytes(len)), PLACE);
            let _ = decode_record(&forged(AT_KEY_LEN, &(len as u16).to_le_bytes()), PLACE);
        }
        let mut bytes = hex(GOLDEN_PUT);
        for len in 0..=u16::MAX {
            put(&mut bytes, AT_EXTENSION_LEN, len.to_le_bytes());
            assert!(decode_record(&bytes, PLACE).is_err() || len == 0);
        }
    }
}
