//! Walks the entries of a hint, or of a run, in either direction, one block after the other.
//!
//! Reads nothing itself: whoever has it fetches the next block when it has come to the end of one, from
//! wherever that is. So it can wait for the disk between any two blocks, and holds one block at most.

use crate::log::files::SealedFile;
use crate::log::format::FormatError;
use crate::log::format::data_header::FileIdentity;
use crate::log::format::hint::block::{EntryDecoder, HeldBlock, HintEntry};
use crate::types::{KeyspaceId, Seqno};

/// What an entry says about its key besides the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyAt {
    pub(crate) seqno: Seqno,
    pub(crate) offset: u32,
    pub(crate) expires_at_ms: Option<u64>,
    /// Of an intent its batch; in a [key run](crate::log::key_run) the data file.
    pub(crate) batch: Option<u64>,
}

impl KeyAt {
    fn of(entry: &HintEntry<'_>) -> KeyAt {
        let HintEntry { seqno, offset, expires_at_ms, batch, .. } = *entry;
        KeyAt { seqno, offset, expires_at_ms, batch }
    }
}

/// An entry of the stretch between two restarts, which is decoded forwards and handed out backwards.
#[derive(Debug)]
struct Held {
    keyspace: KeyspaceId,
    /// Where in the arena its key ends; it begins where the one before ends.
    key_end: usize,
    at: KeyAt,
}

/// A position at an entry of a block.
#[derive(Debug)]
pub(crate) struct KeyCursor {
    identity: FileIdentity,
    decoder: EntryDecoder,
    is_reverse: bool,
    block: Option<HeldBlock>,
    at: KeyAt,
    /// Backwards only: entries up to the one that it is at, their keys, and the restart they begin with.
    held: Vec<Held>,
    arena: Vec<u8>,
    restart: usize,
    /// The buffer of the block before.
    spare: Vec<u8>,
}

impl KeyCursor {
    /// A cursor over blocks of the file, or the run, that this describes.
    pub(crate) fn new(identity: FileIdentity, sealed: &SealedFile, is_reverse: bool) -> KeyCursor {
        KeyCursor {
            identity,
            decoder: EntryDecoder::new(sealed),
            is_reverse,
            block: None,
            at: KeyAt::default(),
            held: Vec::new(),
            arena: Vec::new(),
            restart: 0,
            spare: Vec::new(),
        }
    }

    pub(crate) fn is_reverse(&self) -> bool {
        self.is_reverse
    }

    /// A buffer for the next block.
    pub(crate) fn take_buf(&mut self) -> Vec<u8> {
        match self.block.take() {
            Some(block) => block.into_bytes(),
            None => std::mem::take(&mut self.spare),
        }
    }

    /// Goes to before the first entry of a block, or behind its last one. `is_next` says that it follows
    /// the one before, so that the order of keys is checked across both.
    pub(crate) fn enter(&mut self, bytes: Vec<u8>, is_next: bool) -> Result<(), FormatError> {
        let block = HeldBlock::decode(bytes, self.identity)?;
        if self.is_reverse || !is_next {
            self.decoder.reset();
        }
        self.held.clear();
        self.arena.clear();
        self.restart = block.restart_count();
        self.block = Some(block);
        Ok(())
    }

