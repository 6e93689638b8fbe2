//! A stretch of the log, with only what is live in it: what whole-store walks are made of.

use std::sync::Arc;

use bytes::Bytes;

use super::{Event, Ops, Partition};
use crate::error::{Error, Result};
use crate::keydir::FileSlot;
use crate::limits;
use crate::log::data_file::DataFile;
use crate::log::format::data_header::DATA_HEADER_LEN;
use crate::log::format::group::{GROUP_HEADER_LEN, GroupHeader, GroupKind};
use crate::log::format::record::{RECORD_HEADER_LEN_MAX, RecordHeader, RecordKind, decode_record};
use crate::mailbox::{Page, PagePosition, ReplySender};

/// Read at a time. A longer commit group is read whole, which is at most `GROUP_LEN_MAX`, or by its
/// head if it is one long record.
const PAGE_LEN: usize = 1 << 20;

const _: () = assert!(
    GROUP_HEADER_LEN + RECORD_HEADER_LEN_MAX + limits::KEY_LEN_MAX < PAGE_LEN,
    "the head of a long record, key included, is in its page"
);

/// A page on its way.
pub(crate) struct PageRequest {
    from: PagePosition,
    until: PagePosition,
    data: Arc<DataFile>,
    /// Bytes asked for.
    len: usize,
    reply: ReplySender<Result<Page>>,
}

impl Partition {
    pub(super) fn page(
        &mut self,
        from: PagePosition,
        until: Option<PagePosition>,
        reply: ReplySender<Result<Page>>,
        ops: &mut Ops,
    ) {
        // A walk that went on to wherever the log ends by then might never catch up with its writers.
        let until = until.unwrap_or_else(|| self.log_end());
        let next = self
            .files
            .iter()
            .map(|(_, data)| data)
            .filter(|data| data.id >= from.file && data.id <= until.file)
            .min_by_key(|data| data.id);
        let Some(data) = next.cloned() else {
            return reply.send(Ok(Page { keys: Vec::new(), until, next: None }));
        };
        let offset = if data.id == from.file { from.offset } else { 0 };
        let from = PagePosition { file: data.id, offset: offset.max(DATA_HEADER_LEN as u64) };
        self.page_submit(PageRequest { from, until, data, len: PAGE_LEN, reply }, ops);
    }

    fn page_submit(&mut self, mut request: PageRequest, ops: &mut Ops) {
        let (disk, index) = (self.disk.clone(), self.index);
        let end = self.walk_end(&request.data, request.until);
        let left = end.saturating_sub(request.from.offset);
        request.len = request.len.min(usize::try_from(left).unwrap_or(usize::MAX));
        self.pages_in_flight += 1;
        self.view.counters.pages.add(1);
        self.view.counters.page_bytes.add(request.len as u64);
        ops.push(Box::pin(async move {
            let result = disk.read(&request.data.file, request.len, request.from.offset).await;
            (index, Event::PageRead { request, result })
        }));
    }

    pub(super) fn page_done(
        &mut self,
        request: PageRequest,
        result: std::io::Result<Vec<u8>>,
        ops: &mut Ops,
    ) {
        self.pages_in_flight -= 1;
        let PageRequest { from, until, data, len, reply } = request;
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(source) => return reply.send(Err(Error::io("read a page of", &data.path, source))),
        };
        if bytes.len() < len {
            let offset = from.offset + bytes.len() as u64;
            return reply.send(Err(Error::corrupt(&data.path, offset, "the file was cut short")));
        }
        match self.page_keys(&data, from, until, bytes) {
            Ok(PageRead::Page(page)) => reply.send(Ok(page)),
            Ok(PageRead::Longer(len)) => {
                self.page_submit(PageRequest { from, until, data, len, reply }, ops);
            }
            Err(error) => reply.send(Err(error)),
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

    fn page_keys(
        &self,
        data: &DataFile,
        from: PagePosition,
        until: PagePosition,
        bytes: Vec<u8>,
    ) -> Result<PageRead> {
        let end = self.walk_end(data, until);
        let damaged = |offset: u64, what| Error::corrupt(&data.path, offset, what);
        let slot = self.files.iter().find(|(_, file)| file.id == data.id).map(|(slot, _)| slot);
        let buffer = Bytes::from(bytes);
        let mut keys = Vec::new();
        let mut at = 0;
        while from.offset + (at as u64) < end {
            let offset = from.offset + at as u64;
            let Some(head) = buffer.get(at..at + GROUP_HEADER_LEN) else { break };
            let (header, _) =
                GroupHeader::decode(head, data.identity).map_err(|what| damaged(offset, what))?;
            if header.kind == GroupKind::ClosingMark {
                break;
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
                let (record, _) = RecordHeader::decode(&buffer[GROUP_HEADER_LEN..], data.identity)
                    .map_err(|what| damaged(offset, what))?;
                let key_at = GROUP_HEADER_LEN + record.header_len();
                let key = key_at..key_at + usize::from(record.key_len);
                let offset = offset + GROUP_HEADER_LEN as u64;
                if !self.is_wanted(&record, &buffer[key.clone()], slot, offset, until) {
                    return Ok(PageRead::Longer(group_end));
                }
                keys.push(buffer.slice(key));
                at = group_end;
                break;
            }
            at += GROUP_HEADER_LEN;
            while at < group_end {
                let offset = from.offset + at as u64;
                let record = decode_record(&buffer[at..group_end], data.identity)
                    .map_err(|what| damaged(offset, what))?;
                if self.is_wanted(&record.header, record.key, slot, offset, until) {
                    let key_at = at + record.header.header_len();
                    keys.push(buffer.slice(key_at..key_at + record.key.len()));
                }
                at += record.header.record_len() as usize;
            }
        }
        let next = if from.offset + at as u64 >= end {
            PagePosition { file: crate::types::FileId(from.file.0 + 1), offset: 0 }
        } else {
            PagePosition { file: from.file, offset: from.offset + at as u64 }
        };
        Ok(PageRead::Page(Page { keys, until, next: Some(next) }))
    }

    /// Where the log ends now.
    fn log_end(&self) -> PagePosition {
        match &self.active {
            Some(active) => PagePosition { file: active.data.id, offset: active.end },
            None => PagePosition { file: self.listed.next, offset: 0 },
        }
    }

    /// Where a walk up to `until` leaves a file.
    fn walk_end(&self, data: &DataFile, until: PagePosition) -> u64 {
        let end = self.records_end(data);
        if data.id == until.file { end.min(until.offset) } else { end }
    }

    /// Whether the key of the record at this place was there when the walk began and is still: its
    /// newest record is this one, or was written since.
    fn is_wanted(
        &self,
        header: &RecordHeader,
        key: &[u8],
        slot: Option<FileSlot>,
        offset: u64,
        until: PagePosition,
    ) -> bool {
        let location = self.keydir.get(self.hasher.hash(header.keyspace, key));
        header.kind == RecordKind::Put
            && location.is_some_and(|location| {
                let is_here = Some(location.slot) == slot && u64::from(location.offset) == offset;
                let file = self.files.get(location.slot).map(|data| data.id);
                let newest = file.map(|file| PagePosition { file, offset: location.offset.into() });
                is_here || newest >= Some(until)
            })
    }
}

enum PageRead {
    Page(Page),
    /// The first group needs this many bytes.
    Longer(usize),
}
