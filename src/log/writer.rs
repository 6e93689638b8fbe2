//! Writes a data file from front to back: what compaction and repair make.
//!
//! The log's own writer is the partition, which appends what callers send and acknowledges it. Here
//! nobody waits: records come from other data files with their sequence numbers, are grouped for the
//! scanner's sake only, and nothing counts before the file is closed, synced and listed (F1).
//!
//! ## Invariants
//! - **WR1** The file holds the same structures as one that the partition wrote: header, groups that
//!   chain, closing mark. No group claims that anything was durable, because nothing was.

use std::io;
use std::sync::Arc;

use super::files::SealedFile;
use super::format::data_header::{DATA_HEADER_LEN, DataHeader, FileIdentity};
use super::format::group::{Chain, GROUP_HEADER_LEN, PayloadCrc};
use super::format::record::{RecordHeader, encode_record};
use crate::io::File;
use crate::planted::{Bug, is_planted};
use crate::types::{FileId, Seqno};

/// A group is closed when its records reach this many bytes: enough to make headers cheap, and little
/// enough that damage to one costs a repair little.
const GROUP_LEN: usize = 64 << 10;

/// A data file that is being written.
pub(crate) struct FileWriter {
    file: Arc<File>,
    id: FileId,
    identity: FileIdentity,
    chain: Chain,
    /// Bytes that are not written yet.
    buf: Vec<u8>,
    /// Where in the file `buf` begins.
    written: u64,
    /// Where in `buf` the open group's header goes, if a group is open.
    group_at: Option<usize>,
    payload_crc: PayloadCrc,
    group_records: u32,
    records: u64,
    seqno_min: Seqno,
    seqno_max: Seqno,
}

impl FileWriter {
    /// Begins `file`, which is new and empty. Nothing is written yet.
    pub(crate) fn begin(file: Arc<File>, header: &DataHeader) -> FileWriter {
        let (bytes, crc) = header.encode();
        FileWriter {
            file,
            id: header.file,
            identity: FileIdentity::new(header.store, header.partition, header.file),
            chain: Chain::start(header.open_id, crc),
            buf: bytes.to_vec(),
            written: 0,
            group_at: None,
            payload_crc: PayloadCrc::default(),
            group_records: 0,
            records: 0,
            seqno_min: Seqno(u64::MAX),
            seqno_max: Seqno(0),
        }
    }

    /// Length in bytes of the file if a record of `len` bytes is added and then nothing more.
    pub(crate) fn len_with(&self, len: u32) -> u64 {
        // The record, a group of its own, and the closing mark.
        self.end() + u64::from(len) + 2 * GROUP_HEADER_LEN as u64
    }

    /// Bytes that [`FileWriter::write_out`] would write.
    pub(crate) fn buffered_len(&self) -> usize {
        self.buf.len()
    }

    pub(crate) fn record_count(&self) -> u64 {
        self.records
    }

    /// Adds a record and returns its offset in the file.
    pub(crate) fn push(&mut self, header: &RecordHeader, body: [&[u8]; 2]) -> u64 {
        if self.group_len() + header.record_len() as usize > GROUP_LEN {
            self.close_group();
        }
        if self.group_at.is_none() {
            self.group_at = Some(self.buf.len());
            self.buf.resize(self.buf.len() + GROUP_HEADER_LEN, 0);
        }
        let offset = self.end();
        self.payload_crc.push(encode_record(&mut self.buf, self.identity.at(offset), header, body));
        self.group_records += 1;
        self.records += 1;
        self.seqno_min = self.seqno_min.min(header.seqno);
        self.seqno_max = self.seqno_max.max(header.seqno);
        offset
    }

    /// Writes what is buffered, and makes it durable: in small pieces, because a drive that has many bytes to
    /// flush at once keeps commits waiting that long. With `keep_cached` it stays in the page cache; without, it leaves
    /// memory once it is on disk, where the kernel can do that.
    pub(crate) fn write_out(&mut self, keep_cached: bool) -> io::Result<()> {
        self.close_group();
        if keep_cached {
            self.file.write_all_at(&self.buf, self.written)?;
        } else {
            self.file.write_all_uncached_at(&self.buf, self.written)?;
        }
        if !is_planted(Bug::OutputsUnsynced) {
            self.file.sync_data()?;
        }
        self.written += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }

