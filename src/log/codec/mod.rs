//! What is between a key and value as their caller gave them and the bytes that are stored.
//!
//! A value is compressed, if it is to be and that pays; then key and value are encrypted, if the store has a key
//! ([`seal`]). A record says itself how it is stored, so what a store is opened with only decides about new
//! records ([`Codecs::encode`]); whoever needs a plain key goes through [`Codecs::key`], and everything that hands
//! out values through [`Codecs::decode`], whatever kind of record it is.
//!
//! ## Invariants
//! - **CO1** Nothing is stored compressed unless that makes it shorter, by enough to be worth a read's time.
//! - **CO2** Memory for a decoded value is taken only as far as the bytes that are there can fill it, and a
//!   value that turns out shorter or longer than its record says is damage, never handed out.
//! - **CO3** A store that has a key writes nothing that is not encrypted with it: not new records, and not those
//!   that are copied or written again either ([`Codecs::renew`]).

mod compress;
#[cfg(feature = "encryption")]
mod seal;
#[cfg(not(feature = "encryption"))]
#[path = "no_seal.rs"]
mod seal;

use std::borrow::Cow;
use std::fmt;

use self::compress::{compress, decompress};
pub(crate) use self::seal::Keyring;
use self::seal::{PAGE_OVERHEAD, key_id};
use super::format::FormatError;
use super::format::record::{
    Codec, Compression as Method, Encryption, RecordHeader, RecordKind, SEAL_LEN, body_crc,
};
use super::scanner::RecordAt;
use crate::limits;
use crate::options::Compression;
use crate::planted::{Bug, is_planted};
use crate::types::{KeyId, KeyspaceId};

/// How the records of a store are stored, and read back.
#[derive(Clone)]
pub(crate) struct Codecs {
    compression: Compression,
    /// Shorter values are stored as they are.
    compression_len_min: usize,
    keyring: Keyring,
}

/// Says nothing about keys.
impl fmt::Debug for Codecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codecs").field("compression", &self.compression).finish_non_exhaustive()
    }
}

/// A key and value that are not stored as they are.
pub(crate) struct Encoded {
    pub(crate) codec: Codec,
    /// Length of the caller's value, if it was compressed.
    pub(crate) raw_len: Option<u64>,
    /// The stored key, and behind it the stored value.
    pub(crate) body: Vec<u8>,
}

impl Encoded {
    /// The header of a record of which everything else is as in `like`.
    pub(crate) fn header(&self, like: &RecordHeader) -> RecordHeader {
        RecordHeader {
            codec: self.codec,
            raw_len: self.raw_len,
            value_len: (self.body.len() - usize::from(like.key_len)) as u32,
            body_crc: body_crc(&self.body, &[]),
            ..*like
        }
    }
}

/// What encryption vouches for beside key and value, in the form in which it does.
type About = [u8; 24];

/// What a record's header says of its key and value; `value_len` is the length before it was encrypted. No two
/// that differ are the same bytes.
fn about(
    kind: RecordKind,
    keyspace: KeyspaceId,
    codec: Codec,
    raw_len: Option<u64>,
    key_len: usize,
    value_len: usize,
) -> About {
    let mut bytes = [0; 24];
    bytes[..4].copy_from_slice(&keyspace.0.to_le_bytes());
    bytes[4] = kind as u8;
    bytes[5] = codec.to_byte();
    bytes[6..8].copy_from_slice(&(key_len as u16).to_le_bytes());
    bytes[8..16].copy_from_slice(&(value_len as u64).to_le_bytes());
    // No value is as long as that.
    bytes[16..].copy_from_slice(&raw_len.unwrap_or(u64::MAX).to_le_bytes());
    bytes
}

fn about_sealed(header: &RecordHeader) -> About {
    let RecordHeader { keyspace, kind, codec, raw_len, key_len, value_len, .. } = *header;
    let value_len = (value_len as usize).saturating_sub(SEAL_LEN);
    about(kind, keyspace, codec, raw_len, key_len.into(), value_len)
}

impl Codecs {
    pub(crate) fn new(
        compression: Compression,
        compression_len_min: usize,
        keyring: Keyring,
    ) -> Codecs {
        Codecs { compression, compression_len_min, keyring }
    }

