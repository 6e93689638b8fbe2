//! `inspect`: what one file of a store is, structure by structure.
//!
//! Reads the file alone, without the lock, so that the files of an open store can be looked at too; what is
//! being written just then may look torn. Nothing is ever written.

mod hint;

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use self::hint::inspect_hint;
use super::args::StoreArgs;
use super::failure::{Failure, Outcome};
use super::format::JsonText;
use super::output::Output;
use super::store::options;
use crate::Error;
use crate::io::{File, Fs};
use crate::limits::{FILES_LEN_MAX, MANIFEST_LEN_MAX};
use crate::log::codec::Codecs;
use crate::log::files::FilesList;
use crate::log::format::data_header::{DATA_HEADER_LEN, DataHeader, ExpectedFile, FileKind};
use crate::log::format::group::{GroupHeader, GroupKind};
use crate::log::format::record::{Codec, Compression, Encryption, RecordKind};
use crate::log::hint_file::HintReader;
use crate::log::layout;
use crate::log::manifest::{Manifest, WiderMap};
use crate::log::salvage::{Damage, Extent, Patient, Piece, salvage};
use crate::log::scanner::{ReadAt, RecordAt};
use crate::log::tail::{TailVerdict, read_tail};

#[derive(clap::Args)]
pub(super) struct InspectArgs {
    /// A data file, hint file, FILES or MANIFEST; of a store that is open or not.
    file: PathBuf,
    /// Records, or entries of a hint, that are printed at most; what is behind the last one is not read.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
}

pub(super) fn inspect(
    store: &StoreArgs,
    args: &InspectArgs,
    output: &mut Output,
) -> Result<Outcome, Failure> {
    let path = &args.file;
    let fs = Fs::os();
    let file = fs.open_read(path).map_err(|source| Error::io("open", path, source))?;
    let mut start = [0; DATA_HEADER_LEN];
    let count = file.read_at(&mut start, 0).map_err(|source| Error::io("read", path, source))?;
    let start = start.get(..count).unwrap_or_default();
    let codecs = options(store)?.codecs();
    let left = args.limit.unwrap_or(u64::MAX);
    let mut printer = Printer { output, codecs: &codecs, left, is_damaged: false };
    // By its name too: its first bytes may be what is damaged.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if start.starts_with(b"RCASK") || layout::parse_file_name(&name).is_some() {
        let header = DataHeader::decode(start).map_err(|why| why.at(path, 0))?;
        inspect_partition_file(path, &file, &header.0, &mut printer)?;
    } else if start.starts_with(b"RCFILES") || name == layout::FILES {
        let bytes = read_whole(&fs, path, FILES_LEN_MAX)?;
        let list = FilesList::decode(&bytes).map_err(|why| why.at(path, 0))?;
        printer.files_list(&list)?;
    } else if start.starts_with(b"# Ringcask") || name == layout::MANIFEST {
        let bytes = read_whole(&fs, path, MANIFEST_LEN_MAX)?;
        let manifest = Manifest::decode(&bytes).map_err(|why| why.at(path, 0))?;
        printer.manifest(&manifest)?;
    } else {
        return Err(Failure::Failed(format!(
            "{}: it begins like no file of a Ringcask store; inspect reads data and hint files, FILES and MANIFEST",
            path.display()
        )));
    }
    Ok(if printer.is_damaged { Outcome::Damaged } else { Outcome::Done })
}

fn read_whole(fs: &Fs, path: &Path, len_max: u64) -> Result<Vec<u8>, Failure> {
    Ok(fs.read_file(path, len_max).map_err(|source| Error::io("read", path, source))?)
}

fn inspect_partition_file(
    path: &Path,
    file: &File,
    header: &DataHeader,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let io = |source| Error::io("read", path, source);
    let len = file.len().map_err(io)?;
    printer.header(header, len)?;
    let progress = |_| ();
    let reader = Patient::new(file, len, &progress);
    let expected = ExpectedFile {
        kind: header.kind,
        store: header.store,
        partition: header.partition,
        file: header.file,
        hash_key: header.hash_key,
    };
    match header.kind {
        FileKind::Data => inspect_data(path, &reader, len, &expected, printer)?,
        FileKind::Hint => inspect_hint(path, &reader, len, &expected, printer)?,
        // Which files its keys are of is known only to the process that wrote it.
        FileKind::KeyRun => {}
        FileKind::SealedHint => {
            let expected = ExpectedFile { kind: FileKind::Hint, ..expected };
            let codecs = printer.codecs;
            let opened = HintReader::open(&reader, len, &expected, codecs).map_err(io)?;
            let hint = opened.map_err(|why| why.at(path, 0))?;
            inspect_hint(path, &hint, hint.len(), &expected, printer)?;
        }
    }
    match reader.into_error() {
        Some((_, source)) => Err(Failure::Store(io(source))),
        None => Ok(()),
    }
}

