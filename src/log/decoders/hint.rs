//! Parts of a hint, and hints as a whole.

use super::{IDENTITY, check_error, each_form, split_length};
use crate::limits;
use crate::log::files::SealedFile;
use crate::log::format::data_header::{
    DATA_HEADER_LEN, DataHeader, FileIdentity, forge_data_header,
};
use crate::log::format::hint::block::{Block, BlockBuilder, EntryDecoder, HintEntry, forge_block};
use crate::log::format::hint::filter::Filter;
use crate::log::format::hint::index::{Index, encode_count, encode_line};
use crate::log::format::hint::{HintKey, TRAILER_LEN, Trailer, forge_section, forge_trailer};
use crate::log::hint_file::HintFile;
use crate::types::{FileId, KeyHash, Seqno};

/// The length of the hint, then both keys and the trailer.
pub(super) fn trailer(bytes: &[u8]) {
    let Some((file_len, bytes)) = split_length(bytes) else { return };
    each_form(
        bytes,
        |bytes| forge_trailer(bytes, file_len, IDENTITY),
        |bytes| check_trailer(bytes, file_len),
    );
}

fn check_trailer(bytes: &[u8], file_len: u64) {
    let (keys, trailer) = bytes.split_at(bytes.len().saturating_sub(TRAILER_LEN));
    let trailer = match Trailer::decode(trailer, file_len, IDENTITY) {
        Ok(trailer) => trailer,
        Err(why) => return check_error(why, trailer.len()),
    };
    let section = trailer.keys();
    assert!(section.offset + section.len + TRAILER_LEN as u64 == file_len, "HI3");
    if let Ok(tail) = trailer.with_keys(keys, IDENTITY) {
        assert_eq!(tail.encode(IDENTITY), bytes, "a trailer has one form");
    }
}

/// A block of a hint whose data file could have any entry.
pub(super) fn block(bytes: &[u8]) {
    each_form(bytes, |bytes| forge_block(bytes, IDENTITY), check_block);
}

fn check_block(bytes: &[u8]) {
    let sealed = SealedFile {
        id: FileId(1),
        len: limits::DATA_FILE_LEN_LIMIT,
        digest: 0,
        records: u64::MAX,
        seqno_min: Seqno(0),
        seqno_max: Seqno(u64::MAX),
    };
    let block = match Block::decode(bytes, IDENTITY) {
        Ok(block) => block,
        Err(why) => return check_error(why, 0),
    };
    let mut decoder = EntryDecoder::new(&sealed);
    let Some(entries) = entries_of(block, &mut decoder) else { return };
    assert!(
        entries.windows(2).all(|pair| pair[0].key_pair() < pair[1].key_pair()),
        "HI1: keys increase"
    );
    let mut builder = BlockBuilder::new();
    for entry in &entries {
        builder.push(&entry.as_entry(), sealed.seqno_min);
    }
    let again = builder.finish(IDENTITY);
    assert!(again.len() <= bytes.len(), "the builder takes the shortest form");
    let again = Block::decode(again, IDENTITY).expect("what was built is decoded");
    let mut decoder = EntryDecoder::new(&sealed);
    assert!(entries_of(again, &mut decoder).is_some_and(|again| again == entries));
    check_restarts(block, &sealed, &entries);
}

/// A block can be entered at each restart, and is the same from there on.
fn check_restarts(block: Block<'_>, sealed: &SealedFile, entries: &[Kept]) {
    let mut len_before = entries.len() + 1;
    for restart in 0..block.restart_count() {
        let mut decoder = EntryDecoder::new(sealed);
        let mut rest = block.entries_from(restart).expect("every restart was passed");
        let mut found = Vec::new();
        while let Some(entry) = rest.next(&mut decoder) {
            found.push(Kept::of(&entry.expect("the entries were decoded")));
        }
        assert!(found.len() < len_before && entries.ends_with(&found), "restart {restart}");
        len_before = found.len();
    }
}

/// An entry of which the decoder has moved on.
#[derive(Clone, PartialEq, Eq)]
struct Kept {
    key: Vec<u8>,
    entry: HintEntry<'static>,
}

impl Kept {
    fn of(entry: &HintEntry<'_>) -> Kept {
        Kept { key: entry.key.to_vec(), entry: HintEntry { key: &[], ..*entry } }
    }

    fn as_entry(&self) -> HintEntry<'_> {
        HintEntry { key: &self.key, ..self.entry }
    }

    fn key_pair(&self) -> (u32, &[u8]) {
        (self.entry.keyspace.0, &self.key)
    }
}

fn entries_of(block: Block<'_>, decoder: &mut EntryDecoder) -> Option<Vec<Kept>> {
    let mut kept = Vec::new();
    let mut entries = match block.entries_from(0) {
        Ok(entries) => entries,
        Err(why) => {
            check_error(why, 0);
            return None;
        }
    };
    while let Some(entry) = entries.next(decoder) {
        match entry {
            Ok(entry) => kept.push(Kept::of(&entry)),
            Err(why) => {
                check_error(why, 0);
                return None;
            }
        }
    }
    Some(kept)
}