    /// The key that everything new is encrypted with.
    pub(crate) fn key_id(&self) -> KeyId {
        self.keyring.current()
    }

    /// Whether there is nothing that needs this key, or it was given.
    pub(crate) fn check_key(&self, id: KeyId) -> Result<(), FormatError> {
        if id == KeyId::NONE || self.keyring.has(id) {
            Ok(())
        } else if cfg!(feature = "encryption") {
            Err(FormatError::KeyMissing(id))
        } else {
            Err(FormatError::FeatureMissing { what: "encrypted", feature: "encryption" })
        }
    }

    /// By how much a record may get longer than its key and value.
    pub(crate) fn overhead(&self) -> usize {
        if self.key_id() == KeyId::NONE { 0 } else { SEAL_LEN }
    }

    /// What is stored of a new record of any kind; `None` if it is key and value as they are.
    pub(crate) fn encode(
        &self,
        kind: RecordKind,
        keyspace: KeyspaceId,
        key: &[u8],
        value: &[u8],
    ) -> Option<Encoded> {
        let compressed = if kind == RecordKind::Put { self.compress(value) } else { None };
        let (compression, raw_len, stored) = match &compressed {
            Some((method, bytes)) => (*method, Some(value.len() as u64), &bytes[..]),
            None => (Method::None, None, value),
        };
        let codec = Codec { compression, ..Codec::default() };
        self.seal(kind, keyspace, codec, raw_len, key, stored).or_else(|| {
            let body = || [key, stored].concat();
            compressed.is_some().then(|| Encoded { codec, raw_len, body: body() })
        })
    }

    /// What is stored when a record is written again: the same, but under the newest key (CO3). `None` if it
    /// is already.
    pub(crate) fn renew(
        &self,
        header: &RecordHeader,
        stored_key: &[u8],
        stored_value: &[u8],
    ) -> Result<Option<Encoded>, FormatError> {
        let current = self.key_id();
        if is_planted(Bug::OldKeyKept) {
            return Ok(None);
        }
        if current == KeyId::NONE || (header.is_sealed() && key_id(stored_value)? == current) {
            return Ok(None);
        }
        let key = self.key(header, stored_key, stored_value)?;
        let value = self.unsealed(header, stored_value)?;
        let RecordHeader { kind, keyspace, codec, raw_len, .. } = *header;
        Ok(self.seal(kind, keyspace, codec, raw_len, &key, &value))
    }

