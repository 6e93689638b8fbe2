//! What comes next for somebody who follows the log.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::position::{ChangePosition, Place, WalkAt, gone};
use crate::db::Shared;
use crate::db::call::Call;
use crate::db::scan::{Reader, Scan};
use crate::db::snapshot::AsOf;
use crate::error::{Error, ErrorKind, Result};
use crate::log::data_file::DataFile;
use crate::log::format::group::GROUP_HEADER_LEN;
use crate::log::format::hint::Section;
use crate::log::format::record::{RecordHeader, RecordKind};
use crate::log::scanner::RecordAt;
use crate::log::stretch::{STRETCH_LEN, StretchRead, read_stretch};
use crate::mailbox::{PageOf, Request, reply_slot};
use crate::planted::{Bug, is_planted};
use crate::ranges::RangeDel;
use crate::types::{ExpiresAt, FileId, KeyspaceId, Seqno};

/// Keys of a page of the walk, unless their values are long.
const WALK_KEYS_MAX: usize = 1024;
/// Bytes of values at which a page of the walk ends.
const WALK_BYTES: usize = 1 << 20;

pub(super) struct Feed {
    shared: Arc<Shared>,
    walk: Option<Walk>,
    parts: Vec<Part>,
    /// Whose turn it is.
    next: usize,
}

/// What the store holds, key by key.
struct Walk {
    at: WalkAt,
    scan: Option<Box<Scan>>,
    /// Everything that was in the log where it goes on afterwards is published.
    is_settled: bool,
}

/// The log of one partition.
struct Part {
    shard: usize,
    place: Place,
    /// Files that are still to be read: whatever compaction does, they stay as long as they are here.
    held: VecDeque<Arc<DataFile>>,
    /// No file of the log up to this one is missing in `held`, unless it was read.
    seen: FileId,
}

#[derive(Default)]
pub(super) struct Page {
    pub(super) queued: VecDeque<Queued>,
    pub(super) end: End,
}

/// Where the position is when all of a page was told.
#[derive(Default)]
pub(super) enum End {
    /// Where it was.
    #[default]
    Nothing,
    Place(usize, Place),
    WalkOver,
}

/// A change that is read and not told.
pub(super) struct Queued {
    pub(super) keyspace: KeyspaceId,
    pub(super) shard: usize,
    pub(super) seqno: Seqno,
    pub(super) found: Found,
    pub(super) then: Then,
}

pub(super) enum Found {
    Put { key: Bytes, value: Bytes, expires_at: Option<ExpiresAt> },
    Stored { key: Bytes, header: Box<RecordHeader>, stored: Bytes },
    Del { key: Bytes },
    RangeDel(RangeDel),
}

/// What the position is once the change is told.
pub(super) enum Then {
    /// What it was: more of its commit group comes.
    Nothing,
    Offset(FileId, u64),
    Walked(WalkAt),
}

impl Page {
    pub(super) fn is_nothing(&self) -> bool {
        self.queued.is_empty() && matches!(self.end, End::Nothing)
    }
}

/// Where the log of each partition ends now, as far as it is durable, and which numbers are no news behind that (CF4).
pub(super) fn places_now(shared: &Shared) -> Vec<Place> {
    let place = |shard: &crate::db::Shard| loop {
        let before = shard.view.log_gone();
        let files = shard.view.files.load_full();
        let newest = files.iter().map(|(_, data)| data).filter(|data| !data.is_copy());
        let newest = newest.max_by_key(|data| data.id);
        if shard.view.log_gone() != before {
            continue;
        }
        let end = newest.map(|data| (data.id, data.durable()));
        // After that, so that nothing in front of the place has a larger number.
        let top = shard.view.seqno_max();
        return match end {
            Some((file, (offset, false))) => Place { file, offset, top },
            Some((file, (_, true))) => Place::behind(file.max(before), top),
            None => Place::behind(before, top),
        };
    };
    shared.partitions.iter().map(place).collect()
}

impl Feed {
    /// Takes hold of what there is of the log behind `position`.
    pub(super) fn begin(shared: Arc<Shared>, position: &ChangePosition) -> Result<Feed> {
        let walk = position.walk.clone();
        let part = |(shard, place): (usize, &Place)| Part {
            shard,
            place: *place,
            held: VecDeque::new(),
            seen: FileId(place.file.0.saturating_sub(1)),
        };
        let mut feed = Feed {
            shared,
            walk: walk.map(|at| Walk { at, scan: None, is_settled: false }),
            parts: position.places.iter().enumerate().map(part).collect(),
            next: 0,
        };
        feed.hold()?;
        Ok(feed)
    }

    fn hold(&mut self) -> Result<()> {
        self.parts.iter_mut().try_for_each(|part| part.hold(&self.shared))
    }

