//! A hint file: its blocks and their entries, its index and filter, and what it says of its data file.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::super::failure::Failure;
use super::super::format::JsonText;
use super::{Printed, Printer, codec_words, kind_word, word};
use crate::Error;
use crate::log::format::FormatError;
use crate::log::format::data_header::ExpectedFile;
use crate::log::format::hint::block::{Block, EntryDecoder, HintEntry};
use crate::log::format::hint::ranges::HintRange;
use crate::log::format::hint::{HintSummary, Section, TRAILER_LEN};
use crate::log::hint_file::HintFile;
use crate::log::salvage::Damage;
use crate::log::scanner::ReadAt;

/// Goes on behind a damaged block if the index says where the next one is.
pub(super) fn inspect_hint(
    path: &Path,
    reader: &dyn ReadAt,
    len: u64,
    expected: &ExpectedFile,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let io = |source| Error::io("read", path, source);
    let hint = match HintFile::open_any(reader, len, expected).map_err(io)? {
        Ok(hint) => hint,
        Err(why) if why.is_newer() => return Err(Failure::Store(why.at(path, 0))),
        Err(why) => {
            // It says where all the rest is, and what entries are counted from.
            let offset = len.saturating_sub(TRAILER_LEN as u64);
            return printer.damaged(Section { offset, len: len - offset }, why);
        }
    };
    let sections = hint.sections();
    let index = hint.index().map_err(io)?;
    let (blocks, stop) = match &index {
        Ok(index) => {
            let blocks = (0..index.len()).filter_map(|block| index.get(block));
            (blocks.map(|block| block.place).collect(), None)
        }
        Err(_damaged) => walk(&hint, sections.blocks).map_err(io)?,
    };
    let mut decoder = hint.decoder();
    let mut buf = Vec::new();
    for place in blocks {
        if printer.left == 0 {
            return Ok(());
        }
        let wrong = match hint.block(place, &mut buf).map_err(io)? {
            Ok(block) => printer.block(place, &block, &mut decoder)?,
            Err(why) => Some(why),
        };
        if let Some(why) = wrong {
            decoder.reset();
            printer.damaged(place, why)?;
        }
    }
    if printer.left == 0 {
        return Ok(());
    }
    if let Some((place, why)) = stop {
        printer.damaged(place, why)?;
    }
    match index {
        Ok(index) => printer.part("index", sections.index, Some(index.len()))?,
        Err(why) => printer.damaged(sections.index, why)?,
    }
    match hint.filter().map_err(io)? {
        Ok(_filter) => printer.part("filter", sections.filter, None)?,
        Err(why) => printer.damaged(sections.filter, why)?,
    }
    printer.trailer(hint.summary(), sections.trailer)
}

/// Blocks one after the other, by their own lengths, up to one that cannot be.
#[expect(clippy::type_complexity, reason = "what the one caller takes apart")]
fn walk(
    hint: &HintFile<'_>,
    blocks: Section,
) -> io::Result<(Vec<Section>, Option<(Section, FormatError)>)> {
    let mut places = Vec::new();
    let mut offset = blocks.offset;
    let end = blocks.offset + blocks.len;
    while offset < end {
        let rest = Section { offset, len: end - offset };
        match hint.place_at(offset)? {
            Ok(place) if place.len <= rest.len => {
                places.push(place);
                offset += place.len;
            }
            Ok(_longer) => {
                let why =
                    FormatError::Invalid("a hint block goes on behind where blocks end".into());
                return Ok((places, Some((rest, why))));
            }
            Err(why) => return Ok((places, Some((rest, why)))),
        }
    }
    Ok((places, None))
}

