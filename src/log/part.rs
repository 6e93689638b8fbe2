//! A part of a value, out of a record that is read in pieces.
//!
//! One checksum covers all of key and value, so all of the record has to be read before a byte of it may be
//! handed out; but not all of it at once. What is kept in memory is the part, and the piece at hand.

use std::ops::Range;

use super::format::data_header::Place;
use super::format::record::{Codec, RecordHeader, body_crc};
use super::format::{FormatError, check_crc};
use crate::types::KeyspaceId;

/// A record on its way.
pub(crate) struct PartReader {
    header: RecordHeader,
    /// Where in the record the value is.
    value: Range<u64>,
    /// Where in the record the part is.
    wanted: Range<u64>,
    part: Vec<u8>,
    /// Of key and value as far as they were read.
    body_crc: u32,
    /// Bytes of the record that were read.
    at: u64,
}

/// What the beginning of a record says.
pub(crate) enum Begun {
    Reading(Box<PartReader>),
    /// A part of what is stored is no part of the value.
    Coded,
    OtherKey,
}

impl PartReader {
    /// Begins with the head of the record at `place`, its key included; the part is `range` of the value, as far
    /// as that goes.
    pub(crate) fn begin(
        head: &[u8],
        place: Place,
        (keyspace, key): (KeyspaceId, &[u8]),
        range: &Range<u64>,
    ) -> Result<Begun, FormatError> {
        let (header, _) = RecordHeader::decode(head, place)?;
        // Before the key is compared, which may be encrypted.
        if header.codec != Codec::default() {
            return Ok(Begun::Coded);
        }
        let start = header.header_len() + usize::from(header.key_len);
        let found = head.get(header.header_len()..start);
        let found = found.ok_or(FormatError::Incomplete { need: start })?;
        if found != key || header.keyspace != keyspace {
            return Ok(Begun::OtherKey);
        }
        let (start, len) = (start as u64, u64::from(header.value_len));
        let wanted = start + range.start.min(len)..start + range.end.min(len);
        let mut reader = PartReader {
            value: start..start + len,
            part: Vec::with_capacity(wanted.end.saturating_sub(wanted.start) as usize),
            wanted,
            body_crc: body_crc(key, &[]),
            at: start,
            header,
        };
        reader.push(&head[start as usize..])?;
        Ok(Begun::Reading(Box::new(reader)))
    }

    /// Where in the record the next piece begins, and how many bytes there are from there on.
    pub(crate) fn rest(&self) -> (u64, u64) {
        (self.at, u64::from(self.header.record_len()) - self.at)
    }

    /// The next bytes of the record; more than there are belong to something else.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let (_, rest) = self.rest();
        let bytes = &bytes[..bytes.len().min(usize::try_from(rest).unwrap_or(usize::MAX))];
        let value = self.overlap(&self.value, bytes);
        self.body_crc = crc32c::crc32c_append(self.body_crc, &bytes[value.clone()]);
        if bytes[value.end..].iter().any(|byte| *byte != 0) {
            return Err(FormatError::invalid("the padding of a record is not zero"));
        }
        let wanted = self.overlap(&self.wanted, bytes);
        self.part.extend_from_slice(&bytes[wanted]);
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Which of the bytes are in this range of the record.
    fn overlap(&self, range: &Range<u64>, bytes: &[u8]) -> Range<usize> {
        let within = |at: u64| at.clamp(self.at, self.at + bytes.len() as u64) - self.at;
        let (start, end) = (within(range.start), within(range.end));
        start as usize..end.max(start) as usize
    }

    /// The part, if all of the record was read and is sound.
    pub(crate) fn finish(self) -> Result<(RecordHeader, Vec<u8>), FormatError> {
        let len = self.header.record_len();
        if self.at < u64::from(len) {
            return Err(FormatError::Incomplete { need: len as usize });
        }
        check_crc("record body", self.header.body_crc, self.body_crc)?;
        Ok((self.header, self.part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::data_header::FileIdentity;
    use crate::log::format::record::encode_record;
    use crate::types::{FileId, PartitionId, StoreId};

    fn place() -> Place {
        FileIdentity::new(StoreId([7; 16]), PartitionId(1), FileId(2)).at(4096)
    }

    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let header = RecordHeader::put(5, key, value);
        let mut bytes = Vec::new();
        encode_record(&mut bytes, place(), &header, [key, value]);
        bytes
    }

    fn part(bytes: &[u8], range: Range<u64>, step: usize) -> Result<Vec<u8>, FormatError> {
        let begun = PartReader::begin(
            &bytes[..64.min(bytes.len())],
            place(),
            (KeyspaceId(0), b"key"),
            &range,
        )?;
        let Begun::Reading(mut reader) = begun else { panic!("it is the key's") };
        loop {
            let (at, rest) = reader.rest();
            if rest == 0 {
                return reader.finish().map(|(_, part)| part);
            }
            let end = (at as usize + step).min(bytes.len());
            reader.push(&bytes[at as usize..end])?;
        }
    }

    #[test]
    fn a_part_is_what_a_slice_is() {
        let random = &mut fastrand::Rng::with_seed(1);
        for len in [0, 1, 20, 29, 30, 300, 3000] {
            let value: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            let bytes = record(b"key", &value);
            for _ in 0..200 {
                let (start, end) = (random.u64(..len as u64 + 5), random.u64(..len as u64 + 5));
                let slice = |at: u64| (at as usize).min(len);
                let expected = value.get(slice(start)..slice(end)).unwrap_or_default();
                let found = part(&bytes, start..end, random.usize(1..500)).unwrap();
                assert_eq!(found, expected, "{start}..{end} of {len}");
            }
            assert_eq!(part(&bytes, 0..u64::MAX, 7).unwrap(), value);
        }
    }

    /// Breaks if a byte that was not asked for may be damaged.
    #[test]
    fn every_flip_is_refused() {
        let bytes = record(b"key", &[9; 150]);
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let key = (KeyspaceId(0), b"key".as_slice());
            let other_key = matches!(
                PartReader::begin(&flipped[..64], place(), key, &(3..4)),
                Ok(Begun::OtherKey)
            );
            // Only its bytes say whose key it is: the header does not cover them.
            assert_eq!(other_key, (32..35).contains(&(at / 8)), "bit {at}");
            assert!(other_key || part(&flipped, 3..4, 40).is_err(), "bit {at}");
        }
        for len in 0..bytes.len() {
            let cut = &bytes[..len];
            let key = (KeyspaceId(0), b"key".as_slice());
            match PartReader::begin(cut, place(), key, &(0..9)) {
                Ok(Begun::Reading(reader)) => assert!(reader.finish().is_err(), "{len}"),
                begun => assert!(begun.is_err(), "{len}"),
            }
        }
    }
}