fn inspect_data(
    path: &Path,
    reader: &dyn ReadAt,
    len: u64,
    expected: &ExpectedFile,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    let io = |source| Error::io("read", path, source);
    let extent = extent_of(reader, len, expected).map_err(io)?;
    let mut printed = Ok(());
    let found = salvage(reader, len, expected, extent, &mut |piece| {
        printed = match piece {
            Piece::Group { offset, header, header_crc } => {
                printer.group(offset, header, header_crc)
            }
            Piece::Record(record) => printer.record(&record),
            Piece::Damage(damage) => printer.damage(damage),
        };
        if printed.is_ok() && printer.left > 0 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    printed?;
    let found = found.map_err(io)?;
    if printer.left > 0 && !found.is_closed {
        printer.end(found.end, found.torn_bytes, len)?;
    }
    match found.newer {
        Some(why) => Err(Failure::Store(why.at(path, 0))),
        None => Ok(()),
    }
}

/// Where the file's log ends, as recovery would say; behind damage, where its own groups say.
fn extent_of(reader: &dyn ReadAt, len: u64, expected: &ExpectedFile) -> std::io::Result<Extent> {
    let probed =
        salvage(reader, len, expected, Extent::UNKNOWN, &mut |_| ControlFlow::Continue(()))?;
    if probed.is_closed {
        return Ok(Extent::UNKNOWN);
    }
    Ok(match read_tail(reader, len, expected, &mut |_| ())?.verdict {
        TailVerdict::Seal { end, .. } => Extent::tail(end),
        TailVerdict::Sealed { .. } | TailVerdict::Corrupt { .. } | TailVerdict::Refuse { .. } => {
            Extent::tail(probed.durable_through_max)
        }
    })
}

/// Lines of text, or one JSON object a line with its `what`.
struct Printer<'o> {
    output: &'o mut Output,
    /// With the keys that were given.
    codecs: &'o Codecs,
    /// Records that may still be printed.
    left: u64,
    is_damaged: bool,
}

/// Shows a word of the format as its variant is called.
fn word(variant: impl std::fmt::Debug) -> String {
    format!("{variant:?}").to_lowercase()
}

/// What was done to the value, if anything.
fn codec_words(codec: Codec) -> impl Iterator<Item = String> {
    let compression = (codec.compression != Compression::None).then(|| word(codec.compression));
    let encryption = (codec.encryption != Encryption::None).then(|| word(codec.encryption));
    [compression, encryption].into_iter().flatten()
}

fn kind_word(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Put => "put",
        RecordKind::Del => "del",
        RecordKind::RangeDel => "range del",
        RecordKind::BatchDecision => "batch decision",
        RecordKind::BatchResolve => "batch resolve",
    }
}

