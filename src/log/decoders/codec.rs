//! Values as they are stored.

use super::check_error;
use crate::log::codec::Codecs;
use crate::log::format::record::{Codec, Compression as Method, RecordHeader, RecordKind};
use crate::options::Compression;
use crate::types::{KeyspaceId, Seqno};

/// A few bytes may well stand for gigabytes; that those are taken only as they come out is for a unit test,
/// because here memory is counted.
const RAW_LEN_MAX: u64 = 16 << 20;

/// How it is compressed, how long the value claims to be, and the stored value.
pub(super) fn compressed_value(bytes: &[u8]) {
    let Some((method, rest)) = bytes.split_first() else { return };
    let Some((raw_len, stored)) = rest.split_first_chunk() else { return };
    let raw_len = u64::from_le_bytes(*raw_len) % RAW_LEN_MAX;
    let method = if method % 2 == 0 { Method::Lz4 } else { Method::Zstd };
    if cfg!(miri) && method == Method::Zstd {
        return; // It is C.
    }
    let codecs = Codecs::new(Compression::None, 0);
    match codecs.decode(&header(method, raw_len), stored) {
        Ok(value) => {
            let value = value.expect("it was compressed");
            assert_eq!(value.len() as u64, raw_len, "CO2");
            compressed_again(&value);
        }
        Err(why) => check_error(why, bytes.len()),
    }
}

/// Whatever can be stored comes back.
fn compressed_again(value: &[u8]) {
    let settings: &[Compression] = &[
        #[cfg(feature = "lz4")]
        Compression::Lz4,
        #[cfg(all(feature = "zstd", not(miri)))]
        Compression::Zstd { level: 1 },
    ];
    for setting in settings {
        let codecs = Codecs::new(*setting, 0);
        let Some(compressed) = codecs.compress(value) else { continue };
        assert!(compressed.bytes.len() < value.len(), "CO1");
        let header = header(compressed.codec().compression, value.len() as u64);
        let again = codecs.decode(&header, &compressed.bytes).expect("it was just compressed");
        assert!(again.is_some_and(|again| again == value), "it comes back");
    }
}

fn header(compression: Method, raw_len: u64) -> RecordHeader {
    RecordHeader {
        seqno: Seqno(1),
        kind: RecordKind::Put,
        keyspace: KeyspaceId(0),
        codec: Codec { compression, ..Codec::default() },
        expires_at_ms: None,
        batch: None,
        raw_len: Some(raw_len),
        key_len: 1,
        value_len: 0,
        body_crc: 0,
    }
}
