//! Commit groups before they are in the log: the open one, and those behind the one in flight.
//!
//! ## Invariants
//! - **GS1** Records are encoded for the file that their group goes into, because its identity seeds their
//!   checksums: a group never changes its file.
//! - **GS2** The offset of a group is the log's end when it is submitted; what is kept here only decides
//!   when a file is full.

use std::collections::VecDeque;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::limits;
use crate::log::data_file::{FileBounds, FileIds};
use crate::log::format::data_header::{DATA_HEADER_LEN, FileIdentity};
use crate::log::format::group::{GROUP_HEADER_LEN, PayloadCrc};
use crate::log::format::record::{RecordHeader, encode_record, move_records};
use crate::mailbox::{BatchDone, PutReply, ReplySender};
use crate::ranges::RangeDel;
use crate::types::{ExpiresAt, FileId, KeyHash, KeyspaceId, Seqno};

/// Longest buffer that is kept for the next group; one in flight, one open.
const SPARE_LEN_MAX: usize = 2 * limits::GROUP_LEN_MAX;
/// Most pending that its memory is kept for.
const SPARE_PENDING_MAX: usize = 4096;

/// What one request does to the keydir once its group is in the log, and who is told.
pub(super) struct Pending {
    pub(super) effect: Effect,
    pub(super) answer: Answer,
}

/// A record of the group, or nothing: an answer can have to be as durable as what it is about without
/// changing it.
#[derive(Clone, Copy)]
pub(super) enum Effect {
    None,
    Put {
        hash: KeyHash,
        at: u32,
        len: u32,
        expires_at: Option<ExpiresAt>,
    },
    Del {
        hash: KeyHash,
        len: u32,
    },
    /// Of the group's range tombstones the one at `index`.
    RangeDel {
        index: u32,
        len: u32,
    },
    /// An entry of a batch, which counts when it is decided.
    Intent {
        batch: u64,
        entry: usize,
        at: u32,
        len: u32,
    },
    /// The same once it is decided, as a record like any other.
    Copy {
        batch: u64,
        entry: usize,
        at: u32,
        len: u32,
    },
    /// Nothing, of a batch that only looked.
    Seen {
        batch: u64,
    },
    Decision {
        batch: u64,
        len: u32,
    },
    Resolve {
        batch: u64,
        len: u32,
    },
}

impl Effect {
    /// The key that the record changes when its group is published, if it is about one.
    pub(super) fn hash(self) -> Option<KeyHash> {
        match self {
            Effect::Put { hash, .. } | Effect::Del { hash, .. } => Some(hash),
            _ => None,
        }
    }

    pub(super) fn has_record(self) -> bool {
        !matches!(self, Effect::None | Effect::Seen { .. })
    }
}

/// The reply to one request.
pub(super) enum Answer {
    Done(PutReply),
    /// Whether the key was there; of a deletion known when it is published.
    WasThere(ReplySender<Result<bool>>, bool),
    /// Nobody asked: the key was evicted.
    Evicted,
    /// Whatever else was decided.
    Decided(Box<dyn FnOnce(Result<()>)>),
    /// A partition that waits for several records answers.
    Part,
    /// The group's next [`Batch`](Self::Batch) answers for this record too.
    Entry(BatchRecord),
    /// For a batch whose records are all in the group; how many of its keys were there is known when it is
    /// published.
    Batch(Box<BatchAnswer>),
}

/// A record of a batch whose records are all in the group.
#[derive(Clone, Copy)]
pub(super) struct BatchRecord {
    /// What the keydir has of its key is hidden by a range, and so was not there.
    pub(super) is_hidden: bool,
    /// The whole batch is deletions.
    pub(super) only_deletes: bool,
}

/// What a batch did, and who is told.
pub(super) struct BatchAnswer {
    pub(super) only_deletes: bool,
    pub(super) done: BatchDone,
    pub(super) reply: ReplySender<Result<BatchDone>>,
}

impl Answer {
    pub(super) fn send(self) {
        match self {
            Answer::Done(reply) => reply.send(Ok(())),
            Answer::WasThere(reply, was_there) => reply.send(Ok(was_there)),
            Answer::Decided(reply) => reply(Ok(())),
            Answer::Part | Answer::Entry(_) | Answer::Evicted => {}
            Answer::Batch(answer) => answer.reply.send(Ok(answer.done)),
        }
    }

