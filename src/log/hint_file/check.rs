//! Holds a hint against the records of its data file.
//!
//! Checksums say that a hint is what was written; only the data file can say that this was right. It
//! matters because a hint that verifies is trusted: opening believes its entries, compaction its filter.

use std::cmp::Ordering;
use std::io;

use super::builder::HintBuilder;
use super::reader::{HintFile, apart};
use crate::log::format::FormatError;
use crate::log::format::hint::block::HintEntry;
use crate::log::format::hint::index::Index;
use crate::log::format::hint::{HintKey, Section};
use crate::log::scanner::Fault;

/// In what a hint that verifies contradicts its data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disagreement {
    /// The part of the hint that is wrong.
    pub(crate) place: Section,
    /// Whose entry it is, if it is about one.
    pub(crate) key: Option<HintKey>,
    pub(crate) what: &'static str,
}

/// The first thing in which `hint` is not the hint of `records`, all those of its data file.
///
/// Reads all of the hint. An outer `Err` is a failed read, an inner one says that the hint does not verify.
pub(crate) fn disagreement(
    hint: &HintFile<'_>,
    records: &HintBuilder,
) -> io::Result<Result<Option<Disagreement>, FormatError>> {
    apart(find(hint, records))
}

fn find(hint: &HintFile<'_>, records: &HintBuilder) -> Result<Option<Disagreement>, Fault> {
    let mut expected = records.entries();
    let mut wrong = None;
    // Every part is read before anything is said: what does not verify contradicts nobody.
    hint.visit(&mut |entry| {
        if wrong.is_none() {
            wrong = wrong_entry(&entry, expected.next());
        }
    })??;
    let index = hint.index()??;
    let filter = hint.filter()??;
    let wrong_block = wrong_block(hint, &index)?;
    let sections = hint.sections();
    if let Some((key, what)) = wrong {
        let block = index.find(key.keyspace, &key.key).and_then(|block| index.get(block));
        let place = block.map_or(sections.blocks, |block| block.place);
        return Ok(Some(Disagreement { place, key: Some(key), what }));
    }
    let of_part = |place, what| Ok(Some(Disagreement { place, key: None, what }));
    if expected.next().is_some() {
        of_part(sections.blocks, "keys of the data file have no entry")
    } else if wrong_block.is_some() {
        Ok(wrong_block)
    } else if records.totals() != hint.summary().totals {
        of_part(sections.trailer, "the totals are not those of the data file")
    } else if records.ranges() != hint.summary().ranges {
        of_part(sections.trailer, "the ranges are not those of the data file")
    } else if records.has_intents() != hint.summary().has_intents {
        of_part(
            sections.trailer,
            "whether there are intents of batches is not what the data file says",
        )
    } else if records.hashes().any(|hash| !filter.may_contain(hash)) {
        of_part(sections.filter, "the filter denies a key of the data file")
    } else {
        Ok(None)
    }
}

fn wrong_entry(
    found: &HintEntry<'_>,
    expected: Option<HintEntry<'_>>,
) -> Option<(HintKey, &'static str)> {
    let key_of =
        |entry: &HintEntry<'_>| HintKey { keyspace: entry.keyspace, key: entry.key.to_vec() };
    let invented = "the data file has no record of the key";
    let Some(expected) = expected else { return Some((key_of(found), invented)) };
    match (found.keyspace, found.key).cmp(&(expected.keyspace, expected.key)) {
        Ordering::Less => Some((key_of(found), invented)),
        Ordering::Greater => Some((key_of(&expected), "the key has a record and no entry")),
        Ordering::Equal if *found == expected => None,
        Ordering::Equal => {
            Some((key_of(found), "the entry is not of the newest record of the key"))
        }
    }
}

/// The first block that does not begin with the key that the index says.
fn wrong_block(hint: &HintFile<'_>, index: &Index) -> Result<Option<Disagreement>, Fault> {
    let mut decoder = hint.decoder();
    let mut buf = Vec::new();
    for at in (0..index.len()).filter_map(|block| index.get(block)) {
        decoder.reset();
        let mut entries = hint.block(at.place, &mut buf)??.entries_from(0)?;
        let first = entries.next(&mut decoder).transpose()?;
        if first.map(|entry| (entry.keyspace, entry.key)) != Some((at.keyspace, at.key)) {
            let key = HintKey { keyspace: at.keyspace, key: at.key.to_vec() };
            let what = "the block does not begin with the key that the index says";
            return Ok(Some(Disagreement { place: at.place, key: Some(key), what }));
        }
    }
    Ok(None)
}
