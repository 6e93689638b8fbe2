//! The keys in a stretch of a data file that begins with a commit group.

use super::codec::Codecs;
use super::data_file::DataFile;
use super::format::group::{GROUP_HEADER_LEN, GroupHeader, GroupKind};
use super::format::record::{RECORD_HEADER_LEN_MAX, RecordHeader, SEAL_LEN, decode_record};
use super::scanner::RecordAt;
use crate::error::{Error, Result};
use crate::limits;

/// Bytes of a stretch, unless its first group needs more: a group is read whole, which is at most
/// `GROUP_LEN_MAX`, or by its head if it is one long record.
pub(crate) const STRETCH_LEN: u64 = 1 << 20;

const _: () = assert!(
    GROUP_HEADER_LEN + RECORD_HEADER_LEN_MAX + limits::KEY_LEN_MAX + SEAL_LEN
        < STRETCH_LEN as usize,
    "the head of a long record, key and seal included, is in its stretch"
);

/// How far a stretch was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StretchRead {
    /// Up to here, which is farther than where it began.
    Upto(u64),
    /// The first group needs this many bytes.
    Longer(u64),
}

/// Hands the records, with plain keys, to `take` of the groups that `bytes`, which lie at `from` in the file, hold whole. The
/// records of the file end at `end`.
///
/// A long record is alone in its group (W5). Its key is at hand, and its value is not needed if `is_known`
/// vouches for the key's bytes; otherwise the checksum has to, over all of the record. Without its value it
/// is handed over with an empty one.
///
/// # Errors
/// `Corrupt` if a checksum does not hold.
pub(crate) fn read_stretch(
    codecs: &Codecs,
    data: &DataFile,
    bytes: &[u8],
    from: u64,
    end: u64,
    is_known: &mut dyn FnMut(&RecordHeader, &[u8]) -> bool,
    take: &mut dyn FnMut(RecordAt<'_>),
) -> Result<StretchRead> {
    let mut at = 0;
    while from + (at as u64) < end {
        let offset = from + at as u64;
        let damaged = |what| Error::corrupt(&data.path, offset, what);
        let Some(head) = bytes.get(at..at + GROUP_HEADER_LEN) else { break };
        let (header, _) = GroupHeader::decode(head, data.identity).map_err(damaged)?;
        if header.kind == GroupKind::ClosingMark {
            return Err(Error::corrupt(&data.path, offset, "a closing mark is not at the end"));
        }
        let group_end = at + GROUP_HEADER_LEN + header.payload_len as usize;
        if from + group_end as u64 > end {
            return Err(Error::corrupt(&data.path, offset, "a group is longer than its file"));
        }
        let Some(group) = bytes.get(at + GROUP_HEADER_LEN..group_end) else {
            if at > 0 {
                break;
            }
            let longer = Ok(StretchRead::Longer(group_end as u64));
            if header.record_count > 1 {
                return longer;
            }
            let rest = bytes.get(GROUP_HEADER_LEN..).unwrap_or_default();
            let offset = offset + GROUP_HEADER_LEN as u64;
            let (record, _) = RecordHeader::decode(rest, data.place(offset)).map_err(damaged)?;
            let key_at = record.header_len();
            let Some(key) = rest.get(key_at..key_at + usize::from(record.key_len)) else {
                return longer;
            };
            // Of a key that is encrypted its own tag vouches too.
            let behind = rest.get(key_at + key.len()..).unwrap_or_default();
            let Ok(key) = codecs.key(&record, key, behind) else { return longer };
            if !is_known(&record, &key) {
                return longer;
            }
            let len = record.record_len();
            take(RecordAt { offset, len, header: &record, key: &key, value: &[] });
            return Ok(StretchRead::Upto(from + group_end as u64));
        };
        let mut rest = group;
        while !rest.is_empty() {
            let offset = from + (group_end - rest.len()) as u64;
            let record = decode_record(rest, data.place(offset))
                .map_err(|what| Error::corrupt(&data.path, offset, what))?;
            let len = record.header.record_len();
            let (header, value) = (&record.header, record.value);
            let key = codecs.key(header, record.key, value);
            let key = key.map_err(|why| why.at(&data.path, offset))?;
            take(RecordAt { offset, len, header, key: &key, value });
            rest = rest.get(len as usize..).unwrap_or_default();
        }
        at = group_end;
    }
    if at > 0 {
        Ok(StretchRead::Upto(from + at as u64))
    } else {
        Err(Error::corrupt(&data.path, from, "the file was cut short"))
    }
}
