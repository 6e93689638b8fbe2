//! One shard's state machine: its log, its keydir, and the requests on their way through.
//!
//! All state changes happen in plain functions; what takes time is a future in [`Ops`] that ends in
//! an [`Event`]. A write goes through four phases, each named in [`commit`]: *stage* (encode into the
//! open group), *submit* (one write, one sync), *publish* (keydir), *reply*.
//!
//! ## Invariants
//! - **P1** The partition is written by one thread for its whole life.
//! - **W1** A record gets its sequence number and its place in its group when it is staged, and the group
//!   its offset when it is submitted: nothing is awaited in between.
//! - **W4** Only one group is in flight, and none while the log moves to a new file, so nothing in a
//!   newer file is acknowledged before the older one is synced, cut and listed.
//! - **K2** The keydir changes only in `publish`, after the group is as durable as asked.

mod backup;
mod batch;
mod commit;
mod compaction;
mod decide;
mod eviction;
mod expiry;
mod get_many;
mod get_range;
mod groups;
mod handles;
mod key_runs;
mod ledger;
mod listing;
mod locking;
mod page;
mod prewrite;
mod range_del;
mod read;
pub(crate) mod recovery;
pub(crate) mod repair;
pub(crate) mod repartition;
mod rotation;
mod scrub;
mod settle;
mod snapshot;
mod space;
mod update;
mod upkeep;
pub(crate) mod verify;
mod view;
mod watch;
mod write;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};

use self::backup::Backups;
use self::batch::Batches;
use self::commit::{Here, InFlight};
use self::eviction::Evictor;
use self::get_many::ManyRead;
use self::get_range::{RangeRead, RangeRequest};
use self::groups::{Effect, Group, Groups, Pending};
use self::handles::Opened;
use self::ledger::Amount;
use self::listing::ChangeFailure;
use self::page::PageRequest;
use self::range_del::RangeWork;
use self::read::ReadRequest;
use self::rotation::Rotated;
use self::snapshot::Moments;
use self::space::Reserve;
use self::update::Parked;
use self::upkeep::{Upkeep, UpkeepEvent};
pub(crate) use self::view::PartitionView;
use self::watch::Telling;
use crate::clock::{Clock, ExpiryClock};
use crate::error::{Error, ErrorKind};
use crate::io::{Disk, Fs, LockedMemory, Op};
use crate::keydir::{Candidate, Expiries, Keydir, Location, Usage};
use crate::log::codec::Codecs;
use crate::log::data_file::{
    ActiveDataFile, DataFile, FileBounds, FileIds, FileTable, Owner, StoreIdentity,
};
use crate::log::files::FilesList;
use crate::log::format::record::RecordHeader;
use crate::mailbox::{GetMany, Inbox, Peers, ReplySender, Request, Stored, Ticks, Watchers};
use crate::moment::Snapshots;
use crate::options::{Capacity, Compaction};
use crate::ranges::Ranges;
use crate::route::KeyHasher;
use crate::types::{KeyHash, PartitionId, Seqno};
use crate::upkeep::prewrite::{Outcome as PrewriteOutcome, Prewrite};

/// What every partition of a store has in common.
#[derive(Clone)]
pub(crate) struct PartitionConfig {
    pub(crate) identity: StoreIdentity,
    /// Random; marks what was written by this open (F4).
    pub(crate) open_id: u64,
    pub(crate) clock: Clock,
    pub(crate) expiry: Arc<ExpiryClock>,
    pub(crate) codecs: Arc<Codecs>,
    pub(crate) bounds: FileBounds,
    /// Of the whole store.
    pub(crate) capacity: Capacity,
    pub(crate) prewrite: bool,
    pub(crate) compaction: Compaction,
    /// `None` if files are not to be scrubbed.
    pub(crate) scrub: Option<ScrubRate>,
    /// Room for the files that are locked in memory, of the whole store; `None` if none is.
    pub(crate) locked: Option<Arc<LockedMemory>>,
    /// Sealed files that stay open.
    pub(crate) open_files_max: usize,
    /// All partitions of the store.
    pub(crate) peers: Arc<Peers>,
    pub(crate) watchers: Arc<Watchers>,
    /// Of each partition's log.
    pub(crate) changes_retention: Retention,
    pub(crate) snapshots: Arc<Snapshots>,
}

impl PartitionConfig {
    /// Whether a record is one that readers see: it has not expired, and no range that was deleted has it.
    /// `cover` is the sequence number below which the key is deleted, as of when the key was looked up (RG2).
    pub(crate) fn shows(&self, header: &RecordHeader, cover: Seqno) -> bool {
        !self.expiry.hides(header.expires_at()) && header.seqno >= cover
    }
}