impl Printer<'_> {
    fn print(&mut self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Printed {
        if self.output.is_json() { self.output.json(&json()) } else { self.output.line(text()) }
    }

    /// A structure of named fields: one object, or one line a field.
    fn fields(&mut self, what: &str, fields: &[(&str, Value)]) -> Printed {
        if self.output.is_json() {
            let mut object = serde_json::Map::from_iter([("what".to_owned(), what.into())]);
            object.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
            return self.output.json(&object);
        }
        self.output.line(what)?;
        for (name, value) in fields {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            self.output.line(format_args!("  {name:<18} {text}"))?;
        }
        Ok(())
    }

    fn header(&mut self, header: &DataHeader, len: u64) -> Printed {
        let what = match header.kind {
            FileKind::Data => "data file",
            FileKind::Hint => "hint file",
            FileKind::SealedHint => "encrypted hint file",
            FileKind::KeyRun => "key run",
        };
        self.fields(
            what,
            &[
                ("file", header.file.0.into()),
                ("len", len.into()),
                ("store", header.store.to_string().into()),
                ("partition", header.partition.0.into()),
                ("partition_count", header.partition_count.into()),
                ("map_epoch", header.map_epoch.into()),
                ("hash_key", hex(&header.hash_key).into()),
                ("open_id", format!("{:016x}", header.open_id).into()),
                ("created_at_ms", header.created_at_ms.into()),
            ],
        )
    }

    fn group(&mut self, offset: u64, group: &GroupHeader, header_crc: u32) -> Printed {
        let GroupHeader { kind, number, payload_len, record_count, durable_through, .. } = *group;
        match kind {
            GroupKind::Records => self.print(
                || {
                    json!({
                        "what": "group", "offset": offset, "number": number, "len": payload_len,
                        "records": record_count, "durable_through": durable_through,
                    })
                },
                || {
                    format!(
                        "{offset:>10}  group {number}: {record_count} records, {payload_len} bytes, \
                         durable through {durable_through}"
                    )
                },
            ),
            GroupKind::ClosingMark => self.print(
                || {
                    json!({
                        "what": "closing mark", "offset": offset, "number": number,
                        "digest": format!("{header_crc:08x}"), "durable_through": durable_through,
                    })
                },
                || {
                    format!(
                        "{offset:>10}  closing mark: digest {header_crc:08x}, durable through \
                         {durable_through}"
                    )
                },
            ),
        }
    }

    fn record(&mut self, record: &RecordAt<'_>) -> Printed {
        self.left = self.left.saturating_sub(1);
        let RecordAt { offset, len, header, key, value } = *record;
        let kind = kind_word(header.kind);
        // Without the store's key, the bytes that stand for it.
        let key = self.codecs.key(header, key, value).unwrap_or(Cow::Borrowed(key));
        if self.output.is_json() {
            return self.output.json(&RecordLine {
                what: "record",
                offset,
                len,
                kind,
                seqno: header.seqno.0,
                keyspace: header.keyspace.0,
                key: JsonText(&key),
                value_len: header.value_len,
                expires_at_ms: header.expires_at_ms,
                batch: header.batch,
                raw_len: header.raw_len,
                compression: word(header.codec.compression),
                encryption: word(header.codec.encryption),
            });
        }
        let mut more = Vec::new();
        if header.keyspace.0 != 0 {
            more.push(format!(", keyspace {}", header.keyspace));
        }
        for (name, field) in [
            ("expires at", header.expires_at_ms),
            ("batch", header.batch),
            ("uncompressed", header.raw_len),
        ] {
            if let Some(field) = field {
                more.push(format!(", {name} {field}"));
            }
        }
        more.extend(codec_words(header.codec).map(|word| format!(", {word}")));
        self.output.line(format_args!(
            "{offset:>10}    {kind} {} key \"{}\", value {} bytes{}, {len} bytes in all",
            header.seqno,
            key.escape_ascii(),
            header.value_len,
            more.concat(),
        ))
    }

    fn damage(&mut self, damage: &Damage) -> Printed {
        self.is_damaged = true;
        let Damage { offset, len, why, record } = damage;
        let key = record.as_ref().and_then(|record| record.key_probably.as_deref());
        self.print(
            || {
                json!({
                    "what": "damage", "offset": offset, "len": len, "why": why.to_string(),
                    "probable_key": key.map(JsonText),
                })
            },
            || {
                let key = key.map(|key| format!(", probably key \"{}\"", key.escape_ascii()));
                format!("{offset:>10}  DAMAGED, {len} bytes{}: {why}", key.unwrap_or_default())
            },
        )
    }

    fn end(&mut self, end: u64, torn_bytes: u64, len: u64) -> Printed {
        self.print(
            || json!({ "what": "end", "offset": end, "torn_bytes": torn_bytes, "file_len": len }),
            || match torn_bytes {
                0 => format!("{end:>10}  end of the log, not closed; {} bytes of zeros", len - end),
                _ => format!("{end:>10}  end of the log, not closed; {torn_bytes} torn bytes"),
            },
        )
    }

    fn files_list(&mut self, list: &FilesList) -> Printed {
        self.fields(
            "list of files",
            &[
                ("store", list.store.to_string().into()),
                ("partition", list.partition.0.into()),
                ("map_epoch", list.map_epoch.into()),
                ("partition_count", list.partition_count.into()),
                ("active", list.active.map(|active| active.0).into()),
                ("next", list.next.0.into()),
                ("seqno_floor", list.seqno_floor.0.into()),
                ("sealed", list.sealed.len().into()),
            ],
        )?;
        self.wider_maps(&list.wider_maps)?;
        for sealed in &list.sealed {
            self.fields(
                "sealed file",
                &[
                    ("file", sealed.id.0.into()),
                    ("len", sealed.len.into()),
                    ("records", sealed.records.into()),
                    ("seqno_min", sealed.seqno_min.0.into()),
                    ("seqno_max", sealed.seqno_max.0.into()),
                    ("digest", format!("{:08x}", sealed.digest).into()),
                ],
            )?;
        }
        Ok(())
    }

    fn wider_maps(&mut self, maps: &[WiderMap]) -> Printed {
        maps.iter().try_for_each(|map| {
            let fields =
                [("through", map.through.into()), ("partition_count", map.partition_count.into())];
            self.fields("wider map", &fields)
        })
    }

    fn manifest(&mut self, manifest: &Manifest) -> Printed {
        self.fields(
            "manifest",
            &[
                ("format_version", manifest.format_version.into()),
                ("store", manifest.store.to_string().into()),
                ("created_at_ms", manifest.created_at_ms.into()),
                ("map_epoch", manifest.map_epoch.into()),
                ("partition_count", manifest.partition_count.into()),
                ("hash_key", hex(&manifest.hash_key).into()),
                ("keyspace_next", manifest.keyspace_next.0.into()),
            ],
        )?;
        self.wider_maps(&manifest.wider_maps)?;
        for keyspace in &manifest.keyspaces {
            let fields = [
                ("id", keyspace.id.0.into()),
                ("name", keyspace.name.clone().into()),
                ("default_ttl_ms", keyspace.default_ttl_ms.into()),
                ("dropping", keyspace.is_dropping.into()),
            ];
            self.fields("keyspace", &fields)?;
        }
        Ok(())
    }
}

type Printed = Result<(), Failure>;

#[derive(Serialize)]
struct RecordLine<'a> {
    what: &'static str,
    offset: u64,
    len: u32,
    kind: &'static str,
    seqno: u64,
    keyspace: u32,
    key: JsonText<'a>,
    value_len: u32,
    expires_at_ms: Option<u64>,
    batch: Option<u64>,
    raw_len: Option<u64>,
    compression: String,
    encryption: String,
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte)))
}
