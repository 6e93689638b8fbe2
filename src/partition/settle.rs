//! Batches that a killed store left between intent and resolve, settled by the open that finds them (BA1, BA2).
//!
//! Whether a batch happened is known once every partition is read: some log has its decision, or none has. Then
//! each partition with intents of batches that happened writes them as ordinary records to a new data file, with
//! a resolve of each batch behind them, and lists it. Nothing is served before all partitions have done that, so
//! an open that ends half way leaves what the next one can settle again.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::batch::control;
use super::recovery::Recovery;
use super::rotation::too_many_files;
use crate::error::{Error, ErrorKind, Result};
use crate::io::File;
use crate::keydir::FileSlot;
use crate::log::data_file::DataFile;
use crate::log::files::SealedFile;
use crate::log::format::data_header::FileKind;
use crate::log::format::group::GROUP_HEADER_LEN;
use crate::log::format::record::{RecordHeader, RecordKind, SEAL_LEN, decode_record};
use crate::log::layout;
use crate::log::scanner::RecordAt;
use crate::log::writer::FileWriter;
use crate::planted::{Bug, is_planted};
use crate::types::{FileId, Seqno};

/// What the records that were read say of batches.
#[derive(Default)]
pub(super) struct BatchesFound {
    /// Of each batch without a resolve so far.
    intents: HashMap<u64, Vec<Intent>>,
    decisions: Vec<u64>,
}

/// Where an intent is.
#[derive(Clone, Copy)]
struct Intent {
    slot: FileSlot,
    offset: u64,
    len: u32,
}

impl BatchesFound {
    /// Files come in the order of their ids, so intents come before their resolve.
    pub(super) fn take(&mut self, slot: FileSlot, record: &RecordAt<'_>) {
        // Without an id it is about no batch.
        let Some(batch) = record.header.batch else { return };
        match record.header.kind {
            RecordKind::BatchDecision => self.decisions.push(batch),
            RecordKind::BatchResolve => drop(self.intents.remove(&batch)),
            _ => {
                let intent = Intent { slot, offset: record.offset, len: record.len };
                self.intents.entry(batch).or_default().push(intent);
            }
        }
    }

    pub(super) fn unsettled(&self) -> Vec<u64> {
        self.intents.keys().copied().collect()
    }

    pub(super) fn decisions(&self) -> &[u64] {
        &self.decisions
    }
}

/// A record that was copied.
struct Copied {
    offset: u64,
    header: RecordHeader,
    /// As it is stored.
    key: Vec<u8>,
    /// What an encrypted key is opened with, the beginning of the stored value.
    seal: Vec<u8>,
}

/// A new data file on its way.
struct Output {
    path: PathBuf,
    file: Arc<File>,
    id: FileId,
    writer: FileWriter,
    copied: Vec<Copied>,
}