/// What of a partition's log is kept as it was written, for those who follow it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retention {
    /// Of the newest files.
    pub(crate) bytes: u64,
    /// Since the newest change in them; `None` if it does not matter.
    pub(crate) age_max_ms: Option<u64>,
}

/// How fast a partition's files are scrubbed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScrubRate {
    /// `None` where time does not pass by itself: as fast as can be.
    pub(crate) bytes_per_sec: Option<u64>,
}

/// Operations under way, of all partitions of one worker.
pub(crate) type Ops = FuturesUnordered<Op<(usize, Event)>>;

/// How an operation ended.
pub(crate) enum Event {
    Committed {
        result: std::io::Result<()>,
        at_sync: bool,
        buf: Vec<u8>,
    },
    Undone {
        result: std::io::Result<()>,
    },
    Paused,
    Prewritten(PrewriteOutcome),
    Rotated(Option<Result<Rotated, ChangeFailure>>),
    Read {
        request: ReadRequest,
        location: Location,
        data: Arc<DataFile>,
        opened: Opened,
        result: std::io::Result<Vec<u8>>,
    },
    ManyRead {
        request: GetMany,
        reads: Vec<ManyRead>,
    },
    /// The record that the next write of a key waits for.
    RecordRead {
        hash: KeyHash,
        location: Location,
        data: Arc<DataFile>,
        opened: Opened,
        result: std::io::Result<Vec<u8>>,
    },
    /// `None` if the helper thread panicked.
    RangeRead(Option<Box<RangeRead>>),
    /// The record of a key that is to be evicted, for the key in it.
    VictimRead {
        victim: Candidate,
        data: Arc<DataFile>,
        opened: Opened,
        result: std::io::Result<Vec<u8>>,
    },
    /// The record of a key that has expired, for the key in it.
    ExpiredRead {
        expired: Candidate,
        data: Arc<DataFile>,
        opened: Opened,
        result: std::io::Result<Vec<u8>>,
    },
    PageRead {
        request: PageRequest,
        opened: Opened,
        result: std::io::Result<Vec<u8>>,
    },
    Upkept(UpkeepEvent),
}

/// One shard, owned by its worker.
pub(crate) struct Partition {
    id: PartitionId,
    /// Index in its worker, the first half of what [`Ops`] yields.
    index: usize,
    config: PartitionConfig,
    /// Of the data files that are begun now ([`FileBounds::fit`]).
    bounds: FileBounds,
    owner: Owner,
    hasher: KeyHasher,
    dir: PathBuf,
    disk: Disk,
    fs: Fs,
    inbox: Inbox,
    view: Arc<PartitionView>,

    keydir: Keydir,
    expiries: Expiries,
    /// Keys that have expired and whose records are being read, for those who watch.
    expiring: Vec<KeyHash>,
    watch: Telling,
    /// What the keydir still has and does not count.
    ranges: Ranges,
    range_work: RangeWork,
    usage: Usage,
    files: FileTable,
    /// `FILES` as it is on disk (F1).
    listed: FilesList,
    active: Option<ActiveDataFile>,

    next_seqno: Seqno,
    /// The first number of this open (F5).
    seqno_floor: Seqno,
    groups: Groups,
    in_flight: InFlight,
    /// How long the next group waits, because compaction is behind (W6).
    pause: Duration,
    /// When the group in flight, or the last one, was submitted.
    submitted_at: Instant,
    /// Bytes behind the log's end that the group in flight takes.
    in_flight_len: u64,
    /// Keys staged or in flight, counted by a few bits of their hash: says whether a deletion of a
    /// key that the keydir lacks may still have something to delete.
    staged_keys: StagedKeys,
    /// Bytes were acknowledged that no sync has covered.
    unsynced: bool,
    prewrite: Prewrite,
    here: Here,
    upkeep: Upkeep,
    reserve: Reserve,
    /// `None` if nothing bounds what the partition holds.
    evictor: Option<Box<Evictor>>,

    parked: Parked,
    batches: Batches,
    moments: Moments,
    backups: Backups,
    reads_waiting: VecDeque<ReadRequest>,
    reads_in_flight: usize,
    reads_in_flight_bytes: usize,
    pages_in_flight: usize,
    parts_in_flight: usize,
    many_in_flight: usize,