    /// What comes next; nothing if there is nothing more now.
    pub(super) async fn fill(&mut self) -> Result<Page> {
        if self.shared.lifecycle.is_closing() {
            return Err(Error::closed());
        }
        self.hold()?;
        if let Some(walk) = &mut self.walk {
            let page = walk.page(&self.shared).await?;
            for queued in &page.queued {
                let top = &mut self.parts[queued.shard].place.top;
                *top = queued.seqno.max(*top);
            }
            if matches!(page.end, End::WalkOver) {
                self.walk = None;
            }
            return Ok(page);
        }
        for _ in 0..self.parts.len() {
            let part = &mut self.parts[self.next];
            self.next = (self.next + 1) % self.shared.partitions.len();
            let page = part.page(&self.shared).await?;
            if !page.is_nothing() {
                return Ok(page);
            }
        }
        Ok(Page::default())
    }
}

impl Walk {
    async fn page(&mut self, shared: &Arc<Shared>) -> Result<Page> {
        let all: Vec<usize> = (0..shared.partitions.len()).collect();
        if !std::mem::replace(&mut self.is_settled, true) {
            // What is durable may not be published yet: the walk would miss it, and the log begins behind it.
            shared.sync_shards(&all).await?;
        }
        let (mut page, mut bytes) = (Page::default(), 0);
        while page.queued.len() < WALK_KEYS_MAX && bytes < WALK_BYTES {
            let (keyspace, from) = (self.at.keyspace, self.at.key.clone());
            let scan = self.scan.get_or_insert_with(|| {
                let scan = Scan::new(AsOf::now(shared.clone()), keyspace);
                let range = (Bound::Excluded(from.clone()), Bound::Unbounded);
                Box::new(if from.is_empty() { scan } else { scan.range(range) })
            });
            let (key, entry) = match std::future::poll_fn(|cx| scan.poll_entry(cx)).await {
                Some(Ok(found)) => found,
                Some(Err(error)) if error.kind() != ErrorKind::KeyspaceDropped => {
                    return Err(error);
                }
                Some(Err(_)) | None => {
                    let ids = shared.keyspaces.ids();
                    let Some(next) = ids.into_iter().find(|id| *id > keyspace) else {
                        if page.queued.is_empty() {
                            page.end = End::WalkOver;
                        }
                        break;
                    };
                    self.at = WalkAt { keyspace: next, key: Bytes::new() };
                    self.scan = None;
                    continue;
                }
            };
            let key = Bytes::copy_from_slice(&key);
            bytes += entry.value.len();
            self.at.key = key.clone();
            let shard = shared.shard_of(shared.hash(keyspace, &key));
            let (seqno, expires_at) = (entry.seqno, entry.expires_at);
            let found = Found::Put { key, value: entry.value, expires_at };
            let then = Then::Walked(self.at.clone());
            page.queued.push_back(Queued { keyspace, shard, seqno, found, then });
        }
        let mut shards: Vec<usize> = page.queued.iter().map(|queued| queued.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        shared.sync_shards(&shards).await?; // CF1
        Ok(page)
    }
}

impl Shared {
    /// Makes durable what was published in these partitions, and publishes what was staged.
    async fn sync_shards(&self, shards: &[usize]) -> Result<()> {
        let syncs = shards.iter().map(|shard| {
            let (reply, receiver) = reply_slot();
            Call::new(self, *shard, Request::Sync { reply }, receiver)
        });
        futures::future::try_join_all(syncs).await?;
        Ok(())
    }
}

impl Part {
    /// Takes hold of what the log has got since (CF2).
    fn hold(&mut self, shared: &Shared) -> Result<()> {
        let view = &shared.partitions[self.shard].view;
        let files = view.files.load_full();
        if view.log_gone() > self.seen && !is_planted(Bug::ChangesGapHidden) {
            return Err(gone());
        }
        let files = files.iter().map(|(_, data)| data);
        let new = files.filter(|data| data.id > self.seen && !data.is_copy());
        let mut new: Vec<Arc<DataFile>> = new.cloned().collect();
        new.sort_unstable_by_key(|data| data.id);
        if let Some(newest) = new.last() {
            self.seen = newest.id;
        }
        self.held.extend(new);
        Ok(())
    }

    /// The next stretch of the log, if it has one.
    async fn page(&mut self, shared: &Arc<Shared>) -> Result<Page> {
        let before = self.place;
        while let Some(data) = self.held.front().cloned() {
            if data.id > self.place.file {
                self.place = Place { file: data.id, ..Place::behind(FileId(0), self.place.top) };
            }
            let (end, is_all) = data.durable();
            if self.place.offset < end {
                return self.stretch(shared, &data, end).await;
            }
            if self.place.offset > end && is_all {
                return Err(gone()); // Of a log that went on otherwise.
            }
            if !is_all {
                break;
            }
            self.place = Place::behind(data.id, self.place.top);
            self.held.pop_front();
        }
        let is_moved = self.place != before;
        let end = if is_moved { End::Place(self.shard, self.place) } else { End::Nothing };
        Ok(Page { queued: VecDeque::new(), end })
    }