impl Printer<'_> {
    fn damaged(&mut self, place: Section, why: FormatError) -> Printed {
        self.damage(&Damage { offset: place.offset, len: place.len, why, record: None })
    }

    /// A block and its entries; says what is wrong with one.
    fn block(
        &mut self,
        place: Section,
        block: &Block<'_>,
        decoder: &mut EntryDecoder,
    ) -> Result<Option<FormatError>, Failure> {
        let Section { offset, len } = place;
        let count = block.entry_count();
        self.print(
            || json!({ "what": "block", "offset": offset, "len": len, "entries": count }),
            || format!("{offset:>10}  block: {count} entries, {len} bytes"),
        )?;
        let mut entries = match block.entries_from(0) {
            Ok(entries) => entries,
            Err(why) => return Ok(Some(why)),
        };
        while let Some(entry) = entries.next(decoder).filter(|_| self.left > 0) {
            match entry {
                Ok(entry) => self.entry(&entry)?,
                Err(why) => return Ok(Some(why)),
            }
        }
        Ok(None)
    }

    fn entry(&mut self, entry: &HintEntry<'_>) -> Printed {
        self.left = self.left.saturating_sub(1);
        let HintEntry { keyspace, key, kind, seqno, offset, len, expires_at_ms, codec, batch } =
            *entry;
        let kind = kind_word(kind);
        if self.output.is_json() {
            return self.output.json(&EntryLine {
                what: "entry",
                kind,
                seqno: seqno.0,
                keyspace: keyspace.0,
                key: JsonText(key),
                record_offset: offset,
                record_len: len,
                expires_at_ms,
                batch,
                compression: word(codec.compression),
                encryption: word(codec.encryption),
            });
        }
        let mut more = Vec::new();
        if keyspace.0 != 0 {
            more.push(format!(", keyspace {keyspace}"));
        }
        for (name, field) in [("expires at", expires_at_ms), ("batch", batch)] {
            if let Some(field) = field {
                more.push(format!(", {name} {field}"));
            }
        }
        more.extend(codec_words(codec).map(|word| format!(", {word}")));
        self.output.line(format_args!(
            "{:>10}    {kind} {seqno} key \"{}\", {len} bytes at {offset}{}",
            "",
            key.escape_ascii(),
            more.concat(),
        ))
    }

    fn part(&mut self, what: &'static str, place: Section, blocks: Option<usize>) -> Printed {
        let Section { offset, len } = place;
        self.print(
            || json!({ "what": what, "offset": offset, "len": len, "blocks": blocks }),
            || match blocks {
                Some(blocks) => format!("{offset:>10}  {what}: {blocks} blocks, {len} bytes"),
                None => format!("{offset:>10}  {what}: {len} bytes"),
            },
        )
    }

    fn trailer(&mut self, summary: &HintSummary, place: Section) -> Printed {
        let HintSummary { sealed, totals, entries, tombstone_entries, has_intents, keys, ranges } =
            summary;
        let key = |key: &[u8]| key.escape_ascii().to_string();
        for HintRange { range, offset, len } in ranges {
            let end = (!range.end.is_empty()).then(|| key(&range.end));
            self.fields(
                "range",
                &[
                    ("seqno", range.seqno.0.into()),
                    ("keyspace", range.keyspace.0.into()),
                    ("begin", key(&range.begin).into()),
                    ("end", end.into()),
                    ("record_offset", (*offset).into()),
                    ("record_len", (*len).into()),
                ],
            )?;
        }
        self.fields(
            "trailer",
            &[
                ("offset", place.offset.into()),
                ("file", sealed.id.0.into()),
                ("file_len", sealed.len.into()),
                ("digest", format!("{:08x}", sealed.digest).into()),
                ("records", sealed.records.into()),
                ("seqno_min", sealed.seqno_min.0.into()),
                ("seqno_max", sealed.seqno_max.0.into()),
                ("record_bytes", totals.record_bytes.into()),
                ("tombstone_records", totals.tombstone_records.into()),
                ("tombstone_bytes", totals.tombstone_bytes.into()),
                ("entries", (*entries).into()),
                ("tombstone_entries", (*tombstone_entries).into()),
                ("has_intents", (*has_intents).into()),
                ("first_key", keys.as_ref().map(|keys| key(&keys.first.key)).into()),
                ("last_key", keys.as_ref().map(|keys| key(&keys.last.key)).into()),
            ],
        )
    }
}

#[derive(Serialize)]
struct EntryLine<'a> {
    what: &'static str,
    kind: &'static str,
    seqno: u64,
    keyspace: u32,
    key: JsonText<'a>,
    record_offset: u32,
    record_len: u32,
    expires_at_ms: Option<u64>,
    batch: Option<u64>,
    compression: String,
    encryption: String,
}