    /// Why nothing is written: a sync failed, or the store was opened read-only.
    poisoned: Option<Error>,
    /// Closing has come to its last step, after which nothing is written.
    sealing: bool,
    finished: bool,
}

/// Counters by hash; a zero is certain, anything else is a maybe.
struct StagedKeys(Box<[u32; 4096]>);

impl StagedKeys {
    fn slot(&mut self, hash: KeyHash) -> &mut u32 {
        &mut self.0[(hash.bucket >> 20) as usize % 4096]
    }

    /// Whether the key may be among them.
    fn is_any(&self, hash: KeyHash) -> bool {
        self.0[(hash.bucket >> 20) as usize % 4096] > 0
    }
}

impl Partition {
    /// A partition as recovery left it, ready for requests.
    pub(crate) fn new(
        recovered: recovery::Recovered,
        config: PartitionConfig,
        index: usize,
        disk: Disk,
        inbox: Inbox,
    ) -> Partition {
        let share = config.capacity.share(recovered.id.0, config.identity.partition_count);
        let live_bytes = recovered.usage.total().live_bytes;
        let held = Amount::new(recovered.keydir.len(), live_bytes);
        let is_read_only = recovered.fs.is_read_only();
        let read_only = is_read_only.then(|| Error::read_only(&recovered.dir));
        let evictor = Evictor::new(share, recovered.id.0.into(), held);
        let partition = Partition {
            // What is over a bound stays where nothing is written.
            evictor: evictor.filter(|_| !is_read_only),
            id: recovered.id,
            index,
            hasher: KeyHasher::new(&config.identity.hash_key),
            prewrite: Prewrite::new(config.prewrite),
            here: Here::default(),
            upkeep: Upkeep::new(recovered.hints_due, config.scrub),
            reserve: if recovered.has_reserve { Reserve::Held } else { Reserve::Missing },
            owner: recovered.owner,
            bounds: config.bounds.fit(recovered.usage.total().live_bytes),
            config,
            dir: recovered.dir,
            disk,
            fs: recovered.fs,
            inbox,
            view: recovered.view,
            keydir: recovered.keydir,
            expiries: recovered.expiries,
            expiring: Vec::new(),
            watch: Telling::default(),
            ranges: Ranges::default(),
            range_work: RangeWork::new(recovered.next_seqno),
            usage: recovered.usage,
            files: recovered.files,
            groups: Groups::new(FileIds::new(recovered.listed.next)),
            listed: recovered.listed,
            active: None,
            next_seqno: recovered.next_seqno,
            seqno_floor: recovered.next_seqno,
            in_flight: InFlight::None,
            pause: Duration::ZERO,
            submitted_at: Instant::now(),
            in_flight_len: 0,
            staged_keys: StagedKeys(Box::new([0; 4096])),
            unsynced: false,
            parked: Parked::default(),
            batches: Batches::default(),
            moments: Moments::default(),
            backups: Backups::default(),
            reads_waiting: VecDeque::new(),
            reads_in_flight: 0,
            reads_in_flight_bytes: 0,
            pages_in_flight: 0,
            parts_in_flight: 0,
            many_in_flight: 0,
            poisoned: read_only,
            sealing: false,
            finished: false,
        };
        partition.evict_opened();
        partition.view.show_log_gone(partition.listed.log_gone);
        partition
    }

    /// Takes requests while there is room for what they stage; true if it took any.
    pub(crate) fn drain(&mut self, ops: &mut Ops) -> bool {
        self.batch_messages(ops);
        // What a batch has made too much goes before anything else comes, now that its keys are nobody's.
        self.batch_advance(ops);
        self.evict_advance(ops);
        let (mut requests, mut bytes) = (0, 0);
        while requests < crate::limits::DRAIN_REQUESTS_MAX && self.has_room() {
            let Some(request) = self.inbox.take() else { break };
            requests += 1;
            bytes += request.len_bytes();
            // The log is sealed, or about to be: dropping the request answers that the store is closed
            // (M1).
            if !self.sealing {
                self.handle(request, ops);
                self.evict_advance(ops);
            }
        }
        self.inbox.release(requests, bytes);
        requests > 0
    }

