//! Several keys read as they are at one moment: looked up in one go, between publications, and then read.
//!
//! What was looked up stays readable, whatever is written or compacted meanwhile: the files are held.

use std::sync::Arc;

use bytes::Bytes;

use super::handles::{Opened, read};
use super::{Event, Ops, Partition};
use crate::error::{Error, Result};
use crate::io::{Disk, Fs};
use crate::keydir::Location;
use crate::limits::{READS_IN_FLIGHT_BYTES_MAX, READS_IN_FLIGHT_MAX};
use crate::log::data_file::{Checked, DataFile, check_record};
use crate::mailbox::{GetMany, Stored};
use crate::types::Seqno;

/// One record of many.
pub(crate) struct ManyRead {
    /// Which of the keys.
    index: usize,
    location: Location,
    /// Below this sequence number the key is deleted, as of when it was looked up (RG2).
    cover: Seqno,
    data: Arc<DataFile>,
    opened: Opened,
    result: std::io::Result<Vec<u8>>,
}

/// Which records to read.
struct Wanted {
    index: usize,
    location: Location,
    cover: Seqno,
    data: Arc<DataFile>,
}

impl Partition {
    pub(super) fn get_many(&mut self, request: GetMany, ops: &mut Ops) {
        self.view.counters.gets.add(request.keys.len() as u64);
        self.many_in_flight += 1;
        self.many_submit(request, ops);
    }

    fn many_submit(&mut self, request: GetMany, ops: &mut Ops) {
        let mut wanted = Vec::new();
        for (index, (hash, key)) in request.keys.iter().enumerate() {
            if let Some(location) = self.keydir.get(*hash) {
                let data = self.data_to_read(location);
                self.note_read(location.len.into());
                let cover = self.cover((request.keyspace, key));
                wanted.push(Wanted { index, location, cover, data });
            }
        }
        let (disk, fs, index) = (self.disk.clone(), self.fs.clone(), self.index);
        ops.push(Box::pin(async move {
            let reads = read_all(&disk, &fs, wanted).await;
            (index, Event::ManyRead { request, reads })
        }));
    }

    pub(super) fn many_done(&mut self, request: GetMany, reads: Vec<ManyRead>, ops: &mut Ops) {
        let mut found: Vec<Option<Stored>> = request.keys.iter().map(|_| None).collect();
        let mut failed = None;
        for read in reads {
            self.handles_keep(&read.data, read.opened);
            let (hash, key) = &request.keys[read.index];
            let bytes = match read.result {
                Ok(bytes) => bytes,
                Err(source) => {
                    let Location { len, offset, .. } = read.location;
                    let attempt = format!("read {len} bytes at {offset} of");
                    failed = Some(Error::io(&attempt, &read.data.path, source));
                    continue;
                }
            };
            let place = u64::from(read.location.offset);
            match check_record(
                &self.config.codecs,
                &bytes,
                read.data.place(place),
                request.keyspace,
                key,
            ) {
                Checked::Match { header, value } if self.config.shows(&header, read.cover) => {
                    let value = Bytes::from(bytes).slice(value);
                    let place = || (read.data.path.clone(), place);
                    found[read.index] = Some(Stored::new(header, value, place));
                }
                Checked::Match { .. } | Checked::OtherKey => {}
                Checked::Damaged(_) if !self.is_at(*hash, read.location, &read.data) => {
                    // The entry moved on while its record was read: all of them are looked up again, to be of
                    // one moment.
                    return self.many_submit(request, ops);
                }
                Checked::Damaged(what) => {
                    let error = Error::corrupt(&read.data.path, place, what);
                    tracing::error!(partition = self.id.0, %error, "damaged record");
                    failed = Some(error);
                }
            }
        }
        self.many_in_flight -= 1;
        self.view.gets_missing.add(found.iter().filter(|entry| entry.is_none()).count() as u64);
        let answer: Result<Vec<Option<Stored>>> = failed.map_or(Ok(found), Err);
        request.reply.send(answer);
    }
}

/// As many at a time as cold reads may be, in number and in bytes.
async fn read_all(disk: &Disk, fs: &Fs, wanted: Vec<Wanted>) -> Vec<ManyRead> {
    let mut reads = Vec::with_capacity(wanted.len());
    let mut wanted = wanted.into_iter().peekable();
    while wanted.peek().is_some() {
        let (mut now, mut bytes) = (Vec::new(), 0);
        while let Some(next) = wanted.next_if(|next| {
            now.is_empty()
                || (now.len() < READS_IN_FLIGHT_MAX
                    && bytes + next.location.len as usize <= READS_IN_FLIGHT_BYTES_MAX)
        }) {
            bytes += next.location.len as usize;
            now.push(read_one(disk, fs.clone(), next));
        }
        reads.extend(futures::future::join_all(now).await);
    }
    reads
}

async fn read_one(disk: &Disk, fs: Fs, wanted: Wanted) -> ManyRead {
    let Wanted { index, location, cover, data } = wanted;
    let (len, offset) = (location.len as usize, u64::from(location.offset));
    let (opened, result) = read(disk, fs, data.stored.clone(), len, offset).await;
    ManyRead { index, location, cover, data, opened, result }
}