    pub(super) fn fail(self, error: &Error) {
        match self {
            Answer::Done(reply) => reply.send(Err(error.clone())),
            Answer::WasThere(reply, _) => reply.send(Err(error.clone())),
            Answer::Decided(reply) => reply(Err(error.clone())),
            Answer::Part | Answer::Entry(_) | Answer::Evicted => {}
            Answer::Batch(answer) => answer.reply.send(Err(error.clone())),
        }
    }
}

/// Memory of a group that is over.
#[derive(Default)]
pub(super) struct Spare {
    buf: Vec<u8>,
    pending: Vec<Pending>,
}

/// Records that are written, synced, published and acknowledged together.
pub(super) struct Group {
    /// The file whose identity the records carry.
    pub(super) file: FileId,
    /// Room for the group header, then records.
    pub(super) buf: Vec<u8>,
    /// Where in its file the group begins; 0 until it is submitted, which its records' checksums say too.
    pub(super) start: u64,
    pub(super) payload_crc: PayloadCrc,
    pub(super) record_count: u32,
    /// Of the group's own header, once it is submitted.
    pub(super) header_crc: u32,
    pub(super) seqno_max: Seqno,
    pub(super) seqno_min: Seqno,
    pub(super) pending: Vec<Pending>,
    pub(super) ranges: Vec<RangeDel>,
    pub(super) needs_sync: bool,
    /// What belongs together is published together, for readers too.
    pub(super) has_batch: bool,
    pub(super) staged_at: Option<Instant>,
}

impl Group {
    pub(super) fn new(file: FileId, spare: Spare) -> Group {
        let Spare { mut buf, pending } = spare;
        buf.clear();
        buf.resize(GROUP_HEADER_LEN, 0);
        Group {
            file,
            buf,
            start: 0,
            payload_crc: PayloadCrc::default(),
            record_count: 0,
            header_crc: 0,
            seqno_max: Seqno(0),
            seqno_min: Seqno(u64::MAX),
            pending,
            ranges: Vec::new(),
            needs_sync: false,
            has_batch: false,
            staged_at: None,
        }
    }

    /// Appends a record and returns its offset in the group.
    pub(super) fn push(
        &mut self,
        identity: FileIdentity,
        header: &RecordHeader,
        body: [&[u8]; 2],
    ) -> u32 {
        let at = self.buf.len() as u32;
        let header_crc = encode_record(&mut self.buf, identity.at(at.into()), header, body);
        self.payload_crc.push(header_crc);
        self.record_count += 1;
        self.seqno_max = self.seqno_max.max(header.seqno);
        self.seqno_min = self.seqno_min.min(header.seqno);
        at
    }

    /// The group begins at `start` of its file (W1).
    pub(super) fn place(&mut self, identity: FileIdentity, start: u64) {
        let records_at = |start: u64| identity.at(start + GROUP_HEADER_LEN as u64);
        let (from, to) = (records_at(self.start), records_at(start));
        move_records(&mut self.buf[GROUP_HEADER_LEN..], from, to);
        self.start = start;
    }

    pub(super) fn len(&self) -> u64 {
        self.buf.len() as u64
    }

    pub(super) fn has_records(&self) -> bool {
        self.record_count > 0
    }

    fn is_empty(&self) -> bool {
        self.pending.is_empty() && !self.needs_sync
    }

    /// Whether just one caller waits for it.
    pub(super) fn is_lone(&self) -> bool {
        let is_asked = |pending: &&Pending| !matches!(pending.answer, Answer::Evicted);
        self.pending.iter().filter(is_asked).take(2).count() == 1
    }

    /// The last thing that the group does to a key, if anything.
    pub(super) fn newest(&self, hash: KeyHash, key: (KeyspaceId, &[u8])) -> Option<Effect> {
        let mut effects = self.pending.iter().rev().map(|pending| pending.effect);
        effects.find(|effect| match *effect {
            Effect::RangeDel { index, .. } => self.ranges[index as usize].covers(key.0, key.1),
            effect => effect.hash() == Some(hash),
        })
    }