    /// The caller's key. Of a sealed value its beginning is enough, the first [`SEAL_LEN`] bytes.
    ///
    /// An `Err` is damage that no checksum has noticed, a key that was not given, or a missing cargo feature.
    pub(crate) fn key<'a>(
        &self,
        header: &RecordHeader,
        stored_key: &'a [u8],
        stored_value: &[u8],
    ) -> Result<Cow<'a, [u8]>, FormatError> {
        if !header.is_sealed() {
            return Ok(Cow::Borrowed(stored_key));
        }
        self.keyring.open_key(&about_sealed(header), stored_key, stored_value).map(Cow::Owned)
    }

    /// The caller's key; and of a range tombstone, whose value is a key too, where the range ends. Other values stay
    /// as they are stored.
    pub(crate) fn plain<'a>(
        &self,
        record: &RecordAt<'a>,
    ) -> Result<[Cow<'a, [u8]>; 2], FormatError> {
        let RecordAt { header, key, value, .. } = *record;
        let plain_key = self.key(header, key, value)?;
        let is_range = header.kind == RecordKind::RangeDel;
        let value = if is_range { self.unsealed(header, value)? } else { Cow::Borrowed(value) };
        Ok([plain_key, value])
    }

    /// Where the range of a range tombstone ends.
    pub(crate) fn range_end<'a>(
        &self,
        header: &RecordHeader,
        stored_value: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, FormatError> {
        self.unsealed(header, stored_value)
    }

    /// The caller's value, made from the stored one; `None` if it is the stored one.
    ///
    /// An `Err` is damage that no checksum has noticed, a key that was not given, or a missing cargo feature.
    pub(crate) fn decode(
        &self,
        header: &RecordHeader,
        stored: &[u8],
    ) -> Result<Option<Vec<u8>>, FormatError> {
        if header.codec == Codec::default() {
            return Ok(None);
        }
        Codecs::can_decode(header.codec)?;
        let unsealed = self.unsealed(header, stored)?;
        if header.codec.compression == Method::None {
            return Ok(Some(unsealed.into_owned()));
        }
        let raw_len = header.raw_len.ok_or_else(|| {
            FormatError::invalid("a compressed value does not say how long it is")
        })?;
        let raw_len = usize::try_from(raw_len)
            .ok()
            .filter(|len| *len <= limits::VALUE_LEN_MAX)
            .ok_or_else(|| FormatError::invalid("a compressed value claims to be too long"))?;
        let value = decompress(header.codec.compression, &unsealed, raw_len)?;
        if value.len() == raw_len || is_planted(Bug::ClaimedLengthBelieved) {
            Ok(Some(value))
        } else {
            Err(FormatError::invalid("a compressed value is not as long as it claims"))
        }
    }

    /// Whether this build reads what is stored so; the error names the feature that is missing.
    pub(crate) fn can_decode(codec: Codec) -> Result<(), FormatError> {
        let is_built_in = |feature| match feature {
            "lz4" => cfg!(feature = "lz4"),
            "zstd" => cfg!(feature = "zstd"),
            _ => cfg!(feature = "encryption"),
        };
        let compression = match codec.compression {
            Method::None => None,
            Method::Lz4 => Some(("compressed with LZ4", "lz4")),
            Method::Zstd => Some(("compressed with zstd", "zstd")),
        };
        let encryption = match codec.encryption {
            Encryption::None => None,
            Encryption::XChaCha20Poly1305 => Some(("encrypted", "encryption")),
        };
        match [compression, encryption].into_iter().flatten().find(|(_, f)| !is_built_in(f)) {
            Some((what, feature)) => Err(FormatError::FeatureMissing { what, feature }),
            None => Ok(()),
        }
    }

    /// A page of a hint as it is stored; `None` if it is stored as it is.
    pub(in crate::log) fn seal_page(&self, about: &[u8], page: &[u8]) -> Option<Vec<u8>> {
        self.keyring.seal_page(about, page)
    }

    pub(in crate::log) fn open_page(
        &self,
        key: KeyId,
        about: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, FormatError> {
        self.check_key(key)?;
        self.keyring.open_page(key, about, sealed)
    }

    /// The value compressed, if it is to be and that makes it shorter (CO1).
    pub(in crate::log) fn compress(&self, value: &[u8]) -> Option<(Method, Vec<u8>)> {
        if value.len() < self.compression_len_min {
            return None;
        }
        compress(self.compression, value)
            .filter(|(_, compressed)| is_worth_it(value.len(), compressed.len()))
    }

    /// Whether a put with a value of this length is stored as it is.
    pub(crate) fn leave(&self, value_len: usize) -> bool {
        let is_short = value_len < self.compression_len_min;
        (is_short || self.compression == Compression::None) && self.keyring.current() == KeyId::NONE
    }

    /// Key and value encrypted, which may be compressed; `None` if there is no key.
    fn seal(
        &self,
        kind: RecordKind,
        keyspace: KeyspaceId,
        codec: Codec,
        raw_len: Option<u64>,
        key: &[u8],
        value: &[u8],
    ) -> Option<Encoded> {
        let codec = Codec { encryption: Encryption::XChaCha20Poly1305, ..codec };
        let about = about(kind, keyspace, codec, raw_len, key.len(), value.len());
        let body = self.keyring.seal(&about, key, value)?;
        Some(Encoded { codec, raw_len, body })
    }

    /// The value as it was before it was encrypted.
    fn unsealed<'a>(
        &self,
        header: &RecordHeader,
        stored: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, FormatError> {
        if !header.is_sealed() {
            return Ok(Cow::Borrowed(stored));
        }
        self.keyring.open_value(&about_sealed(header), stored).map(Cow::Owned)
    }
}

/// What a page of a hint is longer by when it is stored.
pub(in crate::log) const SEALED_PAGE_OVERHEAD: usize = PAGE_OVERHEAD;