    /// The one place that knows every kind of request.
    fn handle(&mut self, request: Request, ops: &mut Ops) {
        match request {
            Request::Put { hash, .. } | Request::Del { hash, .. } if self.parked.has(hash) => {
                self.parked.push(hash, request);
            }
            Request::Put { hash, body, expires_at, durable, reply } => {
                self.put(hash, &body, expires_at, durable, reply);
            }
            Request::PutMany(many) => self.put_many(*many, ops),
            Request::Del { hash, body, durable, reply } => {
                self.del(hash, body, durable, reply, ops);
            }
            Request::RangeDel { body, is_drop, durable, reply } => {
                self.range_del(body, is_drop, durable, reply);
            }
            Request::Update(update) => self.update(update, ops),
            Request::Batch(batch) => self.batch(*batch, ops),
            Request::Get { hash, keyspace, key, reply } => {
                let (cover, at) = (Seqno(0), None);
                self.get(ReadRequest { hash, keyspace, key, cover, at, reply }, ops);
            }
            Request::GetRange { hash, keyspace, key, range, reply } => {
                let cover = Seqno(0);
                self.get_range(RangeRequest { hash, keyspace, key, range, cover, reply }, ops);
            }
            Request::GetAt(get) => self.get_at(*get, ops),
            Request::GetMany(request) => self.get_many(*request, ops),
            Request::Sync { reply } => self.sync(reply),
            Request::Page { of, offset, len, reply } => self.page(of, offset, len, reply, ops),
            Request::HintBroken { data, hint, reply } => {
                self.hint_broken(&data, &hint);
                reply.send(Ok(()));
            }
            Request::Compact { only, reply } => self.compact(only, reply),
            Request::CompactCancel { reply } => self.compact_cancel(reply),
        }
    }

    /// Acts on an operation that ended.
    pub(crate) fn on_event(&mut self, event: Event, ops: &mut Ops) {
        match event {
            Event::Committed { result, at_sync, buf } => {
                self.commit_done(result, at_sync, buf, ops);
            }
            Event::Undone { result } => self.commit_undone(result),
            Event::Paused => self.commit_paused(),
            Event::Prewritten(outcome) => self.prewrite_done(outcome),
            Event::Rotated(rotated) => self.rotate_done(rotated),
            Event::Read { request, location, data, opened, result } => {
                self.handles_keep(&data, opened);
                self.read_done(request, location, &data, result, ops);
            }
            Event::ManyRead { request, reads } => self.many_done(request, reads, ops),
            Event::RecordRead { hash, location, data, opened, result } => {
                self.update_read(hash, location, &data, opened, result, ops);
            }
            Event::RangeRead(read) => self.range_done(read, ops),
            Event::VictimRead { victim, data, opened, result } => {
                self.evict_read_done(victim, &data, opened, result);
            }
            Event::ExpiredRead { expired, data, opened, result } => {
                self.expiry_read_done(expired, &data, opened, result);
            }
            Event::PageRead { request, opened, result } => {
                self.handles_keep(request.of().stored(), opened);
                self.page_done(request, result);
            }
            Event::Upkept(event) => self.upkeep_done(event, ops),
        }
    }

    /// Starts whatever can be started; called after requests and events were handled.
    pub(crate) fn advance(&mut self, ops: &mut Ops) {
        self.range_waiting_advance();
        loop {
            self.update_advance(ops);
            self.batch_advance(ops);
            self.evict_advance(ops);
            self.commit_advance(ops);
            // A group that is through already leaves nobody to wake who waited for it.
            if !self.update_can_advance() && !self.batches.can_advance(self.ranges_are_staged()) {
                break;
            }
        }
        self.upkeep_advance(ops);
        if self.inbox.is_closed() && self.is_idle() && self.inbox.is_empty() && !self.finished {
            self.finish_advance(ops);
        }
    }

    /// Timers rang.
    pub(crate) fn tick(&mut self, ticks: Ticks) {
        if ticks.has(Ticks::SYNC) && self.unsynced && self.poisoned.is_none() {
            self.groups.request_sync();
        }
        if ticks.has(Ticks::UPKEEP) {
            if self.id.0 == 0 {
                self.config.peers.publications().tick();
            }
            self.upkeep_tick();
        }
    }

    /// No other partition has this one's worker.
    pub(crate) fn be_alone(&mut self) {
        self.here.be_alone();
    }

    /// Whether the mailbox holds something that could be taken now.
    pub(crate) fn has_work(&self) -> bool {
        (!self.inbox.is_empty() && self.has_room())
            || (self.inbox.is_closed() && self.is_idle() && !self.finished)
            || self.config.peers.has(self.id)
            || self.upkeep_has_work()
            || self.evict_is_due()
    }