impl Recovery<'_> {
    pub(super) fn settle(&mut self, committed: &HashSet<u64>) -> Result<()> {
        let mut intents = std::mem::take(&mut self.loading.batches.intents);
        let aborted = intents.len();
        intents.retain(|batch, _| committed.contains(batch) || is_planted(Bug::AbortsForgotten));
        if aborted > intents.len() {
            tracing::info!(
                path = %self.dir.display(),
                batches = aborted - intents.len(),
                "batches that were not decided did not happen"
            );
        }
        let is_forgotten = self.fs.is_read_only() && is_planted(Bug::UnsettledForReaders);
        if intents.is_empty() || is_forgotten {
            return Ok(());
        }
        // What is written depends on nothing but what was found.
        let mut intents: Vec<(u64, Vec<Intent>)> = intents.into_iter().collect();
        intents.sort_unstable_by_key(|(batch, _)| *batch);
        let outputs = self.write_copies(&intents).or_else(|error| {
            // On a full disk the reserve is for exactly this: what frees space, or has to come first.
            let reserve = self.dir.join(layout::RESERVE);
            if error.kind() == ErrorKind::NoSpace && self.fs.remove_file(&reserve).is_ok() {
                self.write_copies(&intents)
            } else {
                Err(error)
            }
        })?;
        if !self.fs.is_read_only() {
            self.fs.sync_dir(&self.dir).map_err(|source| Error::io("sync", &self.dir, source))?;
        }
        for (output, sealed) in outputs {
            self.take_output(output, sealed)?;
        }
        self.list_without_tail()?;
        tracing::info!(
            path = %self.dir.display(),
            batches = intents.len(),
            "batches that were decided were completed"
        );
        Ok(())
    }

    /// New files, durable and not listed; none if that fails.
    fn write_copies(
        &mut self,
        intents: &[(u64, Vec<Intent>)],
    ) -> Result<Vec<(Output, SealedFile)>> {
        let mut outputs = Vec::new();
        let mut writing = None;
        let written = self.write_each(intents, &mut outputs, &mut writing);
        if let Err(error) = written {
            let unlisted = outputs.iter().map(|(output, _)| &output.path);
            for path in unlisted.chain(writing.iter().map(|output| &output.path)) {
                // One that stays is a stray, which the next open removes.
                drop(self.fs.remove_file(path));
            }
            return Err(error);
        }
        Ok(outputs)
    }

    fn write_each(
        &mut self,
        intents: &[(u64, Vec<Intent>)],
        outputs: &mut Vec<(Output, SealedFile)>,
        writing: &mut Option<Output>,
    ) -> Result<()> {
        let mut seqno = self.next_seqno()?;
        for (batch, intents) in intents {
            for intent in intents {
                let (bytes, data) = self.read_intent(intent)?;
                let record = decode_record(&bytes, data.place(intent.offset))
                    .map_err(|why| Error::corrupt(&data.path, intent.offset, why))?;
                let header = RecordHeader { batch: None, ..record.header };
                let renewed = self.owner.codecs.renew(&header, record.key, record.value);
                let renewed = renewed.map_err(|why| why.at(&data.path, intent.offset))?;
                if let Some(encoded) = renewed {
                    let (key, value) = encoded.body.split_at(usize::from(header.key_len));
                    self.push_copy(outputs, writing, encoded.header(&header), [key, value])?;
                } else {
                    self.push_copy(outputs, writing, header, [record.key, record.value])?;
                }
            }
            let header = RecordHeader { seqno, ..control(RecordKind::BatchResolve, *batch) };
            self.push_copy(outputs, writing, header, [&[], &[]])?;
            seqno = Seqno(seqno.0 + 1);
        }
        close(outputs, writing)
    }

    fn push_copy(
        &mut self,
        outputs: &mut Vec<(Output, SealedFile)>,
        writing: &mut Option<Output>,
        header: RecordHeader,
        body: [&[u8]; 2],
    ) -> Result<()> {
        let len = header.record_len();
        let is_full = |output: &Output| {
            !output.copied.is_empty() && output.writer.len_with(len) > self.bounds.len_max
        };
        if writing.as_ref().is_some_and(is_full) {
            close(outputs, writing)?;
        }
        let output = match writing {
            Some(output) => output,
            none => none.insert(self.begin_output()?),
        };
        let offset = output.writer.push(&header, body);
        let seal = if header.is_sealed() { &body[1][..SEAL_LEN.min(body[1].len())] } else { &[] };
        output.copied.push(Copied { offset, header, key: body[0].to_vec(), seal: seal.to_vec() });
        Ok(())
    }

    fn begin_output(&mut self) -> Result<Output> {
        let id = self.listed.next;
        self.listed.next = FileId(id.0 + 1);
        let path = layout::data_file_path(&self.dir, id);
        let file = if self.fs.is_read_only() {
            Arc::new(File::nameless()) // RO1
        } else {
            self.fs.create_new(&path).map_err(|source| Error::io("create", &path, source))?
        };
        let writer = FileWriter::begin(file.clone(), &self.owner.header(FileKind::Data, id));
        Ok(Output { path, file, id, writer, copied: Vec::new() })
    }

    fn read_intent(&self, intent: &Intent) -> Result<(Vec<u8>, Arc<DataFile>)> {
        let data = self.files.get(intent.slot).expect("it was read from there").clone();
        let io = |source| Error::io("read", &data.path, source);
        let file = data.open(self.fs).map_err(io)?;
        let mut bytes = vec![0; intent.len as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            let count =
                file.read_at(&mut bytes[filled..], intent.offset + filled as u64).map_err(io)?;
            if count == 0 {
                return Err(Error::corrupt(&data.path, intent.offset, "the file was cut short"));
            }
            filled += count;
        }
        Ok((bytes, data))
    }

    /// What was written is loaded, as any other file is.
    fn take_output(&mut self, output: Output, sealed: SealedFile) -> Result<()> {
        let Output { path, file, id, copied, .. } = output;
        self.loading.map = self.owner.identity.map_of(self.owner.identity.map_epoch);
        let data = DataFile::new(
            id,
            self.owner.identity_of(id),
            self.owner.codecs.key_id(),
            path,
            file,
            sealed.len - GROUP_HEADER_LEN as u64,
        );
        data.note_created(self.owner.clock.wall_ms());
        let slot = self.files.insert(data).ok_or_else(|| too_many_files(&self.dir))?;
        for Copied { offset, header, key, seal } in &copied {
            let len = header.record_len();
            let record = RecordAt { offset: *offset, len, header, key, value: seal };
            self.loading.take_record(slot, &record);
        }
        self.count(&sealed);
        self.hints_due.push(id);
        self.listed.sealed.push(sealed);
        self.listed.sealed.sort_unstable_by_key(|sealed| sealed.id);
        Ok(())
    }
}

fn close(outputs: &mut Vec<(Output, SealedFile)>, writing: &mut Option<Output>) -> Result<()> {
    let Some(output) = writing else { return Ok(()) };
    let sealed =
        output.writer.finish().map_err(|source| Error::io("write", &output.path, source))?;
    outputs.extend(writing.take().map(|output| (output, sealed)));
    Ok(())
}
