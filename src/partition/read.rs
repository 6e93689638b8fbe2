//! Reads that need the worker: records that are not in the page cache, and whatever a caller's
//! hop-free read was not sure about (G2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::handles::read;
use super::{Event, GetReply, Ops, Partition};
use crate::error::Error;
use crate::keydir::Location;
use crate::limits::{READS_IN_FLIGHT_BYTES_MAX, READS_IN_FLIGHT_MAX};
use crate::log::data_file::{Checked, DataFile, check_record};
use crate::mailbox::{GetAt, Stored};
use crate::moment::Place;
use crate::types::{KeyHash, KeyspaceId, Seqno};

/// A get on its way.
pub(crate) struct ReadRequest {
    pub(super) hash: KeyHash,
    pub(super) keyspace: KeyspaceId,
    pub(super) key: Bytes,
    /// Below this sequence number the key is deleted, as of when it was looked up (RG2).
    pub(super) cover: Seqno,
    /// Where the record is, for one of a snapshot: then the keydir is not asked.
    pub(super) at: Option<Place>,
    pub(super) reply: GetReply,
}

impl Partition {
    pub(super) fn get(&mut self, request: ReadRequest, ops: &mut Ops) {
        self.view.counters.gets.add(1);
        self.reads_waiting.push_back(request);
        self.read_advance(ops);
    }

    /// Reads a record of a snapshot; whether it counts there is for the caller to say.
    pub(super) fn get_at(&mut self, get: GetAt, ops: &mut Ops) {
        let GetAt { place, keyspace, key, reply } = get;
        let hash = self.hasher.hash(keyspace, &key);
        let (cover, at) = (Seqno(0), Some(place));
        self.get(ReadRequest { hash, keyspace, key, cover, at, reply }, ops);
    }

    /// Starts reads while their number and bytes allow; at least one always may.
    fn read_advance(&mut self, ops: &mut Ops) {
        while self.reads_in_flight < READS_IN_FLIGHT_MAX
            && (self.reads_in_flight == 0 || self.reads_in_flight_bytes < READS_IN_FLIGHT_BYTES_MAX)
        {
            let Some(mut request) = self.reads_waiting.pop_front() else { break };
            if let Some(Place { data, location }) = request.at.clone() {
                self.read_submit(request, location, data, ops);
                continue;
            }
            request.cover = self.ranges.cover(request.keyspace, &request.key);
            match self.keydir.get(request.hash) {
                None => self.reply_missing(request),
                Some(location) => {
                    let data = self.data_to_read(location);
                    self.read_submit(request, location, data, ops);
                }
            }
        }
    }

    fn read_submit(
        &mut self,
        request: ReadRequest,
        location: Location,
        data: Arc<DataFile>,
        ops: &mut Ops,
    ) {
        let (disk, index) = (self.disk.clone(), self.index);
        let (len, offset) = (location.len as usize, u64::from(location.offset));
        self.reads_in_flight += 1;
        self.reads_in_flight_bytes += len;
        self.note_read(len as u64);
        let fs = self.fs.clone();
        ops.push(Box::pin(async move {
            let (opened, result) = read(&disk, fs, data.stored.clone(), len, offset).await;
            (index, Event::Read { request, location, data, opened, result })
        }));
    }

    /// The file that an entry points into.
    pub(super) fn data_at(&self, location: Location) -> Arc<DataFile> {
        self.files.get(location.slot).expect("K1: an entry points into a file").clone()
    }

    /// The same of a file that is about to be read, which is a use of it.
    pub(super) fn data_to_read(&self, location: Location) -> Arc<DataFile> {
        let data = self.data_at(location);
        data.note_used(self.view.clock.load(Ordering::Relaxed));
        data
    }

    /// A read of a record by the worker, of so many bytes, is under way.
    pub(super) fn note_read(&mut self, len: u64) {
        self.here.leave_off();
        self.view.counters.reads.add(1);
        self.view.counters.read_bytes.add(len);
    }

    pub(super) fn read_done(
        &mut self,
        request: ReadRequest,
        location: Location,
        data: &DataFile,
        result: std::io::Result<Vec<u8>>,
        ops: &mut Ops,
    ) {
        self.reads_in_flight -= 1;
        self.reads_in_flight_bytes -= location.len as usize;
        self.read_answer(request, location, data, result);
        self.read_advance(ops);
    }

    /// Only here, after a fresh look-up, is damage called damage (G2).
    fn read_answer(
        &mut self,
        request: ReadRequest,
        location: Location,
        data: &DataFile,
        result: std::io::Result<Vec<u8>>,
    ) {
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(source) => {
                let attempt = format!("read {} bytes at {} of", location.len, location.offset);
                return request.reply.send(Err(Error::io(&attempt, &data.path, source)));
            }
        };
        let place = data.place(u64::from(location.offset));
        let codecs = &self.config.codecs;
        match check_record(codecs, &bytes, place, request.keyspace, &request.key) {
            Checked::Match { header, value }
                if request.at.is_some() || self.config.shows(&header, request.cover) =>
            {
                // Decoded by whoever asked: this thread has others to serve.
                let value = Bytes::from(bytes).slice(value);
                let place = || (data.path.clone(), u64::from(location.offset));
                request.reply.send(Ok(Some(Stored::new(header, value, place))));
            }
            Checked::Match { .. } | Checked::OtherKey => self.reply_missing(request),
            Checked::Damaged(_)
                if request.at.is_none() && !self.is_at(request.hash, location, data) =>
            {
                // The entry moved on while its record was read.
                self.reads_waiting.push_front(request);
            }
            Checked::Damaged(what) => {
                let error = what.at(&data.path, u64::from(location.offset));
                tracing::error!(partition = self.id.0, %error, "damaged record");
                request.reply.send(Err(error));
            }
        }
    }

    /// Whether the newest record of `hash` is still this one; its slot may have another file by now.
    pub(super) fn is_at(&self, hash: KeyHash, location: Location, data: &DataFile) -> bool {
        self.keydir.get(hash) == Some(location)
            && self.files.get(location.slot).is_some_and(|file| file.id == data.id)
    }

    fn reply_missing(&mut self, request: ReadRequest) {
        self.view.gets_missing.add(1);
        request.reply.send(Ok(None));
    }
}
