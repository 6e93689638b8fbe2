//! A hint that is open: entries front to back, index, filter, single blocks.

use std::io;

use crate::log::files::SealedFile;
use crate::log::format::FormatError;
use crate::log::format::data_header::{DATA_HEADER_LEN, DataHeader, ExpectedFile, FileIdentity};
use crate::log::format::hint::block::{BLOCK_HEAD_LEN, Block, EntryDecoder, HintEntry};
use crate::log::format::hint::filter::{self, Filter};
use crate::log::format::hint::index::Index;
use crate::log::format::hint::{HintKey, HintSummary, HintTail, Section, TRAILER_LEN, Trailer};
use crate::log::format::record::RecordKind;
use crate::log::scanner::{Fault, ReadAt, Window, read_full};
use crate::planted::{Bug, is_planted};

/// A hint whose header, keys and trailer were verified, and which belongs to its data file as it is
/// now (HI2).
///
/// Blocks, index and filter are verified when they are read; an error of any of them means that the
/// hint as a whole is not to be used.
pub(crate) struct HintFile<'r> {
    reader: &'r dyn ReadAt,
    identity: FileIdentity,
    summary: HintSummary,
    index: Section,
    filter: Section,
    keys: Section,
}

/// Where the parts of a hint are, behind its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sections {
    pub(crate) blocks: Section,
    pub(crate) index: Section,
    pub(crate) filter: Section,
    /// With the keys in front of it.
    pub(crate) trailer: Section,
}

impl Sections {
    /// Length of the hint.
    pub(crate) fn len(&self) -> u64 {
        self.trailer.offset + self.trailer.len
    }
}

impl<'r> HintFile<'r> {
    /// Opens the hint of the data file `sealed`. An outer `Err` is a failed read.
    pub(crate) fn open(
        reader: &'r dyn ReadAt,
        file_len: u64,
        expected: &ExpectedFile,
        sealed: &SealedFile,
    ) -> io::Result<Result<HintFile<'r>, FormatError>> {
        apart(HintFile::read(reader, file_len, expected).and_then(|hint| {
            if hint.summary.sealed == *sealed || is_planted(Bug::StaleHintBelieved) {
                Ok(hint)
            } else {
                Err(Fault::Format(FormatError::Stale))
            }
        }))
    }

    /// Opens the hint of whatever state of its data file.
    #[cfg(any(feature = "cli", feature = "sim"))]
    pub(crate) fn open_any(
        reader: &'r dyn ReadAt,
        file_len: u64,
        expected: &ExpectedFile,
    ) -> io::Result<Result<HintFile<'r>, FormatError>> {
        apart(HintFile::read(reader, file_len, expected))
    }

    fn read(
        reader: &'r dyn ReadAt,
        file_len: u64,
        expected: &ExpectedFile,
    ) -> Result<HintFile<'r>, Fault> {
        let HintTail { summary, index, filter } = read_tail(reader, file_len, expected)?;
        let keys_offset = filter.offset + filter.len;
        let keys_len = file_len - TRAILER_LEN as u64 - keys_offset;
        let keys = Section { offset: keys_offset, len: keys_len };
        let identity = expected.identity();
        Ok(HintFile { reader, identity, summary, index, filter, keys })
    }

    pub(crate) fn summary(&self) -> &HintSummary {
        &self.summary
    }

    /// Where its parts are.
    pub(crate) fn sections(&self) -> Sections {
        let HintFile { index, filter, keys, .. } = *self;
        let start = DATA_HEADER_LEN as u64;
        Sections {
            blocks: Section { offset: start, len: index.offset - start },
            index,
            filter,
            trailer: Section { offset: keys.offset, len: keys.len + TRAILER_LEN as u64 },
        }
    }

    /// Hands every entry to `visit`, in order of keys.
    ///
    /// A block's checksum is verified before its entries are visited, and each entry is checked before
    /// it is; but whether the hint has all entries shows at its end, so what was visited counts only if
    /// the result is `Ok(Ok(()))`. An outer `Err` is a failed read.
    pub(crate) fn visit(
        &self,
        visit: &mut dyn FnMut(HintEntry<'_>),
    ) -> io::Result<Result<(), FormatError>> {
        apart(self.visit_blocks(visit))
    }

    /// The filter, to be asked for any number of keys.
    pub(crate) fn filter(&self) -> io::Result<Result<Filter, FormatError>> {
        let entries = self.summary.entries;
        // Before it is read: the filter's length is known already.
        if self.filter.len != filter::section_len(entries) {
            let why = "the filter is not as long as the entries ask for";
            return Ok(Err(FormatError::invalid(why)));
        }
        apart(read_section(self.reader, self.filter).and_then(|section| {
            Filter::decode(&section, entries, self.identity).map_err(Fault::Format)
        }))
    }

    /// Where each block is, for reading one of them.
    pub(crate) fn index(&self) -> io::Result<Result<Index, FormatError>> {
        apart(read_section(self.reader, self.index).and_then(|section| {
            Index::decode(section, self.index.offset, self.identity).map_err(Fault::Format)
        }))
    }

    /// Reads the block at a place that the index names into `buf`.
    pub(crate) fn block<'b>(
        &self,
        place: Section,
        buf: &'b mut Vec<u8>,
    ) -> io::Result<Result<Block<'b>, FormatError>> {
        // No index has one that is longer than a block can be.
        buf.clear();
        buf.resize(place.len as usize, 0);
        let count = read_full(self.reader, buf, place.offset)?;
        Ok(Block::decode(buf.get(..count).unwrap_or_default(), self.identity))
    }

    /// Where the block is that begins at `offset`, for want of an index, and not verified.
    #[cfg(feature = "cli")]
    pub(crate) fn place_at(&self, offset: u64) -> io::Result<Result<Section, FormatError>> {
        let mut head = [0; BLOCK_HEAD_LEN];
        let count = read_full(self.reader, &mut head, offset)?;
        let len = Block::len_of(head.get(..count).unwrap_or_default());
        Ok(len.map(|len| Section { offset, len: len as u64 }))
    }

    /// A decoder for the entries of single blocks.
    pub(crate) fn decoder(&self) -> EntryDecoder {
        EntryDecoder::new(&self.summary.sealed)
    }

    fn visit_blocks(&self, visit: &mut dyn FnMut(HintEntry<'_>)) -> Result<(), Fault> {
        let blocks_end = self.index.offset;
        let mut window = Window::new(self.reader, blocks_end);
        let mut decoder = self.decoder();
        let mut seen = Seen::default();
        let mut offset = DATA_HEADER_LEN as u64;
        while offset < blocks_end {
            let block_len = Block::len_of(window.bytes(offset, BLOCK_HEAD_LEN)?)?;
            let block = Block::decode(window.bytes(offset, block_len)?, self.identity)?;
            let mut entries = block.entries_from(0)?;
            while let Some(entry) = entries.next(&mut decoder) {
                let entry = entry?;
                if seen.entries == 0 {
                    seen.first =
                        Some(HintKey { keyspace: entry.keyspace, key: entry.key.to_vec() });
                }
                seen.entries += 1;
                seen.tombstone_entries += u64::from(entry.kind == RecordKind::Del);
                visit(entry);
            }
            offset += block_len as u64;
        }
        self.check_seen(&seen, &decoder).map_err(Fault::Format)
    }

    /// Whether the entries were all that there are.
    fn check_seen(&self, seen: &Seen, decoder: &EntryDecoder) -> Result<(), FormatError> {
        let HintSummary { entries, tombstone_entries, keys, .. } = &self.summary;
        let (keyspace, key) = decoder.key();
        let is_range_seen = match keys {
            Some(keys) => {
                seen.first.as_ref() == Some(&keys.first)
                    && (keyspace, key) == (keys.last.keyspace, keys.last.key.as_slice())
            }
            None => seen.first.is_none(),
        };
        if (seen.entries, seen.tombstone_entries) != (*entries, *tombstone_entries) {
            Err(FormatError::invalid("the hint has another number of entries than it says"))
        } else if !is_range_seen {
            Err(FormatError::invalid("the hint has other first and last keys than it says"))
        } else {
            Ok(())
        }
    }
}