/// The original length takes eight bytes of the record's header, and a record is padded by up to a
/// thirty-second of its length: what saves less than a sixteenth may save nothing on the disk, and costs
/// every read.
fn is_worth_it(value_len: usize, compressed_len: usize) -> bool {
    const RAW_LEN_FIELD: usize = 8;
    compressed_len + RAW_LEN_FIELD + value_len / 16 <= value_len
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codecs_with(setting: Compression, len_min: usize) -> Codecs {
        Codecs::new(setting, len_min, Keyring::default())
    }

    fn header(compression: Method, raw_len: Option<u64>) -> RecordHeader {
        let codec = Codec { compression, ..Codec::default() };
        RecordHeader { codec, raw_len, ..RecordHeader::put(1, b"k", b"") }
    }

    fn settings() -> Vec<Compression> {
        [
            Compression::None,
            #[cfg(feature = "lz4")]
            Compression::Lz4,
            #[cfg(feature = "zstd")]
            Compression::Zstd { level: -7 },
            #[cfg(feature = "zstd")]
            Compression::Zstd { level: 3 },
            #[cfg(feature = "zstd")]
            Compression::Zstd { level: 19 },
        ]
        .to_vec()
    }

    /// Of every length: zeros, text, and what does not compress.
    fn values() -> impl Iterator<Item = Vec<u8>> {
        let mut random = fastrand::Rng::with_seed(7);
        let lens = [0, 1, 15, 16, 17, 255, 256, 257, 4096, 65_535, 65_536, 300_000, 3 << 20];
        lens.into_iter().flat_map(move |len| {
            let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
            let text = b"{\"id\":17,\"name\":\"Ada\"},".iter().copied().cycle().take(len).collect();
            [vec![0; len], text, noise]
        })
    }

    #[test]
    fn values_come_back_whatever_the_setting_is_by_then() {
        let codecs = settings().into_iter().map(|setting| codecs_with(setting, 0));
        let codecs: Vec<Codecs> = codecs.collect();
        let mut compressed_count = 0;
        for (writer, value) in codecs.iter().flat_map(|writer| values().map(move |v| (writer, v))) {
            let Some((method, compressed)) = writer.compress(&value) else { continue };
            compressed_count += 1;
            let header = header(method, Some(value.len() as u64));
            for reader in &codecs {
                let decoded = reader.decode(&header, &compressed).unwrap();
                assert!(decoded.is_some_and(|decoded| decoded == value), "{writer:?}");
            }
        }
        let is_built_in = cfg!(any(feature = "lz4", feature = "zstd"));
        assert_eq!(compressed_count > 0, is_built_in);
    }

    /// CO1, and that the setting is heeded.
    #[test]
    fn what_is_not_worth_it_is_left_as_it_is() {
        assert!(is_worth_it(256, 232) && !is_worth_it(256, 233), "a sixteenth and the field");
        assert!(!is_worth_it(0, 0) && !is_worth_it(7, 0) && is_worth_it(8, 0));
        for setting in settings() {
            let codecs = codecs_with(setting, 1000);
            assert!(codecs.compress(&[0; 999]).is_none(), "{setting:?}: too short");
            assert_eq!(codecs.compress(&[0; 1000]).is_some(), setting != Compression::None);
            let mut random = fastrand::Rng::with_seed(7);
            let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(10_000).collect();
            assert!(codecs.compress(&noise).is_none(), "{setting:?}: noise");
        }
    }

    /// CO2: what no checksum can notice, because whoever forged it made them good.
    #[test]
    fn a_value_of_another_length_than_its_record_says_is_refused() {
        for setting in settings() {
            for value in values() {
                let codecs = codecs_with(setting, 0);
                let Some((method, bytes)) = codecs.compress(&value) else { continue };
                let len = value.len() as u64;
                let limit = limits::VALUE_LEN_MAX as u64;
                for raw_len in [0, len - 1, len + 1, len * 2, limit, limit + 1, u64::MAX] {
                    let error = codecs.decode(&header(method, Some(raw_len)), &bytes).unwrap_err();
                    assert!(matches!(error, FormatError::Invalid(_)), "{raw_len}: {error}");
                }
                assert!(codecs.decode(&header(method, None), &bytes).is_err(), "no length");
                let cut = codecs.decode(&header(method, Some(len)), &bytes[..bytes.len() - 1]);
                assert!(cut.is_err(), "{setting:?}: cut");
            }
        }
    }

    #[test]
    fn a_feature_that_is_missing_is_named() {
        for (method, feature, is_built_in) in [
            (Method::Lz4, "lz4", cfg!(feature = "lz4")),
            (Method::Zstd, "zstd", cfg!(feature = "zstd")),
        ] {
            let answer = Codecs::can_decode(header(method, None).codec);
            assert_eq!(answer.is_ok(), is_built_in, "{feature}");
            if let Err(error) = answer {
                let error = error.at(std::path::Path::new("partition-000"), 0);
                assert_eq!(error.kind(), crate::ErrorKind::FeatureMissing);
                assert!(error.to_string().contains(&format!("`{feature}`")), "{error}");
            }
        }
    }

    #[cfg(feature = "encryption")]
    mod sealed {
        use super::*;
        use crate::log::format::record::RecordKind;
        use crate::types::{KeyspaceId, Seqno};

        fn codecs(current: u8, old: &[u8]) -> Codecs {
            let old: Vec<[u8; 32]> = old.iter().map(|number| [*number; 32]).collect();
            Codecs::new(Compression::None, 0, Keyring::new(Some(&[current; 32]), &old))
        }

        fn seal(
            codecs: &Codecs,
            kind: RecordKind,
            key: &[u8],
            value: &[u8],
        ) -> (RecordHeader, Vec<u8>) {
            let like =
                RecordHeader { kind, key_len: key.len() as u16, ..header(Method::None, None) };
            let encoded = codecs.encode(kind, like.keyspace, key, value).unwrap();
            (encoded.header(&like), encoded.body)
        }

        fn open(
            codecs: &Codecs,
            header: &RecordHeader,
            body: &[u8],
        ) -> Result<(Vec<u8>, Vec<u8>), FormatError> {
            let (key, value) = body.split_at(usize::from(header.key_len).min(body.len()));
            let plain = codecs.decode(header, value)?.unwrap_or_else(|| value.to_vec());
            Ok((codecs.key(header, key, value)?.into_owned(), plain))
        }

        const KINDS: [RecordKind; 5] = [
            RecordKind::Put,
            RecordKind::Del,
            RecordKind::RangeDel,
            RecordKind::BatchDecision,
            RecordKind::BatchResolve,
        ];

        #[test]
        fn every_kind_comes_back_and_says_nothing() {
            let codecs = codecs(1, &[]);
            let (key, value) = (b"the key of it".as_slice(), b"and the value of it".as_slice());
            for kind in KINDS {
                for (key, value) in
                    [(key, value), (key, &[][..]), (&[][..], value), (&[][..], &[][..])]
                {
                    let (header, body) = seal(&codecs, kind, key, value);
                    assert_eq!(body.len(), key.len() + SEAL_LEN + value.len());
                    assert_eq!(open(&codecs, &header, &body), Ok((key.to_vec(), value.to_vec())));
                    for part in [key, value].into_iter().filter(|part| !part.is_empty()) {
                        assert!(!body.windows(4).any(|at| part.windows(4).any(|p| p == at)));
                    }
                    // SE1
                    assert_ne!(seal(&codecs, kind, key, value).1, body);
                }
            }
        }

        /// SE2: with any bit of the body another, with any field that is vouched for another, and with any
        /// length.
        #[test]
        fn what_was_changed_does_not_open() {
            let codecs = codecs(1, &[2]);
            let (header, body) = seal(&codecs, RecordKind::Put, b"key", b"value");
            for at in 0..body.len() * 8 {
                let mut body = body.clone();
                body[at / 8] ^= 1 << (at % 8);
                assert!(open(&codecs, &header, &body).is_err(), "bit {at}");
            }
            for len in 0..body.len() {
                let value_len = len.saturating_sub(3) as u32;
                let cut = RecordHeader { value_len, ..header };
                assert!(open(&codecs, &cut, &body[..len]).is_err(), "{len} bytes");
            }
            for changed in [
                RecordHeader { keyspace: KeyspaceId(1), ..header },
                RecordHeader { kind: RecordKind::Del, ..header },
                RecordHeader { key_len: 2, value_len: header.value_len + 1, ..header },
                RecordHeader { raw_len: Some(5), ..header },
                RecordHeader {
                    codec: Codec { compression: Method::Lz4, ..header.codec },
                    ..header
                },
            ] {
                assert!(open(&codecs, &changed, &body).is_err(), "{changed:?}");
            }
            // What is not vouched for: what changes the expiry does not open anything.
            let later = RecordHeader { seqno: Seqno(9), expires_at_ms: Some(1), ..header };
            assert!(open(&codecs, &later, &body).is_ok());
            // The value of another record of the same lengths.
            let (_, other) = seal(&codecs, RecordKind::Put, b"key", b"eulav");
            let (mixed_key, mixed_value) = (&body[..3], &other[3..]);
            assert!(open(&codecs, &header, &[mixed_key, mixed_value].concat()).is_err());
            let mut mixed = body.clone();
            mixed[3 + 48..].copy_from_slice(&other[3 + 48..]);
            assert!(open(&codecs, &header, &mixed).is_err(), "its value and tag");
        }

        #[test]
        fn a_key_that_was_not_given_is_named() {
            let (writer, reader) = (codecs(1, &[]), codecs(2, &[3]));
            let (header, body) = seal(&writer, RecordKind::Put, b"key", b"value");
            let missing = FormatError::KeyMissing(writer.key_id());
            assert_eq!(open(&reader, &header, &body), Err(missing.clone()));
            assert_eq!(reader.check_key(writer.key_id()), Err(missing.clone()));
            assert_eq!(reader.renew(&header, &body[..3], &body[3..]).err(), Some(missing));
            assert_ne!(writer.key_id(), reader.key_id());
            assert!(open(&codecs(2, &[3, 1]), &header, &body).is_ok());
            assert!(!format!("{writer:?}").contains('1'), "a key is not printed");
        }

        /// CO3.
        #[test]
        fn what_is_written_again_is_under_the_newest_key() {
            let (old, new) = (codecs(1, &[]), codecs(2, &[1]));
            let (header, body) = seal(&old, RecordKind::Put, b"key", b"value");
            assert!(old.renew(&header, &body[..3], &body[3..]).unwrap().is_none(), "it is already");
            let renewed = new.renew(&header, &body[..3], &body[3..]).unwrap().unwrap();
            let header = renewed.header(&header);
            let only_new = codecs(2, &[]);
            let plain = (b"key".to_vec(), b"value".to_vec());
            assert_eq!(open(&only_new, &header, &renewed.body), Ok(plain.clone()));
            // What was not encrypted is.
            let header =
                RecordHeader { key_len: 3, value_len: 5, ..super::header(Method::None, None) };
            let renewed = new.renew(&header, b"key", b"value").unwrap().unwrap();
            assert_eq!(open(&only_new, &renewed.header(&header), &renewed.body), Ok(plain));
            // Without a key nothing changes.
            let without = codecs_with(Compression::None, 0);
            assert!(without.renew(&header, b"key", b"value").unwrap().is_none());
        }

        /// The format: a store that was written is to be read for ever.
        #[test]
        fn a_sealed_record_of_version_1_opens() {
            assert_eq!(codecs(1, &[]).key_id(), KeyId(GOLDEN_KEY_ID));
            let header = RecordHeader {
                codec: Codec { encryption: Encryption::XChaCha20Poly1305, ..Codec::default() },
                key_len: 3,
                value_len: (SEAL_LEN + 5) as u32,
                ..super::header(Method::None, None)
            };
            let body: Vec<u8> = (0..GOLDEN.len() / 2)
                .map(|at| u8::from_str_radix(&GOLDEN[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            let opened = open(&codecs(1, &[]), &header, &body);
            assert_eq!(opened, Ok((b"key".to_vec(), b"value".to_vec())));
        }

        const GOLDEN_KEY_ID: u64 = 0xdef7_9a67_3076_cf17;
        const GOLDEN: &str = "680d95\
            17cf7630679af7de492f4ffac0eefaa220263ebbe33d7adaf19829f8324e1052\
            da9520cde78f5a412da1e12bab6ccc4497fc896e959f3c519c82bdeced9d7d6a\
            8b5cbe7dbe";
    }
}
