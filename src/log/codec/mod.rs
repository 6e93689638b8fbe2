//! What is between a value as its caller gave it and the bytes that are stored.
//!
//! A record says how its value is stored, so what a store is opened with only decides about new records
//! ([`Codecs::compress`]); everything that hands out values goes through [`Codecs::decode`].
//!
//! ## Invariants
//! - **CO1** Nothing is stored compressed unless that makes it shorter, by enough to be worth a read's time.
//! - **CO2** Memory for a decoded value is taken only as far as the bytes that are there can fill it, and a
//!   value that turns out shorter or longer than its record says is damage, never handed out.

mod compress;

use self::compress::{compress, decompress};
use super::format::FormatError;
use super::format::record::{Codec, Compression as Method, Encryption, RecordHeader};
use crate::limits;
use crate::options::Compression;

/// How the values of a store are stored, and read back.
#[derive(Clone, Debug)]
pub(crate) struct Codecs {
    compression: Compression,
    /// Shorter values are stored as they are.
    compression_len_min: usize,
}

/// A value that is stored compressed.
pub(crate) struct Compressed {
    pub(crate) method: Method,
    pub(crate) bytes: Vec<u8>,
}

impl Compressed {
    pub(crate) fn codec(&self) -> Codec {
        Codec { compression: self.method, ..Codec::default() }
    }
}

impl Codecs {
    pub(crate) fn new(compression: Compression, compression_len_min: usize) -> Codecs {
        Codecs { compression, compression_len_min }
    }

    /// The value compressed, if it is to be and that makes it shorter (CO1).
    pub(crate) fn compress(&self, value: &[u8]) -> Option<Compressed> {
        if value.len() < self.compression_len_min {
            return None;
        }
        let (method, bytes) = compress(self.compression, value)?;
        is_worth_it(value.len(), bytes.len()).then_some(Compressed { method, bytes })
    }

    /// The caller's value, made from the stored one; `None` if it is the stored one.
    ///
    /// An `Err` is damage that no checksum has noticed, or a record that a cargo feature is missing for.
    pub(crate) fn decode(
        &self,
        header: &RecordHeader,
        stored: &[u8],
    ) -> Result<Option<Vec<u8>>, FormatError> {
        if header.codec == Codec::default() {
            return Ok(None);
        }
        self.can_decode(header.codec)?;
        if header.codec.compression == Method::None {
            return Ok(None);
        }
        let raw_len = header.raw_len.ok_or_else(|| {
            FormatError::invalid("a compressed value does not say how long it is")
        })?;
        let raw_len = usize::try_from(raw_len)
            .ok()
            .filter(|len| *len <= limits::VALUE_LEN_MAX)
            .ok_or_else(|| FormatError::invalid("a compressed value claims to be too long"))?;
        let value = decompress(header.codec.compression, stored, raw_len)?;
        if value.len() == raw_len {
            Ok(Some(value))
        } else {
            Err(FormatError::invalid("a compressed value is not as long as it claims"))
        }
    }

    /// Whether this build reads what is stored so; the error names the feature that is missing.
    #[expect(clippy::unused_self, reason = "keys of encrypted values will be here")]
    pub(crate) fn can_decode(&self, codec: Codec) -> Result<(), FormatError> {
        match codec {
            Codec { encryption: Encryption::XChaCha20Poly1305, .. } => {
                Err(FormatError::FeatureMissing { what: "encrypted", feature: "encryption" })
            }
            Codec { compression: Method::Lz4, .. } if !cfg!(feature = "lz4") => {
                Err(FormatError::FeatureMissing { what: "compressed with LZ4", feature: "lz4" })
            }
            Codec { compression: Method::Zstd, .. } if !cfg!(feature = "zstd") => {
                Err(FormatError::FeatureMissing { what: "compressed with zstd", feature: "zstd" })
            }
            Codec { .. } => Ok(()),
        }
    }
}

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
    use crate::log::format::record::RecordKind;
    use crate::types::{KeyspaceId, Seqno};

    fn header(compression: Method, raw_len: Option<u64>) -> RecordHeader {
        RecordHeader {
            seqno: Seqno(1),
            kind: RecordKind::Put,
            keyspace: KeyspaceId(0),
            codec: Codec { compression, ..Codec::default() },
            expires_at_ms: None,
            batch: None,
            raw_len,
            key_len: 1,
            value_len: 0,
            body_crc: 0,
        }
    }

    fn settings() -> Vec<Compression> {
        let mut settings = vec![Compression::None];
        #[cfg(feature = "lz4")]
        settings.push(Compression::Lz4);
        #[cfg(feature = "zstd")]
        settings.extend([-7, 1, 3, 19].map(|level| Compression::Zstd { level }));
        settings
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
        let codecs = settings().into_iter().map(|setting| Codecs::new(setting, 0));
        let codecs: Vec<Codecs> = codecs.collect();
        let mut compressed_count = 0;
        for (writer, value) in codecs.iter().flat_map(|writer| values().map(move |v| (writer, v))) {
            let Some(compressed) = writer.compress(&value) else { continue };
            compressed_count += 1;
            let header = header(compressed.method, Some(value.len() as u64));
            for reader in &codecs {
                let decoded = reader.decode(&header, &compressed.bytes).unwrap();
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
            let codecs = Codecs::new(setting, 1000);
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
                let codecs = Codecs::new(setting, 0);
                let Some(Compressed { method, bytes }) = codecs.compress(&value) else { continue };
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
            let codecs = Codecs::new(Compression::None, 0);
            let answer = codecs.can_decode(header(method, None).codec);
            assert_eq!(answer.is_ok(), is_built_in, "{feature}");
            if let Err(error) = answer {
                let error = error.at(std::path::Path::new("partition-000"), 0);
                assert_eq!(error.kind(), crate::ErrorKind::FeatureMissing);
                assert!(error.to_string().contains(&format!("`{feature}`")), "{error}");
            }
        }
    }
}
