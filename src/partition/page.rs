//! A stretch of the log, with only what is live in it: what whole-store walks are made of.

use std::sync::Arc;

use bytes::Bytes;

use super::handles::read;
use super::{Event, Ops, Partition};
use crate::error::{Error, Result};
use crate::limits;
use crate::log::data_file::DataFile;
use crate::log::format::data_header::DATA_HEADER_LEN;
use crate::log::format::group::{GROUP_HEADER_LEN, GroupHeader, GroupKind};
use crate::log::format::record::{RECORD_HEADER_LEN_MAX, RecordHeader, RecordKind, decode_record};
use crate::mailbox::{Page, PagePosition, ReplySender, Walk};
use crate::types::{FileId, KeyspaceId};

/// Read at a time. A longer commit group is read whole, which is at most `GROUP_LEN_MAX`, or by its
/// head if it is one long record.
const PAGE_LEN: usize = 1 << 20;

const _: () = assert!(
    GROUP_HEADER_LEN + RECORD_HEADER_LEN_MAX + limits::KEY_LEN_MAX < PAGE_LEN,
    "the head of a long record, key included, is in its page"
);

/// A page on its way.
pub(crate) struct PageRequest {
    keyspace: KeyspaceId,
    walk: Arc<Walk>,
    from: PagePosition,
    /// Bytes asked for.
    len: usize,
    reply: ReplySender<Result<Page>>,
}

impl PageRequest {
    pub(super) fn data(&self) -> Arc<DataFile> {
        self.walk.files[self.from.file].0.clone()
    }

    /// The file, and where the walk leaves it.
    fn file(&self) -> (&DataFile, u64) {
        let (data, end) = &self.walk.files[self.from.file];
        (data, *end)
    }
}

impl Partition {
    pub(super) fn page(
        &mut self,
        keyspace: KeyspaceId,
        walk: Option<Arc<Walk>>,
        from: PagePosition,
        reply: ReplySender<Result<Page>>,
        ops: &mut Ops,
    ) {
        let walk = walk.unwrap_or_else(|| self.walk_begin());
        if from.file >= walk.files.len() {
            return reply.send(Ok(Page { keys: Vec::new(), walk, next: None }));
        }
        let from = PagePosition { offset: from.offset.max(DATA_HEADER_LEN as u64), ..from };
        self.page_submit(PageRequest { keyspace, walk, from, len: PAGE_LEN, reply }, ops);
    }

    /// A walk that went on to wherever the log ends by then might never catch up with its writers, so
    /// it goes to where the log ends now.
    fn walk_begin(&self) -> Arc<Walk> {
        let files = self.files.iter().map(|(_, data)| (data.clone(), self.records_end(data)));
        Arc::new(Walk { files: files.collect() })
    }

    fn page_submit(&mut self, mut request: PageRequest, ops: &mut Ops) {
        let (disk, index) = (self.disk.clone(), self.index);
        let (_, end) = request.file();
        let left = end.saturating_sub(request.from.offset);
        request.len = request.len.min(usize::try_from(left).unwrap_or(usize::MAX));
        self.pages_in_flight += 1;
        self.view.counters.pages.add(1);
        self.view.counters.page_bytes.add(request.len as u64);
        let (fs, data) = (self.fs.clone(), request.data());
        ops.push(Box::pin(async move {
            let (len, offset) = (request.len, request.from.offset);
            let (opened, result) = read(&disk, fs, data, len, offset).await;
            (index, Event::PageRead { request, opened, result })
        }));
    }

    pub(super) fn page_done(
        &mut self,
        request: PageRequest,
        result: std::io::Result<Vec<u8>>,
        ops: &mut Ops,
    ) {
        self.pages_in_flight -= 1;
        let (data, _) = request.file();
        let read = match result {
            Err(source) => Err(Error::io("read a page of", &data.path, source)),
            Ok(bytes) if bytes.len() < request.len => {
                let offset = request.from.offset + bytes.len() as u64;
                Err(Error::corrupt(&data.path, offset, "the file was cut short"))
            }
            Ok(bytes) => self.page_keys(&request, bytes),
        };
        match read {
            Ok(PageRead::Page(page)) => request.reply.send(Ok(page)),
            Ok(PageRead::Longer(len)) => self.page_submit(PageRequest { len, ..request }, ops),
            Err(error) => request.reply.send(Err(error)),
        }
    }

