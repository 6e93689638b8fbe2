//! Who watches the store, and what each of them has still to be told.
//!
//! A partition tells what it publishes while it publishes it, before anybody is answered: so whoever has the
//! answer to a write finds the write in every watcher's queue. A watcher that takes its events too slowly loses
//! some, and is told how many; a writer never waits for it.
//!
//! ## Invariants
//! - **WT1** A partition tells in the order in which it publishes, so the events of a key are in the order of its
//!   changes in every queue.
//! - **WT2** What is not put into a queue is counted there, at the place where it is missing.
//! - **WT3** While nobody watches, a partition's share in this is one load for each commit group.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::log::format::record::{RecordHeader, SEAL_LEN};
use crate::planted::{Bug, is_planted};
use crate::ranges::{RangeDel, bounds_of_prefix, is_before};
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::types::{KeyspaceId, PartitionId, Seqno};

/// Everybody who watches a store.
pub(crate) struct Watchers {
    /// How many there are.
    count: AtomicUsize,
    all: ArcSwap<Vec<Arc<Watcher>>>,
    /// Held by whoever changes the two.
    change: Mutex<()>,
    /// Partitions that may still tell something.
    partitions_left: AtomicUsize,
    /// Events that were left out, of all watchers that there ever were.
    missed: Arc<AtomicU64>,
    /// Streams of changes.
    stream_count: AtomicUsize,
    /// Those who follow the log, and of them those who wait for more of it.
    follower_count: AtomicUsize,
    followers: Mutex<Vec<Waker>>,
}

/// What somebody wants to be told.
#[derive(Clone, Debug)]
pub(crate) struct Interest {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) keys: WatchedKeys,
    /// Values that are longer are not told, in bytes as the caller gave them.
    pub(crate) value_len_max: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum WatchedKeys {
    All,
    Prefix(Bytes),
    One(Bytes),
}

/// One who watches, and what there is to tell.
pub(crate) struct Watcher {
    interest: Interest,
    events_max: usize,
    bytes_max: usize,
    queue: Mutex<Queue>,
    /// Of all watchers.
    missed: Arc<AtomicU64>,
}

/// Who watches and who follows, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watching {
    pub(crate) watchers: u64,
    pub(crate) events_queued: u64,
    pub(crate) bytes_queued: u64,
    pub(crate) events_missed: u64,
    pub(crate) streams: u64,
    pub(crate) followers: u64,
}

#[derive(Default)]
struct Queue {
    told: VecDeque<Told>,
    bytes: usize,
    /// It was full, and is not half empty again.
    is_behind: bool,
    is_over: bool,
    waker: Option<Waker>,
}

/// What is in a watcher's queue.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Event(Event),
    /// So many events are missing here.
    Missed(u64),
}

/// A change of one key, or of a range of them.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) seqno: Seqno,
    pub(crate) change: Changed,
}

#[derive(Clone, Debug)]
pub(crate) enum Changed {
    Put {
        key: Bytes,
        header: Box<RecordHeader>,
        /// As it is stored; `None` if nobody wants one of this length.
        stored: Option<Bytes>,
    },
    Del {
        key: Bytes,
    },
    Expired {
        key: Bytes,
    },
    Evicted {
        key: Bytes,
    },
    /// Of this partition's keys, and no other's.
    RangeDel {
        begin: Bytes,
        end: Bytes,
        partition: PartitionId,
    },
}

impl Event {
    /// What it takes in a queue.
    fn len_bytes(&self) -> usize {
        let body = match &self.change {
            Changed::Put { key, stored, .. } => {
                size_of::<RecordHeader>() + key.len() + stored.as_ref().map_or(0, Bytes::len)
            }
            Changed::Del { key } | Changed::Expired { key } | Changed::Evicted { key } => key.len(),
            Changed::RangeDel { begin, end, .. } => begin.len() + end.len(),
        };
        size_of::<Told>() + body
    }
}

/// Length of the value that a put had, as its caller gave it.
pub(crate) fn raw_len(header: &RecordHeader) -> u64 {
    let seal_len = if header.is_sealed() { SEAL_LEN as u64 } else { 0 };
    header.raw_len.unwrap_or(u64::from(header.value_len).saturating_sub(seal_len))
}

