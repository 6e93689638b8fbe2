//! Range tombstones of a data file, whole, in front of the trailer of its hint.
//!
//! A hint has one entry a key, and a range tombstone has none: the key it begins with may have a record of
//! its own. So they are a list beside the entries, which whoever opens the hint has read with its trailer.
//!
//! | offset | size | field of a line |
//! | --- | --- | --- |
//! | 0 | 8 | sequence number |
//! | 8 | 4 | keyspace |
//! | 12 | 4 | where the record begins in the data file |
//! | 16 | 4 | length of the record, padding included |
//! | 20 | 4 | length of the key at which the range ends, 0 if it has no end |
//! | 24 | 2 | length of the key at which the range begins |
//! | 26 | 2 | zero |
//! | 28 | | the first of them, then the other |
//!
//! ## Invariants
//! - **HR1** Sequence numbers increase. Each is of the data file's range, and its record inside of the file.

use bytes::Bytes;

use super::super::{FormatError, put, u16_at, u32_at, u64_at};
use crate::log::files::SealedFile;
use crate::ranges::RangeDel;
use crate::types::{KeyspaceId, Seqno};

const AT_SEQNO: usize = 0;
const AT_KEYSPACE: usize = 8;
const AT_OFFSET: usize = 12;
const AT_RECORD_LEN: usize = 16;
const AT_END_LEN: usize = 20;
const AT_BEGIN_LEN: usize = 24;
const AT_RESERVED: usize = 26;
const LINE_LEN: usize = 28;

const _: () = assert!(AT_RESERVED + size_of::<u16>() == LINE_LEN);

/// A range tombstone, and where its record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HintRange {
    pub(crate) range: RangeDel,
    pub(crate) offset: u32,
    /// Length of the record in bytes, padding included.
    pub(crate) len: u32,
}

/// The list of `ranges`, which are in order (HR1).
pub(super) fn encode(ranges: &[HintRange], bytes: &mut Vec<u8>) {
    for HintRange { range, offset, len } in ranges {
        let mut line = [0; LINE_LEN];
        put(&mut line, AT_SEQNO, range.seqno.0.to_le_bytes());
        put(&mut line, AT_KEYSPACE, range.keyspace.0.to_le_bytes());
        put(&mut line, AT_OFFSET, offset.to_le_bytes());
        put(&mut line, AT_RECORD_LEN, len.to_le_bytes());
        put(&mut line, AT_END_LEN, (range.end.len() as u32).to_le_bytes());
        put(&mut line, AT_BEGIN_LEN, (range.begin.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&line);
        bytes.extend_from_slice(&range.begin);
        bytes.extend_from_slice(&range.end);
    }
}

/// The ranges that `bytes`, verified and all of them, list.
pub(super) fn decode(mut bytes: &[u8], sealed: &SealedFile) -> Result<Vec<HintRange>, FormatError> {
    let mut ranges: Vec<HintRange> = Vec::new();
    while !bytes.is_empty() {
        let begin_len = usize::from(u16_at(bytes, AT_BEGIN_LEN)?);
        let end_len = u32_at(bytes, AT_END_LEN)? as usize;
        let line_len = LINE_LEN + begin_len + end_len;
        let incomplete = FormatError::Incomplete { need: line_len };
        let (line, rest) = bytes.split_at_checked(line_len).ok_or(incomplete)?;
        let (begin, end) = line[LINE_LEN..].split_at(begin_len);
        if u16_at(line, AT_RESERVED)? != 0 {
            return Err(FormatError::Unsupported("a reserved field of a range in a hint"));
        }
        let made = HintRange {
            range: RangeDel {
                keyspace: KeyspaceId(u32_at(line, AT_KEYSPACE)?),
                begin: Bytes::copy_from_slice(begin),
                end: Bytes::copy_from_slice(end),
                seqno: Seqno(u64_at(line, AT_SEQNO)?),
            },
            offset: u32_at(line, AT_OFFSET)?,
            len: u32_at(line, AT_RECORD_LEN)?,
        };
        let seqno = made.range.seqno;
        let is_in_file = u64::from(made.offset) + u64::from(made.len) <= sealed.len
            && (sealed.seqno_min..=sealed.seqno_max).contains(&seqno);
        let is_behind = ranges.last().is_none_or(|before| before.range.seqno < seqno);
        if !is_in_file || !is_behind {
            return Err(FormatError::invalid("a range of the hint is not of its file (HR1)"));
        }
        ranges.push(made);
        bytes = rest;
    }
    Ok(ranges)
}