    async fn stretch(
        &mut self,
        shared: &Arc<Shared>,
        data: &Arc<DataFile>,
        end: u64,
    ) -> Result<Page> {
        let reader = Reader { shared, shard: self.shard };
        let of = PageOf::Data(data.clone());
        let (from, mut len, mut bytes) = (self.place.offset, STRETCH_LEN, Vec::new());
        loop {
            let place = Section { offset: from, len: len.min(end - from) };
            reader.page(&of, place, 0, &mut bytes).await?;
            if (bytes.len() as u64) < place.len {
                let offset = from + bytes.len() as u64;
                return Err(Error::corrupt(&data.path, offset, "the file was cut short"));
            }
            let mut found = Records::new(shared, self.shard, data, from);
            let mut take = |record: RecordAt<'_>| found.take(&record);
            let codecs = &shared.codecs;
            let is_known = &mut |_: &RecordHeader, _: &[u8]| false;
            match read_stretch(codecs, data, &bytes, from, end, is_known, &mut take)? {
                StretchRead::Longer(longer) => len = longer,
                StretchRead::Upto(upto) => {
                    let mut queued = found.finish(upto)?;
                    self.settle(shared, &mut queued).await?;
                    self.place.offset = upto;
                    return Ok(Page { queued, end: End::Place(self.shard, self.place) });
                }
            }
        }
    }

    /// Judges records that come later than their numbers say (CF4).
    async fn settle(&mut self, shared: &Shared, all: &mut VecDeque<Queued>) -> Result<()> {
        let mut is_any_late = false;
        for queued in &mut *all {
            if queued.seqno > self.place.top {
                self.place.top = queued.seqno;
                continue;
            }
            let (Found::Stored { key, .. } | Found::Del { key }) = &queued.found else { continue };
            is_any_late = true;
            let now = match shared.read(queued.keyspace, key, false).await {
                Ok(now) => now.map(|entry| (entry.seqno, entry.value, entry.expires_at)),
                Err(error) if error.kind() == ErrorKind::KeyspaceDropped => None,
                Err(error) => return Err(error),
            };
            // Whatever it is now is no older than this record, and no older than what was told.
            let key = key.clone();
            queued.found = match now {
                Some((seqno, value, expires_at)) => {
                    queued.seqno = seqno;
                    Found::Put { key, value, expires_at }
                }
                None => Found::Del { key },
            };
        }
        if is_any_late {
            shared.sync_shards(&[self.shard]).await?; // CF1
        }
        Ok(())
    }
}

/// The records of a stretch, and where its commit groups begin.
struct Records<'s> {
    shared: &'s Shared,
    shard: usize,
    data: &'s DataFile,
    queued: VecDeque<Queued>,
    /// Where the next record is, if it is of the same group.
    next: u64,
    failure: Option<Error>,
}

impl<'s> Records<'s> {
    fn new(shared: &'s Shared, shard: usize, data: &'s DataFile, from: u64) -> Records<'s> {
        let next = from + GROUP_HEADER_LEN as u64;
        Records { shared, shard, data, queued: VecDeque::new(), next, failure: None }
    }

    fn take(&mut self, record: &RecordAt<'_>) {
        if record.offset != self.next {
            self.group_ends(self.next);
        }
        self.next = record.offset + u64::from(record.len);
        let header = record.header;
        if header.is_of_batch() {
            return; // What was decided is in the log as ordinary records too.
        }
        let key = Bytes::copy_from_slice(record.key);
        let found = match header.kind {
            RecordKind::Put => Found::Stored {
                key,
                header: Box::new(*header),
                stored: Bytes::copy_from_slice(record.value),
            },
            RecordKind::Del => Found::Del { key },
            RecordKind::RangeDel => match self.shared.codecs.range_end(header, record.value) {
                Ok(end) => Found::RangeDel(RangeDel::of(header, record.key, &end)),
                Err(why) => {
                    self.failure = Some(why.at(&self.data.path, record.offset));
                    return;
                }
            },
            RecordKind::BatchDecision | RecordKind::BatchResolve => return,
        };
        let (keyspace, seqno) = (header.keyspace, header.seqno);
        let (shard, then) = (self.shard, Then::Nothing);
        self.queued.push_back(Queued { keyspace, shard, seqno, found, then });
    }

    fn group_ends(&mut self, at: u64) {
        if let Some(last) = self.queued.back_mut() {
            last.then = Then::Offset(self.data.id, at);
        }
    }

    fn finish(mut self, upto: u64) -> Result<VecDeque<Queued>> {
        self.group_ends(upto);
        match self.failure {
            Some(error) => Err(error),
            None => Ok(self.queued),
        }
    }
}