impl Interest {
    pub(crate) fn is_in(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        self.keyspace == keyspace
            && match &self.keys {
                WatchedKeys::All => true,
                WatchedKeys::Prefix(prefix) => key.starts_with(prefix),
                WatchedKeys::One(one) => *one == *key,
            }
    }

    /// Whether a range may have a key that is watched.
    fn touches(&self, range: &RangeDel) -> bool {
        self.keyspace == range.keyspace
            && match &self.keys {
                WatchedKeys::All => true,
                WatchedKeys::One(key) => range.covers(self.keyspace, key),
                WatchedKeys::Prefix(prefix) => {
                    bounds_of_prefix(prefix).is_some_and(|(from, to)| {
                        is_before(&range.begin, &to) && is_before(&from, &range.end)
                    })
                }
            }
    }

    fn wants(&self, event: &Event) -> bool {
        match &event.change {
            Changed::Put { key, .. }
            | Changed::Del { key }
            | Changed::Expired { key }
            | Changed::Evicted { key } => self.is_in(event.keyspace, key),
            Changed::RangeDel { begin, end, .. } => self.touches(&RangeDel {
                keyspace: event.keyspace,
                begin: begin.clone(),
                end: end.clone(),
                seqno: event.seqno,
            }),
        }
    }
}

impl Watchers {
    pub(crate) fn new(partition_count: usize) -> Watchers {
        Watchers {
            count: AtomicUsize::new(0),
            all: ArcSwap::default(),
            change: Mutex::new(()),
            partitions_left: AtomicUsize::new(partition_count),
            missed: Arc::default(),
            stream_count: AtomicUsize::new(0),
            follower_count: AtomicUsize::new(0),
            followers: Mutex::default(),
        }
    }

    /// Everybody, or `None` if that is nobody (WT3).
    pub(crate) fn now(&self) -> Option<Arc<Vec<Arc<Watcher>>>> {
        (self.count.load(Ordering::Relaxed) > 0).then(|| self.all.load_full())
    }

    /// From here on the watcher is told whatever is published of what it is interested in. What a caller sends after
    /// this comes through a mailbox, and who takes it from there sees the count too.
    pub(crate) fn begin(
        &self,
        interest: Interest,
        events_max: usize,
        bytes_max: usize,
    ) -> Arc<Watcher> {
        let (queue, missed) = (Mutex::default(), self.missed.clone());
        let watcher = Arc::new(Watcher { interest, events_max, bytes_max, queue, missed });
        self.change(|all| all.push(watcher.clone()));
        // Asked after it is there: the last partition to go either finds it or was seen to be gone.
        if self.partitions_left.load(Ordering::SeqCst) == 0 {
            watcher.end();
        }
        watcher
    }

