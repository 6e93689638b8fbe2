//! Parts of long values: the record is read in steps on a helper thread, and only the part is kept.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Event, Ops, Partition};
use crate::error::{Error, Result};
use crate::io::{File, Fs};
use crate::keydir::Location;
use crate::limits::{KEY_LEN_MAX, PART_STEP_LEN};
use crate::log::data_file::DataFile;
use crate::log::format::FormatError;
use crate::log::format::record::{RECORD_HEADER_LEN_MAX, RecordHeader};
use crate::log::part::{Begun, PartReader};
use crate::mailbox::{ReplySender, ValuePart};
use crate::types::{KeyHash, KeyspaceId, Seqno};

/// Longest beginning of a record that holds its key.
const HEAD_LEN_MAX: usize = RECORD_HEADER_LEN_MAX + KEY_LEN_MAX;

/// A part that somebody asked for.
pub(crate) struct RangeRequest {
    pub(super) hash: KeyHash,
    pub(super) keyspace: KeyspaceId,
    pub(super) key: Bytes,
    pub(super) range: Range<u64>,
    /// Of the ranges that were deleted, as of the look-up (RG2).
    pub(super) cover: Seqno,
    pub(super) reply: ReplySender<Result<Option<ValuePart>>>,
}

/// A record that is being read for it.
struct Walk {
    data: Arc<DataFile>,
    location: Location,
    file: Option<Arc<File>>,
    reader: Option<Box<PartReader>>,
}

/// What reading came to, if the disk did what it was asked to.
pub(crate) enum Walked {
    Part(RecordHeader, Vec<u8>),
    Coded,
    OtherKey,
    Damaged(FormatError),
}

impl Partition {
    pub(super) fn get_range(&mut self, request: RangeRequest, ops: &mut Ops) {
        self.view.counters.gets.add(1);
        self.range_submit(request, ops);
    }

    fn range_submit(&mut self, mut request: RangeRequest, ops: &mut Ops) {
        request.cover = self.ranges.cover(request.keyspace, &request.key);
        let Some(location) = self.keydir.get(request.hash) else {
            self.view.gets_missing.add(1);
            return request.reply.send(Ok(None));
        };
        let data = self.data_to_read(location);
        self.parts_in_flight += 1;
        self.note_read(location.len.into());
        let (disk, fs, index) = (self.disk.clone(), self.fs.clone(), self.index);
        let mut walk = Walk { data: data.clone(), location, file: None, reader: None };
        ops.push(Box::pin(async move {
            // One step after the other, so that others who need a file opened come in between.
            let (request, result) = {
                let mut request = request;
                loop {
                    let fs = fs.clone();
                    let step = move || {
                        let stepped = walk.step(&fs, &request);
                        (walk, request, stepped)
                    };
                    let Some((walk_after, request_after, stepped)) = disk.open(step).await else {
                        // With the request its reply has gone, which tells its caller.
                        return (index, Event::RangeRead(None));
                    };
                    (walk, request) = (walk_after, request_after);
                    match stepped {
                        Ok(None) => {}
                        Ok(Some(walked)) => break (request, Ok(walked)),
                        Err(error) => break (request, Err(error)),
                    }
                }
            };
            (index, Event::RangeRead(Some(Box::new(RangeRead { request, location, data, result }))))
        }));
    }

    pub(super) fn range_done(&mut self, read: Option<Box<RangeRead>>, ops: &mut Ops) {
        self.parts_in_flight -= 1;
        let Some(read) = read else { return };
        let RangeRead { request, location, data, result } = *read;
        let offset = u64::from(location.offset);
        let answer = match result {
            Err(source) => {
                let attempt = format!("read {} bytes at {offset} of", location.len);
                Err(Error::io(&attempt, &data.path, source))
            }
            Ok(Walked::Part(header, part)) if self.config.shows(&header, request.cover) => {
                Ok(Some(ValuePart::Bytes(part.into())))
            }
            Ok(Walked::Coded) => Ok(Some(ValuePart::Coded)),
            Ok(Walked::Part(..) | Walked::OtherKey) => {
                self.view.gets_missing.add(1);
                Ok(None)
            }
            // The entry moved on while its record was read.
            Ok(Walked::Damaged(_)) if !self.is_at(request.hash, location, &data) => {
                return self.range_submit(request, ops);
            }
            Ok(Walked::Damaged(what)) => {
                let error = Error::corrupt(&data.path, offset, what);
                tracing::error!(partition = self.id.0, %error, "damaged record");
                Err(error)
            }
        };
        request.reply.send(answer);
    }
}

/// A request whose record was read.
pub(crate) struct RangeRead {
    request: RangeRequest,
    location: Location,
    data: Arc<DataFile>,
    result: io::Result<Walked>,
}

impl Walk {
    /// Reads the next piece; what it all came to, when that was the last one.
    fn step(&mut self, fs: &Fs, request: &RangeRequest) -> io::Result<Option<Walked>> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(self.data.open(fs)?),
        };
        let offset = u64::from(self.location.offset);
        let stepped = match &mut self.reader {
            None => {
                let head = read(file, offset, HEAD_LEN_MAX.min(self.location.len as usize))?;
                let key = (request.keyspace, &request.key[..]);
                match PartReader::begin(&head, self.data.place(offset), key, &request.range) {
                    Ok(Begun::Reading(reader)) => {
                        self.reader = Some(reader);
                        Ok(())
                    }
                    Ok(Begun::Coded) => return Ok(Some(Walked::Coded)),
                    Ok(Begun::OtherKey) => return Ok(Some(Walked::OtherKey)),
                    Err(what) => Err(what),
                }
            }
            Some(reader) => {
                let (at, rest) = reader.rest();
                let piece = read(file, offset + at, rest.min(PART_STEP_LEN as u64) as usize)?;
                if piece.is_empty() {
                    Err(FormatError::Incomplete { need: self.location.len as usize })
                } else {
                    reader.push(&piece)
                }
            }
        };
        if let Err(what) = stepped {
            return Ok(Some(Walked::Damaged(what)));
        }
        let Some(reader) = self.reader.take_if(|reader| reader.rest().1 == 0) else {
            return Ok(None);
        };
        Ok(Some(match reader.finish() {
            Ok((header, part)) => Walked::Part(header, part),
            Err(what) => Walked::Damaged(what),
        }))
    }
}

fn read(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let count = file.read_at(&mut bytes, offset)?;
    bytes.truncate(count);
    Ok(bytes)
}