    /// Whether any range tombstone of the group is over the key.
    pub(super) fn covers(&self, key: (KeyspaceId, &[u8])) -> bool {
        self.ranges.iter().any(|range| range.covers(key.0, key.1))
    }
}

/// What records take that go into one group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Need {
    pub(super) len: u64,
    pub(super) records: usize,
    pub(super) key_bytes: u64,
}

impl Need {
    /// Whether a group can hold them at all.
    pub(super) fn fits(self) -> bool {
        self.records <= 1
            || (self.records <= limits::GROUP_RECORDS_MAX
                && self.len + GROUP_HEADER_LEN as u64 <= limits::GROUP_LEN_MAX as u64)
    }
}

/// Where the next record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Here,
    NextGroup,
    NextFile,
}

/// The open group, the closed ones behind the one in flight, and where the log will be after them.
pub(super) struct Groups {
    open: Group,
    ready: VecDeque<Group>,
    ready_bytes: usize,
    /// The file that the open group goes into.
    target: FileId,
    /// Where the log of `target` ends after everything staged, or `None` if `target` is to be created.
    target_end: Option<u64>,
    /// Records and bytes of keys that were ever staged for `target`.
    target_records: u64,
    target_key_bytes: u64,
    ids: FileIds,
    spare: Vec<Spare>,
}

impl Groups {
    pub(super) fn new(ids: FileIds) -> Groups {
        let target = ids.take();
        Groups {
            open: Group::new(target, Spare::default()),
            ready: VecDeque::new(),
            ready_bytes: 0,
            target,
            target_end: None,
            target_records: 0,
            target_key_bytes: 0,
            ids,
            spare: Vec::new(),
        }
    }

    pub(super) fn open(&mut self) -> &mut Group {
        &mut self.open
    }

    /// Waits for the open group, and changes nothing.
    pub(super) fn wait(&mut self, answer: Answer) {
        self.open.pending.push(Pending { effect: Effect::None, answer });
    }

    /// Whether a group behind the one in flight, and before the open one, does anything to a key.
    pub(super) fn is_ready(&self, hash: KeyHash, key: (KeyspaceId, &[u8])) -> bool {
        self.ready.iter().any(|group| group.newest(hash, key).is_some())
    }

    /// Whether any range tombstone that is staged is over the key.
    pub(super) fn cover(&self, key: (KeyspaceId, &[u8])) -> bool {
        self.open.covers(key) || self.ready.iter().any(|group| group.covers(key))
    }

    pub(super) fn target_file(&self) -> FileId {
        self.target
    }

    pub(super) fn ids(&self) -> &FileIds {
        &self.ids
    }

    /// Records, and whoever else waits for the open group.
    pub(super) fn open_pending_count(&self) -> usize {
        self.open.pending.len()
    }

    /// The group failed: the log does not grow by it.
    pub(super) fn forget(&mut self, group: &Group) {
        if group.file == self.target
            && let Some(end) = &mut self.target_end
        {
            *end -= group.len();
        }
    }

    pub(super) fn staged_bytes(&self) -> usize {
        self.ready_bytes + self.open.buf.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.ready.is_empty()
    }

    /// A group without records that syncs what is there.
    pub(super) fn request_sync(&mut self) {
        self.open.needs_sync = true;
    }

    /// Where a record of `len` bytes goes: the open group may be full, the record may have to be alone
    /// (W5), or the file may be full.
    pub(super) fn room_for(&self, len: u64, key_len: u64, bounds: FileBounds) -> Room {
        let alone = len > limits::GROUP_ALONE_LEN_BYTES as u64;
        self.room(Need { len, records: 1, key_bytes: key_len }, alone, bounds)
    }