    /// Closed, everything answered, the log sealed.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Why the partition takes no more writes, if it failed.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.poisoned.clone().filter(|error| error.kind() != ErrorKind::ReadOnly)
    }

    fn has_room(&self) -> bool {
        self.groups.staged_bytes() < crate::limits::STAGED_BYTES_MAX
            && self.groups.open_pending_count() < crate::limits::GROUP_RECORDS_MAX
            && self.reads_waiting.len() + self.parked.requests() < crate::limits::DRAIN_REQUESTS_MAX
            && self.parked.bytes() + self.batches.bytes() < crate::limits::STAGED_BYTES_MAX
            && self.pages_in_flight < crate::limits::PAGES_IN_FLIGHT_MAX
            && self.range_work.waiting_count() < crate::limits::DRAIN_REQUESTS_MAX
            && self.many_in_flight < crate::limits::GET_MANY_IN_FLIGHT_MAX
            && self.parts_in_flight < crate::limits::PARTS_IN_FLIGHT_MAX
            && !self.evict_is_behind()
    }

    fn is_idle(&self) -> bool {
        matches!(self.in_flight, InFlight::None)
            && self.groups.is_empty()
            && !self.prewrite.is_in_flight()
            && self.upkeep.is_idle()
            && self.range_work.waiting_count() == 0
            && self.reads_in_flight == 0
            && self.reads_waiting.is_empty()
            && self.parked.is_empty()
            && self.batches.is_idle()
            && self.pages_in_flight == 0
            && self.many_in_flight == 0
            && self.parts_in_flight == 0
            && self.evict_is_idle()
            && self.expiring.is_empty()
    }

    /// From now on the partition is read-only; everybody who waits for a write is told (D1).
    fn poison(&mut self, what: &str, source: &std::io::Error) {
        let error = Error::new(
            ErrorKind::Poisoned,
            format!(
                "{}: {what} failed: {source}; what was acknowledged as durable is safe, writes are refused \
                 until the store is closed and opened again",
                self.dir.display()
            ),
        );
        tracing::error!(partition = self.id.0, error = %error, "partition poisoned");
        self.view.set_failure(&error);
        self.poisoned = Some(error.clone());
        let in_flight = std::mem::replace(&mut self.in_flight, InFlight::None);
        if let InFlight::Group(group) | InFlight::Undo(group, _) = in_flight {
            // Its sync failed, or what reached the disk could not be zeroed.
            self.fail_group(group, &error, true);
        }
        self.fail_staged(&error);
    }

    fn fail_staged(&mut self, error: &Error) {
        for group in self.groups.take_all() {
            self.fail_group(group, error, false);
        }
        self.update_fail(error);
        self.backup_fail(error);
        self.range_work.fail_waiting(error);
        self.batch_fail(error);
    }

    /// Tells everybody who waits for a group; if it is in doubt, nobody knows what the drive has of it.
    fn fail_group(&mut self, group: Group, error: &Error, is_in_doubt: bool) {
        for pending in group.pending {
            self.fail_pending(pending, error, is_in_doubt);
        }
        self.range_work.unstage(group.ranges.len());
    }

    fn fail_pending(&mut self, pending: Pending, error: &Error, is_in_doubt: bool) {
        match pending.effect {
            Effect::Put { .. } | Effect::Del { .. } => self.unstaged(&pending),
            Effect::Intent { batch, .. } | Effect::Seen { batch } => {
                self.batch_failed(batch, error);
            }
            Effect::Copy { batch, entry, .. } => self.batch_copied(batch, entry, None),
            Effect::Decision { batch, .. } => self.batch_undecided(batch, error, is_in_doubt),
            // The next open finds that there is none, and the copies with their numbers.
            Effect::Resolve { .. } | Effect::RangeDel { .. } | Effect::None => {}
        }
        pending.answer.fail(error);
    }
}

impl Drop for Partition {
    /// A worker that panics poisons its partitions before their callers are answered (W7).
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what = "the partition's worker, by a bug in ringcask,";
            self.poison(what, &std::io::Error::other("see the panic message"));
        }
        self.moments.leave();
        // Behind what was said above, for whoever finds no files and asks why.
        self.view.leave();
        self.config.peers.close(self.id);
        self.config.watchers.partition_gone();
    }
}

/// Yields the next operation that ended, if one did.
pub(crate) fn poll_ops(ops: &mut Ops, cx: &mut Context<'_>) -> Option<(usize, Event)> {
    match ops.poll_next_unpin(cx) {
        Poll::Ready(ended) => ended,
        Poll::Pending => None,
    }
}

type GetReply = ReplySender<crate::error::Result<Option<Stored>>>;

/// Nanoseconds since `since`, as histograms count them.
fn nanos_since(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