/// Where the blocks end, then the index.
pub(super) fn index(bytes: &[u8]) {
    let Some((blocks_end, bytes)) = split_length(bytes) else { return };
    each_form(
        bytes,
        |bytes| forge_section(bytes, IDENTITY),
        |bytes| check_index(bytes, blocks_end),
    );
}

fn check_index(bytes: &[u8], blocks_end: u64) {
    let Ok(index) = Index::decode(bytes.to_vec(), blocks_end, IDENTITY) else { return };
    let mut again = encode_count(index.len() as u32).to_vec();
    let mut end = DATA_HEADER_LEN as u64;
    for number in 0..index.len() {
        let block = index.get(number).expect("there is a line for each block");
        assert_eq!(block.place.offset, end, "IX1");
        end += block.place.len;
        assert_eq!(index.find(block.keyspace, block.key), Some(number));
        again.extend_from_slice(&encode_line(block.place.len as u32, block.keyspace, block.key));
        again.extend_from_slice(block.key);
    }
    assert_eq!(end, blocks_end, "IX1");
    again.extend_from_slice(&[0; 4]);
    forge_section(&mut again, IDENTITY);
    assert_eq!(again, bytes, "an index has one form");
    assert!(index.get(index.len()).is_none());
}

/// The number of entries, then the filter.
pub(super) fn filter(bytes: &[u8]) {
    let Some((entries, bytes)) = split_length(bytes) else { return };
    each_form(bytes, |bytes| forge_section(bytes, IDENTITY), |bytes| check_filter(bytes, entries));
}

fn check_filter(bytes: &[u8], entries: u64) {
    let Ok(mut filter) = Filter::decode(bytes, entries, IDENTITY) else { return };
    let mut again: Vec<u8> = filter.encode().flatten().collect();
    again.extend_from_slice(&[0; 4]);
    forge_section(&mut again, IDENTITY);
    assert_eq!(again, bytes, "a filter has one form");
    if entries > 0 {
        let hash = KeyHash { bucket: 0x0123_4567_89ab_cdef, table: !(entries as u32), route: 0 };
        filter.insert(hash);
        assert!(filter.may_contain(hash), "FI1");
    }
}

/// A whole hint file.
pub(super) fn file(bytes: &[u8]) {
    each_form(bytes, forge_file, check_file);
}

pub(super) fn forge_file(bytes: &mut [u8]) {
    forge_data_header(bytes);
    let identity = DataHeader::decode(bytes).map_or(IDENTITY, |(header, _)| header.identity());
    forge_parts(bytes, identity);
}

/// Everything behind the header, as far as the trailer says where it is.
fn forge_parts(bytes: &mut [u8], identity: FileIdentity) {
    let len = bytes.len();
    forge_trailer(bytes, len as u64, identity);
    let at_trailer = len.saturating_sub(TRAILER_LEN);
    let Ok(trailer) = Trailer::decode(&bytes[at_trailer..], len as u64, identity) else { return };
    let (index, filter) = trailer.sections();
    for section in [index, filter] {
        if let Some(bytes) =
            bytes.get_mut(section.offset as usize..(section.offset + section.len) as usize)
        {
            forge_section(bytes, identity);
        }
    }
    let mut rest = &mut bytes[DATA_HEADER_LEN..index.offset as usize];
    while let Ok(block_len) = Block::len_of(rest)
        && let Some((block, behind)) = rest.split_at_mut_checked(block_len)
    {
        forge_block(block, identity);
        rest = behind;
    }
}

fn check_file(bytes: &[u8]) {
    let Ok((header, _)) = DataHeader::decode(bytes) else { return };
    let expected = super::data_file::expected_of(&header);
    let hint = HintFile::open_any(&bytes, bytes.len() as u64, &expected);
    let Ok(hint) = hint.expect("memory can be read") else { return };
    let mut before: Option<HintKey> = None;
    let mut entries = 0;
    let visited = hint.visit(&mut |entry| {
        let key = HintKey { keyspace: entry.keyspace, key: entry.key.to_vec() };
        assert!(before.as_ref() < Some(&key), "HI1: keys increase");
        assert!(u64::from(entry.offset) + u64::from(entry.len) <= hint.summary().sealed.len);
        before = Some(key);
        entries += 1;
    });
    if visited.expect("memory can be read").is_ok() {
        assert_eq!(entries, hint.summary().entries);
    }
    let _any = hint.filter().expect("memory can be read");
    if let Ok(index) = hint.index().expect("memory can be read") {
        let mut buf = Vec::new();
        for block in (0..index.len()).filter_map(|number| index.get(number)) {
            let block = hint.block(block.place, &mut buf).expect("memory can be read");
            if let Ok(block) = block {
                let _any = entries_of(block, &mut hint.decoder());
            }
        }
    }
}