    fn room(&self, need: Need, alone: bool, bounds: FileBounds) -> Room {
        let full = self.open.len() + need.len > limits::GROUP_LEN_MAX as u64
            || self.open.record_count as usize + need.records > limits::GROUP_RECORDS_MAX
            || (self.open.record_count == 1 && self.open.buf.len() > limits::GROUP_ALONE_LEN_BYTES);
        let closes = self.open.has_records() && (alone || full);
        // What the file will hold once the open group with this record and a closing mark are in it.
        let end = self.target_end.unwrap_or(DATA_HEADER_LEN as u64);
        let group_len = self.open.len() + if closes { GROUP_HEADER_LEN as u64 } else { 0 };
        let file_len = end + group_len + need.len + GROUP_HEADER_LEN as u64;
        let file_is_fresh = self.target_end.is_none() && !self.open.has_records();
        let records = self.target_records + need.records as u64;
        let key_bytes = self.target_key_bytes + need.key_bytes;
        if !file_is_fresh && !bounds.admit(file_len, records, key_bytes) {
            Room::NextFile
        } else if closes {
            Room::NextGroup
        } else {
            Room::Here
        }
    }

    /// Makes the open group one that can take a record of `len` bytes.
    pub(super) fn make_room(&mut self, len: u64, key_len: u64, bounds: FileBounds) {
        self.enter(self.room_for(len, key_len, bounds));
        self.target_records += 1;
        self.target_key_bytes += key_len;
    }

    /// Makes the open group one that can take all of these records: they may share it even where a record of
    /// their length would have to be alone.
    pub(super) fn make_room_together(&mut self, need: Need, bounds: FileBounds) {
        self.enter(self.room(need, false, bounds));
        self.target_records += need.records as u64;
        self.target_key_bytes += need.key_bytes;
    }

    fn enter(&mut self, room: Room) {
        match room {
            Room::Here => {}
            Room::NextGroup => self.close_open(),
            Room::NextFile => {
                self.close_open();
                self.begin_file();
            }
        }
    }

    /// The file of the group at the head of the queue.
    pub(super) fn front_file(&self) -> FileId {
        self.ready.front().map_or(self.target, |group| group.file)
    }

    /// The group to submit next, still at the head of the queue.
    pub(super) fn front(&mut self) -> Option<&Group> {
        if self.ready.is_empty() && !self.open.is_empty() {
            self.close_open();
        }
        self.ready.front()
    }

    pub(super) fn pop(&mut self) -> Option<Group> {
        let group = self.ready.pop_front()?;
        self.ready_bytes -= group.buf.len();
        Some(group)
    }

    /// A group that goes before all others, into the file that is written now or next.
    pub(super) fn push_front(&mut self, group: Group) {
        if group.file == self.target && group.has_records() {
            let end = self.target_end.unwrap_or(DATA_HEADER_LEN as u64);
            self.target_end = Some(end + group.len());
        }
        self.ready_bytes += group.buf.len();
        self.ready.push_front(group);
    }

    /// Everything staged, for failing it.
    pub(super) fn take_all(&mut self) -> Vec<Group> {
        self.close_open();
        self.ready_bytes = 0;
        std::mem::take(&mut self.ready).into()
    }

    pub(super) fn close_open(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let spare = self.spare.pop().unwrap_or_default();
        let group = std::mem::replace(&mut self.open, Group::new(self.target, spare));
        if group.has_records() {
            let end = self.target_end.unwrap_or(DATA_HEADER_LEN as u64);
            self.target_end = Some(end + group.len());
        }
        self.ready_bytes += group.buf.len();
        self.ready.push_back(group);
    }

    /// What is staged next goes into another file than what was staged before.
    pub(super) fn leave_file(&mut self) {
        self.close_open();
        if self.target_end.is_some() {
            self.begin_file();
        }
    }

    /// What is staged next goes into a file yet to be created.
    pub(super) fn begin_file(&mut self) {
        self.target = self.ids.take();
        self.target_end = None;
        self.target_records = 0;
        self.target_key_bytes = 0;
        self.open.file = self.target;
    }

    /// The group is over, and everybody was told.
    pub(super) fn recycle(&mut self, group: Group) {
        let Group { buf, mut pending, .. } = group;
        pending.clear();
        pending.shrink_to(SPARE_PENDING_MAX);
        if self.spare.len() < 2 && buf.capacity() <= SPARE_LEN_MAX {
            self.spare.push(Spare { buf, pending });
        }
    }
}