    /// Closes the file and makes it durable; its name is for the caller to sync.
    pub(crate) fn finish(&mut self) -> io::Result<SealedFile> {
        self.close_group();
        let (mark, digest) = self.chain.closing_mark(DATA_HEADER_LEN as u64).encode(self.identity);
        self.buf.extend_from_slice(&mark);
        self.write_out(true)?;
        if !is_planted(Bug::OutputsUnsynced) {
            self.file.sync_all()?;
        }
        Ok(SealedFile {
            id: self.id,
            len: self.written,
            digest,
            records: self.records,
            seqno_min: self.seqno_min.min(self.seqno_max),
            seqno_max: self.seqno_max,
        })
    }

    fn end(&self) -> u64 {
        self.written + self.buf.len() as u64
    }

    fn group_len(&self) -> usize {
        self.group_at.map_or(0, |at| self.buf.len() - at - GROUP_HEADER_LEN)
    }

    fn close_group(&mut self) {
        let payload_len = self.group_len() as u32;
        let Some(at) = self.group_at.take() else { return };
        let payload_crc = std::mem::take(&mut self.payload_crc);
        let count = std::mem::take(&mut self.group_records);
        let header = self.chain.group(payload_len, payload_crc, count, DATA_HEADER_LEN as u64);
        let (bytes, crc) = header.encode(self.identity);
        self.buf[at..at + GROUP_HEADER_LEN].copy_from_slice(&bytes);
        self.chain.advance(crc);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::io::{Fs, SimDisk};
    use crate::log::format::data_header::FileKind;
    use crate::log::format::record::RecordKind;
    use crate::log::tail::{SealedVerdict, read_sealed};
    use crate::log::test_file::EXPECTED;

    fn header() -> DataHeader {
        DataHeader {
            kind: FileKind::Data,
            store: EXPECTED.store,
            partition: EXPECTED.partition,
            partition_count: 4,
            file: EXPECTED.file,
            map_epoch: 1,
            hash_key: EXPECTED.hash_key,
            open_id: 5,
            created_at_ms: 0,
            key: crate::types::KeyId::NONE,
        }
    }

    fn record(seqno: u64, kind: RecordKind, key: &[u8], value: &[u8]) -> RecordHeader {
        RecordHeader { kind, ..RecordHeader::put(seqno, key, value) }
    }

    fn new_file() -> Arc<File> {
        Fs::sim(SimDisk::new(1)).create_new(Path::new("/000000017.data")).unwrap()
    }

    /// Whatever is written, the scanner of sealed files finds it intact and in order.
    #[test]
    fn what_is_written_reads_back() {
        for lens in [vec![], vec![0], vec![10; 3000], vec![70_000, 5, 2 << 20, 0]] {
            let file = new_file();
            let mut writer = FileWriter::begin(file.clone(), &header());
            let mut written = Vec::new();
            for (index, len) in lens.into_iter().enumerate() {
                // Sequence numbers come in any order.
                let (seqno, key) = (1000 - (index as u64 % 7) * 3, index.to_string());
                let kind = if index % 5 == 4 { RecordKind::Del } else { RecordKind::Put };
                let value = vec![index as u8; if kind == RecordKind::Del { 0 } else { len }];
                let header = record(seqno, kind, key.as_bytes(), &value);
                let len_before = writer.len_with(header.record_len());
                let offset = writer.push(&header, [key.as_bytes(), &value]);
                assert!(len_before >= offset + u64::from(header.record_len()));
                written.push((offset, header, key, value));
                if writer.buffered_len() > 100_000 {
                    writer.write_out(index % 2 == 0).unwrap();
                }
            }
            assert_eq!(writer.record_count(), written.len() as u64);
            let sealed = writer.finish().unwrap();
            let mut read = Vec::new();
            let verdict = read_sealed(&*file, sealed.len, &EXPECTED, &sealed, &mut |record| {
                let key = String::from_utf8(record.key.to_vec()).unwrap();
                read.push((record.offset, *record.header, key, record.value.to_vec()));
            });
            assert_eq!(verdict.unwrap(), SealedVerdict::Intact);
            assert_eq!(file.len().unwrap(), sealed.len);
            assert!(read == written);
        }
    }

    #[test]
    fn the_length_foretold_is_never_exceeded() {
        let mut writer = FileWriter::begin(new_file(), &header());
        let value = vec![0; 50_000];
        let header = record(1, RecordKind::Put, b"key", &value);
        let mut foretold = 0;
        for _ in 0..5 {
            foretold = writer.len_with(header.record_len());
            writer.push(&header, [b"key", &value]);
        }
        assert_eq!(writer.finish().unwrap().len, foretold);
    }
}