    /// Goes on by one entry; false at the end of the block.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool, FormatError> {
        if self.is_reverse {
            return self.advance_back();
        }
        let Some(block) = &mut self.block else { return Ok(false) };
        match block.next(&mut self.decoder) {
            Some(entry) => {
                self.at = KeyAt::of(&entry?);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Goes to the first entry of the block, in its direction, for which `is_before` does not hold; false
    /// if there is none. It has to hold for entries up to some one, and for none behind that.
    pub(crate) fn seek(
        &mut self,
        is_before: &dyn Fn(KeyspaceId, &[u8]) -> bool,
    ) -> Result<bool, FormatError> {
        self.seek_restart(is_before)?;
        while self.advance()? {
            let (keyspace, key) = self.key();
            if !is_before(keyspace, key) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Keyspace and key of the entry that it is at.
    #[inline]
    pub(crate) fn key(&self) -> (KeyspaceId, &[u8]) {
        if !self.is_reverse {
            return self.decoder.key();
        }
        let Some(last) = self.held.last() else { return (KeyspaceId::default(), &[]) };
        let start = self.held.len().checked_sub(2).map_or(0, |before| self.held[before].key_end);
        (last.keyspace, &self.arena[start..last.key_end])
    }

    /// What else the entry says.
    #[inline]
    pub(crate) fn at(&self) -> KeyAt {
        if self.is_reverse {
            return self.held.last().map(|held| held.at).unwrap_or_default();
        }
        self.at
    }

    fn advance_back(&mut self) -> Result<bool, FormatError> {
        self.held.pop();
        if self.held.is_empty() {
            let Some(restart) = self.restart.checked_sub(1) else { return Ok(false) };
            self.hold(restart)?;
        }
        let end = self.held.last().map_or(0, |last| last.key_end);
        self.arena.truncate(end);
        Ok(!self.held.is_empty())
    }

    /// Decodes the entries from a restart to the next one.
    fn hold(&mut self, restart: usize) -> Result<(), FormatError> {
        self.restart = restart;
        self.held.clear();
        self.arena.clear();
        let Some(block) = &mut self.block else { return Ok(()) };
        block.jump(restart)?;
        self.decoder.reset();
        while let Some(entry) = block.next(&mut self.decoder) {
            let entry = entry?;
            self.arena.extend_from_slice(entry.key);
            let (keyspace, key_end) = (entry.keyspace, self.arena.len());
            self.held.push(Held { keyspace, key_end, at: KeyAt::of(&entry) });
            if block.is_at_restart() {
                break;
            }
        }
        Ok(())
    }

    /// Skips whole stretches between restarts: up to the last one whose first entry is to be skipped, or,
    /// backwards, down to the first one whose first entry is.
    fn seek_restart(
        &mut self,
        is_before: &dyn Fn(KeyspaceId, &[u8]) -> bool,
    ) -> Result<(), FormatError> {
        let Some(block) = &mut self.block else { return Ok(()) };
        // Restarts below `low` begin with what comes first in the order of keys.
        let (mut low, mut high) = (0, block.restart_count());
        while low < high {
            let middle = low.midpoint(high);
            self.decoder.reset();
            block.jump(middle)?;
            let entry = block.next(&mut self.decoder).transpose()?;
            let is_skipped = entry.is_some_and(|entry| is_before(entry.keyspace, entry.key));
            if is_skipped == self.is_reverse {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        self.decoder.reset();
        if self.is_reverse {
            // Entries behind the first of restart `low` are all to be skipped.
            self.restart = low;
            self.held.clear();
            Ok(())
        } else {
            block.jump(low.saturating_sub(1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::hint::block::{BlockBuilder, RECORDS_START};
    use crate::log::format::record::{Codec, RecordKind};
    use crate::types::FileId;

    const IDENTITY: FileIdentity = FileIdentity(7);
    const SEALED: SealedFile = SealedFile {
        id: FileId(1),
        len: 1 << 20,
        digest: 0,
        records: 1000,
        seqno_min: Seqno(0),
        seqno_max: Seqno(1000),
    };

    fn block(keys: &[(u32, String)]) -> Vec<u8> {
        let mut builder = BlockBuilder::new();
        for (number, (keyspace, key)) in keys.iter().enumerate() {
            let entry = HintEntry {
                keyspace: KeyspaceId(*keyspace),
                key: key.as_bytes(),
                kind: RecordKind::Put,
                seqno: Seqno(number as u64),
                offset: RECORDS_START as u32 + 64 * number as u32,
                len: 64,
                expires_at_ms: (number % 3 == 0).then_some(number as u64 + 1),
                codec: Codec::default(),
                batch: None,
            };
            builder.push(&entry, Seqno(0));
        }
        builder.finish(IDENTITY).to_vec()
    }

    fn keys(count: usize) -> Vec<(u32, String)> {
        (0..count).map(|n| (n as u32 / 20, format!("key {:03}", n * 2))).collect()
    }

    fn collect(cursor: &mut KeyCursor, is_found: bool) -> Vec<(u32, String, u64)> {
        let mut found = Vec::new();
        let mut is_there = is_found;
        while is_there {
            let (keyspace, key) = cursor.key();
            let key = String::from_utf8(key.to_vec()).unwrap();
            assert_eq!(cursor.at().expires_at_ms.is_some(), cursor.at().seqno.0.is_multiple_of(3));
            found.push((keyspace.0, key, cursor.at().seqno.0));
            is_there = cursor.advance().unwrap();
        }
        found
    }

    /// Breaks if an entry is skipped or comes twice at a restart, in either direction, from any place.
    #[test]
    fn every_place_in_a_block_is_found_from_both_sides() {
        for count in [1, 2, 15, 16, 17, 32, 33, 50] {
            let keys = keys(count);
            let all = keys.iter().zip(0..).map(|((keyspace, key), n)| (*keyspace, key.clone(), n));
            let all: Vec<(u32, String, u64)> = all.collect();
            for is_reverse in [false, true] {
                let mut cursor = KeyCursor::new(IDENTITY, &SEALED, is_reverse);
                cursor.enter(block(&keys), false).unwrap();
                let is_found = cursor.advance().unwrap();
                let mut found = collect(&mut cursor, is_found);
                if is_reverse {
                    found.reverse();
                }
                assert_eq!(found, all);
                for n in 0..=2 * count {
                    let bound = (n as u32 / 40, format!("key {n:03}"));
                    let is_less = |keyspace: u32, key: &str| (keyspace, key) < (bound.0, &bound.1);
                    let bytes = cursor.take_buf();
                    drop(bytes);
                    cursor.enter(block(&keys), false).unwrap();
                    let is_before = |keyspace: KeyspaceId, key: &[u8]| {
                        is_less(keyspace.0, std::str::from_utf8(key).unwrap()) != is_reverse
                    };
                    let is_found = cursor.seek(&is_before).unwrap();
                    let mut found = collect(&mut cursor, is_found);
                    if is_reverse {
                        found.reverse();
                    }
                    let expected: Vec<_> = all
                        .iter()
                        .filter(|(keyspace, key, _)| is_less(*keyspace, key) == is_reverse)
                        .cloned()
                        .collect();
                    assert_eq!(found, expected, "{count} entries, {bound:?}, {is_reverse}");
                }
            }
        }
    }

    /// Breaks if a cursor trusts that blocks follow each other in order.
    #[test]
    fn a_block_that_does_not_follow_is_refused() {
        let mut cursor = KeyCursor::new(IDENTITY, &SEALED, false);
        cursor.enter(block(&keys(3)), false).unwrap();
        while cursor.advance().unwrap() {}
        cursor.enter(block(&keys(3)), true).unwrap();
        assert!(cursor.advance().is_err());
        cursor.enter(block(&keys(3)), false).unwrap();
        assert!(cursor.advance().unwrap());
        assert!(cursor.enter(vec![0; 40], false).is_err());
    }
}