/// What was visited.
#[derive(Default)]
struct Seen {
    entries: u64,
    tombstone_entries: u64,
    first: Option<HintKey>,
}

fn read_tail(
    reader: &dyn ReadAt,
    file_len: u64,
    expected: &ExpectedFile,
) -> Result<HintTail, Fault> {
    let mut bytes = [0; DATA_HEADER_LEN];
    let count = read_full(reader, &mut bytes, 0)?;
    let (header, _) = DataHeader::decode(bytes.get(..count).unwrap_or_default())?;
    header.check_expected(expected)?;

    let identity = expected.identity();
    let mut bytes = [0; TRAILER_LEN];
    // A file that is too short for one has no trailer at its beginning either.
    let count = read_full(reader, &mut bytes, file_len.saturating_sub(TRAILER_LEN as u64))?;
    let trailer = Trailer::decode(bytes.get(..count).unwrap_or_default(), file_len, identity)?;
    let keys = read_section(reader, trailer.keys())?;
    Ok(trailer.with_keys(&keys, identity)?)
}

/// The bytes of a part whose length a verified trailer names, which has it inside of the file.
fn read_section(reader: &dyn ReadAt, section: Section) -> Result<Vec<u8>, Fault> {
    let len = usize::try_from(section.len).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    // The index of long keys can be long: out of memory is an error here.
    bytes.try_reserve_exact(len).map_err(io::Error::from)?;
    bytes.resize(len, 0);
    let count = read_full(reader, &mut bytes, section.offset)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Keeps a failed read apart from bytes that were read and are no hint.
pub(super) fn apart<T>(result: Result<T, Fault>) -> io::Result<Result<T, FormatError>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Format(why)) => Ok(Err(why)),
        Err(Fault::Io(error)) => Err(error),
    }
}