    /// Where the records of a file end: at its closing mark, or where the log stands.
    fn records_end(&self, data: &DataFile) -> u64 {
        match &self.active {
            Some(active) if active.data.id == data.id => active.end,
            _ => self
                .listed
                .sealed
                .iter()
                .find(|sealed| sealed.id == data.id)
                .map_or(0, |sealed| sealed.len - GROUP_HEADER_LEN as u64),
        }
    }

    fn page_keys(&self, request: &PageRequest, bytes: Vec<u8>) -> Result<PageRead> {
        let PageRequest { walk, from, .. } = request;
        let (data, end) = request.file();
        let damaged = |offset: u64, what| Error::corrupt(&data.path, offset, what);
        let buffer = Bytes::from(bytes);
        let mut keys = Vec::new();
        let mut at = 0;
        while from.offset + (at as u64) < end {
            let offset = from.offset + at as u64;
            let Some(head) = buffer.get(at..at + GROUP_HEADER_LEN) else { break };
            let (header, _) =
                GroupHeader::decode(head, data.identity).map_err(|what| damaged(offset, what))?;
            if header.kind == GroupKind::ClosingMark {
                return Err(Error::corrupt(&data.path, offset, "a closing mark is not at the end"));
            }
            let group_end = at + GROUP_HEADER_LEN + header.payload_len as usize;
            if from.offset + group_end as u64 > end {
                return Err(Error::corrupt(&data.path, offset, "a group is longer than its file"));
            }
            if group_end > buffer.len() {
                if at > 0 {
                    break;
                }
                if header.record_count > 1 {
                    return Ok(PageRead::Longer(group_end));
                }
                // A long record is alone in its group (W5). Its key is at hand, and its value is not
                // needed if the keydir knows the key's hash: that vouches for the key's bytes.
                // Otherwise the checksum has to, over all of the record.
                let offset = offset + GROUP_HEADER_LEN as u64;
                let (record, _) =
                    RecordHeader::decode(&buffer[GROUP_HEADER_LEN..], data.place(offset))
                        .map_err(|what| damaged(offset, what))?;
                let key_at = GROUP_HEADER_LEN + record.header_len();
                let key = key_at..key_at + usize::from(record.key_len);
                if !self.is_wanted(&record, &buffer[key.clone()], request, (data.id, offset)) {
                    return Ok(PageRead::Longer(group_end));
                }
                keys.push(buffer.slice(key));
                at = group_end;
                break;
            }
            at += GROUP_HEADER_LEN;
            while at < group_end {
                let offset = from.offset + at as u64;
                let record = decode_record(&buffer[at..group_end], data.place(offset))
                    .map_err(|what| damaged(offset, what))?;
                if self.is_wanted(&record.header, record.key, request, (data.id, offset)) {
                    let key_at = at + record.header.header_len();
                    keys.push(buffer.slice(key_at..key_at + record.key.len()));
                }
                at += record.header.record_len() as usize;
            }
        }
        let next = if from.offset + at as u64 >= end {
            PagePosition { file: from.file + 1, offset: 0 }
        } else {
            PagePosition { file: from.file, offset: from.offset + at as u64 }
        };
        Ok(PageRead::Page(Page { keys, walk: walk.clone(), next: Some(next) }))
    }

    /// Whether the key of the record at this place was there when the walk began and is still: its
    /// newest record is this one, or lies where the walk does not come by, because it was written or
    /// moved there since.
    fn is_wanted(
        &self,
        header: &RecordHeader,
        key: &[u8],
        request: &PageRequest,
        place: (FileId, u64),
    ) -> bool {
        if header.keyspace != request.keyspace || self.config.expiry.hides(header.expires_at()) {
            return false;
        }
        let location = self.keydir.get(self.hasher.hash(header.keyspace, key));
        header.kind == RecordKind::Put
            && location.is_some_and(|location| {
                let file =
                    self.files.get(location.slot).expect("K1: an entry points into a file").id;
                let newest = (file, u64::from(location.offset));
                newest == place || !request.walk.covers(newest.0, newest.1)
            })
    }
}

enum PageRead {
    Page(Page),
    /// The first group needs this many bytes.
    Longer(usize),
}