    pub(crate) fn leave(&self, watcher: &Arc<Watcher>) {
        self.change(|all| all.retain(|other| !Arc::ptr_eq(other, watcher)));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Watcher>>)) {
        let _one_at_a_time = self.change.lock();
        let mut all = Vec::clone(&self.all.load());
        change(&mut all);
        let count = all.len();
        self.all.store(Arc::new(all));
        self.count.store(count, Ordering::SeqCst);
    }

    /// One partition less will tell anything.
    pub(crate) fn partition_gone(&self) {
        if self.partitions_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.all.load().iter().for_each(|watcher| watcher.end());
            self.log_grown();
        }
    }

    /// Whether nothing will be told any more.
    pub(crate) fn is_over(&self) -> bool {
        self.partitions_left.load(Ordering::SeqCst) == 0
    }

    /// There is one more stream of changes, or one less.
    pub(crate) fn stream(&self, is_new: bool) {
        if is_new {
            self.stream_count.fetch_add(1, Ordering::Relaxed);
        } else {
            self.stream_count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn watching(&self) -> Watching {
        let all = self.all.load();
        let mut watching = Watching {
            watchers: all.len() as u64,
            events_missed: self.missed.load(Ordering::Relaxed),
            streams: self.stream_count.load(Ordering::Relaxed) as u64,
            followers: self.follower_count.load(Ordering::Relaxed) as u64,
            ..Watching::default()
        };
        for watcher in all.iter() {
            let queue = watcher.queue.lock();
            let is_event = |told: &&Told| matches!(told, Told::Event(_));
            watching.events_queued += queue.told.iter().filter(is_event).count() as u64;
            watching.bytes_queued += queue.bytes as u64;
        }
        watching
    }

    /// Somebody follows the log from here on, or not any more.
    pub(crate) fn follow(&self, is_following: bool) {
        // In one order with the end of what is durable: either its follower sees it, or a partition that has set it sees
        // the follower.
        if is_following {
            self.follower_count.fetch_add(1, Ordering::SeqCst);
        } else {
            self.follower_count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Wakes whoever follows when there may be more of the log than there is now; asked for before looking.
    pub(crate) fn wait_for_log(&self, cx: &mut Context<'_>) {
        let mut followers = self.followers.lock();
        if !followers.iter().any(|waker| waker.will_wake(cx.waker())) {
            followers.push(cx.waker().clone());
        }
    }

    /// The log has grown.
    pub(crate) fn log_grown(&self) {
        if self.follower_count.load(Ordering::SeqCst) > 0 {
            let followers = std::mem::take(&mut *self.followers.lock());
            followers.into_iter().for_each(Waker::wake);
        }
    }
}

impl Watcher {
    pub(crate) fn interest(&self) -> &Interest {
        &self.interest
    }

    /// Puts what it is interested in into its queue; returns whom to wake for that.
    pub(crate) fn tell(&self, events: &[Event]) -> Option<Waker> {
        let mut queue = None;
        for event in events.iter().filter(|event| self.interest.wants(event)) {
            queue.get_or_insert_with(|| self.queue.lock()).push(event, self);
        }
        queue?.waker.take()
    }

    /// So many events could not be told.
    pub(crate) fn miss(&self, count: u64) -> Option<Waker> {
        self.missed.fetch_add(count, Ordering::Relaxed);
        let mut queue = self.queue.lock();
        queue.miss(count);
        queue.waker.take()
    }

    pub(crate) fn poll_told(&self, cx: &mut Context<'_>) -> Poll<Option<Told>> {
        let mut queue = self.queue.lock();
        match queue.pop() {
            Some(told) => Poll::Ready(Some(told)),
            None if queue.is_over => Poll::Ready(None),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn end(&self) {
        let waker = {
            let mut queue = self.queue.lock();
            queue.is_over = true;
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Queue {
    fn push(&mut self, event: &Event, bounds: &Watcher) {
        let len = event.len_bytes();
        // Whoever is behind gets nothing for a while, rather than one event of two and as many gaps.
        let part = if self.is_behind { 2 } else { 1 };
        let has_room = self.told.len() < bounds.events_max.div_ceil(part)
            && self.bytes + len <= bounds.bytes_max / part;
        // One event is always let in, or a long one would be for ever.
        if has_room || self.told.is_empty() {
            self.is_behind = false;
            self.bytes += len;
            self.told.push_back(Told::Event(event.clone()));
        } else {
            self.is_behind = true;
            if !is_planted(Bug::WatchGapHidden) {
                bounds.missed.fetch_add(1, Ordering::Relaxed);
                self.miss(1);
            }
        }
    }

    /// WT2.
    fn miss(&mut self, count: u64) {
        if let Some(Told::Missed(missed)) = self.told.back_mut() {
            *missed += count;
        } else {
            self.told.push_back(Told::Missed(count));
        }
    }

    fn pop(&mut self) -> Option<Told> {
        let told = self.told.pop_front()?;
        if let Told::Event(event) = &told {
            self.bytes -= event.len_bytes();
        }
        if self.told.is_empty() {
            self.told.shrink_to(64);
        }
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn del(n: u64) -> Event {
        let key = Bytes::from(format!("key {n:04}"));
        Event { keyspace: KeyspaceId(0), seqno: Seqno(n), change: Changed::Del { key } }
    }

    fn watcher(watchers: &Watchers, keys: WatchedKeys, events_max: usize) -> Arc<Watcher> {
        let interest = Interest { keyspace: KeyspaceId(0), keys, value_len_max: 0 };
        watchers.begin(interest, events_max, 1 << 20)
    }

    fn take(watcher: &Watcher) -> Option<Told> {
        match watcher.poll_told(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(told) => told,
            Poll::Pending => None,
        }
    }

    /// Breaks if an event is lost without being counted, counted twice, or counted at another place (WT2).
    #[test]
    fn every_event_is_told_or_counted_where_it_is_missing() {
        let random = &mut fastrand::Rng::with_seed(7);
        let watchers = Watchers::new(1);
        for round in 0..if cfg!(miri) { 4 } else { 200 } {
            let watcher = watcher(&watchers, WatchedKeys::All, 1 + round % 9);
            let (mut next, mut expected) = (1, 1);
            let mut check = |told: Told| match told {
                Told::Event(event) => {
                    assert_eq!(event.seqno.0, expected);
                    expected += 1;
                }
                Told::Missed(count) => {
                    assert!(count > 0);
                    expected += count;
                }
            };
            for _ in 0..100 {
                if random.u8(..3) > 0 {
                    let count = random.u64(..6);
                    watcher.tell(&(next..next + count).map(del).collect::<Vec<_>>());
                    next += count;
                    let queue = watcher.queue.lock();
                    assert!(queue.told.len() <= watcher.events_max + 1);
                } else if let Some(told) = take(&watcher) {
                    check(told);
                }
            }
            while let Some(told) = take(&watcher) {
                check(told);
            }
            assert_eq!((expected, watcher.queue.lock().bytes), (next, 0));
            watchers.leave(&watcher);
        }
        assert!(watchers.now().is_none());
    }

    #[test]
    fn a_watcher_that_fell_behind_gets_one_gap_and_not_one_for_each_event() {
        let watchers = Watchers::new(1);
        let watcher = watcher(&watchers, WatchedKeys::All, 8);
        let mut gaps = 0;
        for n in 0..100 {
            watcher.tell(&[del(2 * n), del(2 * n + 1)]);
            gaps += u32::from(matches!(take(&watcher), Some(Told::Missed(_))));
        }
        assert!((2..=25).contains(&gaps), "{gaps}");
    }

    #[test]
    fn bytes_are_bounded_and_one_event_is_always_let_in() {
        let watchers = Watchers::new(1);
        let interest =
            Interest { keyspace: KeyspaceId(0), keys: WatchedKeys::All, value_len_max: 0 };
        let watcher = watchers.begin(interest, 1000, 600);
        let long = Event { change: Changed::Del { key: vec![1; 5000].into() }, ..del(0) };
        watcher.tell(&[long, del(1), del(2)]);
        assert!(matches!(take(&watcher), Some(Told::Event(event)) if event.seqno.0 == 0));
        assert!(matches!(take(&watcher), Some(Told::Missed(2))));
        watcher.tell(&(3..100).map(del).collect::<Vec<_>>());
        assert!(watcher.queue.lock().bytes <= 600);
        assert!(matches!(take(&watcher), Some(Told::Event(event)) if event.seqno.0 == 3));
    }

    #[test]
    fn a_watcher_is_told_what_it_asked_for() {
        let watchers = Watchers::new(1);
        let prefix = watcher(&watchers, WatchedKeys::Prefix("key 001".into()), 100);
        let one = watcher(&watchers, WatchedKeys::One("key 0015".into()), 100);
        let range = |begin: &'static str, end: &'static str| Event {
            change: Changed::RangeDel {
                begin: begin.into(),
                end: end.into(),
                partition: PartitionId(0),
            },
            ..del(7)
        };
        let elsewhere = Event { keyspace: KeyspaceId(3), ..del(15) };
        let mut events: Vec<Event> = (0..100).map(del).collect();
        events.extend([
            elsewhere,
            range("a", ""),
            range("key 0", "key 001"),
            range("key 0012", "key 0014"),
        ]);
        let count = |watcher: &Watcher| {
            watcher.tell(&events);
            std::iter::from_fn(|| take(watcher)).count()
        };
        assert_eq!((count(&prefix), count(&one)), (12, 2));
    }

    /// Breaks if whoever waits when the store closes waits for ever.
    #[test]
    fn the_last_partition_to_go_ends_every_watch() {
        let watchers = Watchers::new(2);
        let before = watcher(&watchers, WatchedKeys::All, 4);
        let cx = &mut Context::from_waker(Waker::noop());
        watchers.partition_gone();
        before.tell(&[del(1)]);
        watchers.partition_gone();
        assert!(matches!(before.poll_told(cx), Poll::Ready(Some(_))));
        assert!(matches!(before.poll_told(cx), Poll::Ready(None)));
        let after = watcher(&watchers, WatchedKeys::All, 4);
        assert!(matches!(after.poll_told(cx), Poll::Ready(None)));
    }
}
