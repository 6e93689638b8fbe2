//! Values as they are stored.

use std::path::Path;

use super::{check_error, split_length};
use crate::log::codec::{Codecs, Keyring};
use crate::log::format::record::{
    Codec, Compression as Method, Encryption, RecordHeader, RecordKind,
};
use crate::options::Compression;

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
    let codecs = Codecs::new(Compression::None, 0, Keyring::default());
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
        let codecs = Codecs::new(*setting, 0, Keyring::default());
        let Some((method, compressed)) = codecs.compress(value) else { continue };
        assert!(compressed.len() < value.len(), "CO1");
        let header = header(method, value.len() as u64);
        let again = codecs.decode(&header, &compressed).expect("it was just compressed");
        assert!(again.is_some_and(|again| again == value), "it comes back");
    }
}

/// A number, which says what is changed, and the bytes of a sealed record.
pub(super) fn sealed_record(bytes: &[u8]) {
    let Some((number, body)) = split_length(bytes) else { return };
    let key_len = (number % 64) as usize;
    let Some((key, value)) = body.split_at_checked(key_len) else { return };
    let codecs = Codecs::new(Compression::None, 0, Keyring::new(Some(&[7; 32]), &[]));
    // Nobody makes up what decrypts.
    let made_up = RecordHeader {
        codec: Codec { encryption: Encryption::XChaCha20Poly1305, ..Codec::default() },
        raw_len: None,
        key_len: key_len as u16,
        value_len: value.len() as u32,
        ..header(Method::None, 0)
    };
    let refused = [
        codecs.key(&made_up, key, value).err(),
        codecs.decode(&made_up, value).err(),
        // What names the newest key is not looked at, only copied.
        codecs.renew(&made_up, key, value).err(),
    ];
    for why in refused.into_iter().flatten() {
        let said = why.at(Path::new("some file"), 0).to_string();
        assert!(!said.is_empty());
    }
    assert!(codecs.key(&made_up, key, value).is_err() && codecs.decode(&made_up, value).is_err());
    for kind in [RecordKind::Put, RecordKind::Del, RecordKind::RangeDel] {
        sealed_again(&codecs, kind, key, value, number);
    }
}

/// Whatever is sealed comes back, and nothing of it once a byte is another.
fn sealed_again(codecs: &Codecs, kind: RecordKind, key: &[u8], value: &[u8], number: u64) {
    let like = RecordHeader { kind, key_len: key.len() as u16, ..header(Method::None, 0) };
    let Some(mut encoded) = codecs.encode(kind, like.keyspace, key, value) else { return };
    let sealed = encoded.header(&like);
    let (stored_key, stored) = encoded.body.split_at(key.len());
    let plain_key = codecs.key(&sealed, stored_key, stored).expect("it was just sealed");
    assert_eq!(&*plain_key, key);
    let plain = codecs.decode(&sealed, stored).expect("it was just sealed");
    assert!(plain.is_some_and(|plain| plain == value));
    assert!(matches!(codecs.renew(&sealed, stored_key, stored), Ok(None)), "it has the newest key");
    let at = (number / 64) as usize % encoded.body.len();
    encoded.body[at] ^= 1 << (number % 8);
    let (stored_key, stored) = encoded.body.split_at(key.len());
    let is_refused =
        codecs.key(&sealed, stored_key, stored).is_err() || codecs.decode(&sealed, stored).is_err();
    assert!(is_refused, "byte {at} is another");
}

fn header(compression: Method, raw_len: u64) -> RecordHeader {
    let codec = Codec { compression, ..Codec::default() };
    RecordHeader { codec, raw_len: Some(raw_len), ..RecordHeader::put(1, b"k", b"") }
}
