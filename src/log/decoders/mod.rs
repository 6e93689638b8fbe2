//! What every decoder holds to, whatever bytes it is given: the half of fuzzing that knows the format.
//!
//! A function here takes any bytes, decodes them, and panics if a promise is broken: that nothing
//! panics (L1), that what was decoded encodes to the same bytes again where the format leaves no
//! choice, that two ways to read the same bytes agree. `fuzz/` looks for bytes that break one, the
//! test `corpus` gives them every input that is kept, Miri runs that test too.
//!
//! Made-up bytes never have the right checksums, so every function looks at its input twice: as it is,
//! and with its checksums made good (`forge_…` beside each format), which is what gets behind them.

mod codec;
mod data_file;
mod hint;

use std::path::Path;

use super::files::FilesList;
use super::format::FormatError;
use super::format::data_header::{DataHeader, FileIdentity, Place, forge_data_header};
use super::format::group::{Chain, GroupHeader, forge_group_header};
use super::format::record::{RecordHeader, decode_record, encode_record, forge_record};
use super::manifest::Manifest;

/// A decoder under its name, and what holds it to its promises.
pub type Decoder = (&'static str, fn(&[u8]));

/// All of them. A new decoder is added here.
pub const DECODERS: [Decoder; 13] = [
    ("record", record),
    ("compressed_value", codec::compressed_value),
    ("sealed_record", codec::sealed_record),
    ("group_header", group_header),
    ("data_header", data_header),
    ("files", files),
    ("manifest", manifest),
    ("hint_trailer", hint::trailer),
    ("hint_block", hint::block),
    ("hint_index", hint::index),
    ("hint_filter", hint::filter),
    ("hint_file", hint::file),
    ("data_file", data_file::data_file),
];

/// Makes the checksums of a made-up data file good, as far as it is one.
pub fn forge_data_file(bytes: &mut [u8]) {
    data_file::forge_file(bytes);
}

/// Makes the checksums of a made-up hint good, as far as it is one.
pub fn forge_hint_file(bytes: &mut [u8]) {
    hint::forge_file(bytes);
}

/// Makes the checksum of a made-up `FILES` good.
pub fn forge_files(bytes: &mut [u8]) {
    FilesList::forge(bytes);
}

/// Makes the checksum of a made-up MANIFEST good.
pub fn forge_manifest(bytes: &mut [u8]) {
    Manifest::forge(bytes);
}

/// The identity that inputs smaller than a file are checked against.
const IDENTITY: FileIdentity = FileIdentity(0x210d_8c8e);
/// Where records that come alone are taken to be.
const PLACE: Place = Place { identity: IDENTITY, offset: 176 };

/// Checks the bytes as they are, and with their checksums made good.
fn each_form(bytes: &[u8], forge: impl FnOnce(&mut [u8]), check: impl Fn(&[u8])) {
    check(bytes);
    let mut forged = bytes.to_vec();
    forge(&mut forged);
    if forged != bytes {
        check(&forged);
    }
}

/// Whatever was wrong can be said, and who asks for more bytes asks for more than there are.
fn check_error(why: FormatError, len: usize) {
    if let FormatError::Incomplete { need } = why {
        assert!(need > len, "of {len} bytes {need} are needed");
    }
    let said = why.at(Path::new("some file"), 0).to_string();
    assert!(!said.is_empty());
}

/// The integer in front of an input that needs a length beside its bytes.
fn split_length(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*length), rest))
}

fn record(bytes: &[u8]) {
    each_form(bytes, |bytes| forge_record(bytes, PLACE), check_record);
}

fn check_record(bytes: &[u8]) {
    let record = match decode_record(bytes, PLACE) {
        Ok(record) => record,
        Err(why) => return check_error(why, bytes.len()),
    };
    let len = record.header.record_len() as usize;
    let mut again = Vec::new();
    encode_record(&mut again, PLACE, &record.header, [record.key, record.value]);
    assert_eq!(again, bytes[..len], "a record has one form");
    assert!(RecordHeader::may_start_with(bytes), "a search would pass over the record");
    let (header, header_crc) = RecordHeader::decode(bytes, PLACE).expect("it was decoded");
    assert_eq!((header, header_crc), (record.header, record.header_crc));
    let cut = decode_record(&bytes[..len - 1], PLACE);
    assert!(matches!(cut, Err(FormatError::Incomplete { .. })), "{cut:?}");
}

fn group_header(bytes: &[u8]) {
    each_form(bytes, |bytes| forge_group_header(bytes, IDENTITY), check_group_header);
}

fn check_group_header(bytes: &[u8]) {
    let (header, crc) = match GroupHeader::decode(bytes, IDENTITY) {
        Ok(decoded) => decoded,
        Err(why) => return check_error(why, bytes.len()),
    };
    let (again, crc_again) = header.encode(IDENTITY);
    assert_eq!((again.as_slice(), crc_again), (&bytes[..again.len()], crc), "it has one form");
    let word = bytes.first_chunk().expect("a header is longer than a word");
    assert!(GroupHeader::may_start_with(*word), "a search would pass over the group");
    let GroupHeader { open_id, number, previous, durable_through, .. } = header;
    let chain = Chain { open_id, number, previous };
    for offset in [0, durable_through.saturating_sub(1), durable_through, u64::MAX] {
        assert_eq!(chain.admit(&header, offset).is_ok(), durable_through <= offset, "GR2");
    }
    let elsewhere = Chain { number: number.wrapping_add(1), ..chain };
    assert!(elsewhere.admit(&header, u64::MAX).is_err(), "GR1");
}

fn data_header(bytes: &[u8]) {
    each_form(bytes, forge_data_header, check_data_header);
}

fn check_data_header(bytes: &[u8]) {
    let (header, crc) = match DataHeader::decode(bytes) {
        Ok(decoded) => decoded,
        Err(why) => return check_error(why, bytes.len()),
    };
    let (again, crc_again) = header.encode();
    assert_eq!((again.as_slice(), crc_again), (&bytes[..again.len()], crc), "it has one form");
    assert_eq!(header.check_expected(&data_file::expected_of(&header)), Ok(()));
}

fn files(bytes: &[u8]) {
    each_form(bytes, FilesList::forge, check_files);
}

fn check_files(bytes: &[u8]) {
    match FilesList::decode(bytes) {
        Ok(list) => assert_eq!(list.encode(), bytes, "a list has one form"),
        Err(why) => check_error(why, bytes.len()),
    }
}

fn manifest(bytes: &[u8]) {
    each_form(bytes, Manifest::forge, check_manifest);
}

fn check_manifest(bytes: &[u8]) {
    match Manifest::decode(bytes) {
        Ok(manifest) => {
            let text = manifest.encode().expect("what was read can be written");
            assert_eq!(Manifest::decode(text.as_bytes()), Ok(manifest));
        }
        Err(why) => check_error(why, bytes.len()),
    }
}
