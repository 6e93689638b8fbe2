//! How the partitions that take part in one batch come to one mind, over all workers.
//!
//! ```text
//! caller ── Batch ──▶ the first part's partition, which opens an agreement
//!                        │ Prepare to all, in one order for all batches (AG1)
//!          lock keys, look at conditions ── locked ──▶ Stage      (only with conditions)
//!          write intents, sync           ── prepared ─▶ Decide    to the first part's partition
//!          write the decision, sync      ── decided ──▶ Publish   (AG2)
//!          write records and a resolve, publish ── published ─▶ the caller's reply
//!          the resolve is durable        ── resolved ─▶ Forget    to the first part's partition
//! ```
//!
//! An [`Agreement`] is what they share: a count of who is still to say something, and what was said. Nothing
//! depends on the caller's future, which only waits for the reply. What a partition does at each step, and
//! what is on disk then, stands in `partition/batch.rs`.
//!
//! ## Invariants
//! - **AG1** Batches are given to partitions in one order, the same in each: with keys locked in the order of
//!   arrival, two batches cannot wait for each other.
//! - **AG2** A decision is asked for only when every intent is durable; from the moment it may be in a log,
//!   no abort is said. If it cannot be known whether it is, everybody who takes part stops writing (D1), and
//!   the next open finds out.
//! - **AG3** Every participant ends exactly once: it failed, published, gave up because it was told, or was
//!   lost. So the caller gets one reply (R1), and a batch that was begun when the store closes is seen through.

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::{Batch, BatchDone, Message, Part, Participation, conflict};
use super::gate::{Gate, Marking};
use super::publications::{Hold, Publications};
use super::{Doorbell, GetMany, ReplySender};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::PARTITIONS_MAX;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::types::{PartitionId, Seqno};

/// Low bits of a batch's id that say which partition decides it.
const PARTITION_BITS: u32 = PARTITIONS_MAX.ilog2();

/// A number that no other batch has, as long as its partition gives no sequence number twice (F5); `None` if
/// there are no more.
pub(crate) fn batch_id(partition: PartitionId, seqno: Seqno) -> Option<u64> {
    let id = seqno.0 << PARTITION_BITS | u64::from(partition.0);
    (id >> PARTITION_BITS == seqno.0).then_some(id)
}

/// The partitions of a store, as they reach each other.
pub(crate) struct Peers {
    queues: Vec<PeerQueue>,
    /// Held while the parts of a batch are given out (AG1).
    order: Mutex<()>,
    publications: Publications,
    /// Partitions that have given up what they kept for a full disk.
    reserves_released: AtomicUsize,
}

struct PeerQueue {
    /// `None` once the partition takes no more.
    messages: Mutex<Option<VecDeque<Message>>>,
    /// It has finished, as it should when the store closes.
    is_finished: AtomicBool,
    /// Read without the lock by the worker, who looks at every turn.
    len: AtomicUsize,
    doorbell: Arc<Doorbell>,
}

impl Peers {
    /// For partitions whose workers have these doorbells.
    pub(crate) fn new(doorbells: impl IntoIterator<Item = Arc<Doorbell>>) -> Peers {
        let queue = |doorbell| PeerQueue {
            messages: Mutex::new(Some(VecDeque::new())),
            is_finished: AtomicBool::new(false),
            len: AtomicUsize::new(0),
            doorbell,
        };
        Peers {
            queues: doorbells.into_iter().map(queue).collect(),
            order: Mutex::new(()),
            publications: Publications::default(),
            reserves_released: AtomicUsize::new(0),
        }
    }

    /// A partition has given up its reserve, whose space is for what frees space.
    pub(crate) fn reserve_released(&self) {
        self.reserves_released.fetch_add(1, Ordering::SeqCst);
    }

    /// There is space enough for the reserve of one more partition that has given it up.
    pub(crate) fn reserve_regained(&self) {
        self.reserves_released.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn is_reserve_released(&self) -> bool {
        self.reserves_released.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn publications(&self) -> &Publications {
        &self.publications
    }

    /// From here on no batch over partitions begins to be published, while what is returned lives.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        Hold::new(self.clone())
    }

    /// Asks a partition for keys past its mailbox, which may be full of what waits for the one who asks.
    pub(crate) fn read(&self, partition: usize, request: GetMany) {
        self.send(partition, Message::Read(request));
    }

    /// Begins a moment over all partitions; `ask` makes the message for each.
    pub(crate) fn gate<M>(self: &Arc<Self>, ask: impl Fn(Marking<M>) -> Message) -> Arc<Gate<M>> {
        Gate::begin(self, self.queues.len(), ask)
    }

    /// Somebody needs the files of a partition no more.
    pub(super) fn unpin(&self, partition: usize) {
        self.send(partition, Message::Unpin);
    }

    /// Tells every partition to let go of snapshots that have ended.
    pub(crate) fn snapshot_ended(&self) {
        (0..self.queues.len()).for_each(|partition| self.send(partition, Message::SnapshotEnded));
    }

    /// What a partition takes no more is dropped, which says what has to be said.
    pub(super) fn send(&self, to: usize, message: Message) {
        let queue = &self.queues[to];
        let undelivered = {
            let mut messages = queue.messages.lock();
            match &mut *messages {
                Some(messages) => {
                    messages.push_back(message);
                    queue.len.store(messages.len(), Ordering::SeqCst);
                    None
                }
                None => Some(message),
            }
        };
        match undelivered {
            None => queue.doorbell.ring(),
            Some(Message::Prepare(participation, _))
                if queue.is_finished.load(Ordering::SeqCst) =>
            {
                participation.fail(&Error::closed());
            }
            Some(undelivered) => drop(undelivered),
        }
    }

    /// Everything that was said to a partition since it looked last.
    pub(crate) fn take(&self, partition: PartitionId) -> VecDeque<Message> {
        if !self.has(partition) {
            return VecDeque::new();
        }
        let queue = &self.queues[partition.0 as usize];
        let mut messages = queue.messages.lock();
        queue.len.store(0, Ordering::SeqCst);
        messages.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether [`take`](Self::take) would find any.
    pub(crate) fn has(&self, partition: PartitionId) -> bool {
        self.queues[partition.0 as usize].len.load(Ordering::SeqCst) > 0
    }

    /// The partition takes no more, unless something was said meanwhile; whether that is so.
    pub(crate) fn close_if_empty(&self, partition: PartitionId) -> bool {
        let queue = &self.queues[partition.0 as usize];
        let mut messages = queue.messages.lock();
        if messages.as_ref().is_none_or(VecDeque::is_empty) {
            queue.is_finished.store(true, Ordering::SeqCst);
            *messages = None;
        }
        messages.is_none()
    }

    /// The partition is gone.
    pub(crate) fn close(&self, partition: PartitionId) {
        let queue = &self.queues[partition.0 as usize];
        let left = queue.messages.lock().take();
        queue.len.store(0, Ordering::SeqCst);
        drop(left);
    }
}

/// What those who take part in a batch have agreed on so far.
pub(crate) struct Agreement {
    pub(crate) id: u64,
    /// Whose partition decides.
    decider: usize,
    participants: Vec<usize>,
    has_conditions: bool,
    /// Without anything to write there is nothing to decide.
    has_writes: bool,
    only_deletes: bool,
    peers: Arc<Peers>,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Participants who have not said yet what the phase waits for.
    left: usize,
    /// Participants who are gone.
    lost: usize,
    is_conflict: bool,
    /// Participants without a durable resolve.
    unresolved: usize,
    done: BatchDone,
    reply: Option<ReplySender<Result<BatchDone>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Locking,
    Preparing,
    Deciding,
    Publishing,
    /// Published, aborted, or in doubt.
    Over,
}

/// What follows from what was said, done once the state is free again.
#[derive(Default)]
struct Then {
    to_all: Option<fn(u64) -> Message>,
    decide: bool,
    is_published: bool,
    reply: Option<(ReplySender<Result<BatchDone>>, Result<BatchDone>)>,
}

impl Agreement {
    /// Gives the parts of `batch` to their partitions.
    pub(crate) fn begin(id: u64, batch: Batch, peers: &Arc<Peers>) {
        let Batch { parts, reply, .. } = batch;
        let has_conditions = parts.iter().any(|part| !part.conditions.is_empty());
        let count = parts.len();
        let agreement = Arc::new(Agreement {
            id,
            decider: parts[0].partition,
            participants: parts.iter().map(|part| part.partition).collect(),
            has_conditions,
            has_writes: parts.iter().any(|part| !part.entries.is_empty()),
            only_deletes: parts.iter().all(Part::is_del),
            peers: peers.clone(),
            state: Mutex::new(State {
                phase: if has_conditions { Phase::Locking } else { Phase::Preparing },
                left: count,
                lost: 0,
                is_conflict: false,
                unresolved: count,
                done: BatchDone::default(),
                reply: Some(reply),
            }),
        });
        let _order = peers.order.lock();
        for part in parts {
            let participation = Participation::new(agreement.clone());
            peers.send(part.partition, Message::Prepare(participation, part));
        }
    }

    /// Whether participants wait for everybody's conditions before they write anything.
    pub(crate) fn has_conditions(&self) -> bool {
        self.has_conditions
    }

    /// Whether all of it, in every partition, is deletions: what frees space on a full disk.
    pub(crate) fn only_deletes(&self) -> bool {
        self.only_deletes
    }

    /// Whether it has ended. What says so may have been sent before a part was.
    pub(crate) fn is_over(&self) -> bool {
        self.state.lock().phase == Phase::Over
    }

    /// The keys of a part are locked, and its conditions were looked at.
    pub(crate) fn locked(self: &Arc<Self>, is_conflict: bool) {
        let mut state = self.state.lock();
        if state.phase != Phase::Locking {
            return;
        }
        state.is_conflict |= is_conflict;
        state.left -= 1;
        if state.left > 0 {
            return;
        }
        let then = if state.is_conflict {
            state.abort(Err(conflict()))
        } else {
            state.phase = Phase::Preparing;
            state.left = self.participants.len();
            Then { to_all: Some(Message::Stage), ..Then::default() }
        };
        self.act(state, then);
    }

    pub(super) fn prepared(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.phase != Phase::Preparing {
            return;
        }
        state.left -= 1;
        if state.left > 0 {
            return;
        }
        let then = if self.has_writes {
            state.phase = Phase::Deciding;
            Then { decide: true, ..Then::default() }
        } else {
            state.publish(self.participants.len())
        };
        self.act(state, then);
    }

    pub(super) fn fail(self: &Arc<Self>, error: &Error) {
        let mut state = self.state.lock();
        // Later than that it is decided without the one who failed, whose intents are durable.
        if matches!(state.phase, Phase::Locking | Phase::Preparing) {
            let then = state.abort(Err(error.clone()));
            self.act(state, then);
        }
    }

    /// The decision is durable.
    fn decided(self: &Arc<Self>) {
        let state = self.state.lock();
        assert_eq!(state.phase, Phase::Deciding, "AG2");
        drop(state);
        if self.peers.publications.admit(self) {
            self.publish();
        }
    }

    /// Shows everybody who takes part that the batch is decided.
    pub(super) fn publish(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let then = state.publish(self.participants.len());
        self.act(state, then);
    }

    /// The decision was not written, and never will be.
    fn undecided(self: &Arc<Self>, error: &Error) {
        let mut state = self.state.lock();
        if state.phase == Phase::Deciding {
            let then = state.abort(Err(error.clone()));
            self.act(state, then);
        }
    }

    /// The decision may have been written, or not.
    fn in_doubt(&self, error: &Error) {
        let mut state = self.state.lock();
        if state.phase != Phase::Deciding {
            return;
        }
        state.phase = Phase::Over;
        let reply = state.reply.take();
        drop(state);
        for &participant in &self.participants {
            self.peers.send(participant, Message::Doubt(self.id, error.clone()));
        }
        if let Some(reply) = reply {
            reply.send(Err(error.clone()));
        }
    }

    pub(super) fn published(self: &Arc<Self>, done: BatchDone) {
        let mut state = self.state.lock();
        state.done.add(done);
        self.one_less(state);
    }

    /// A participant is gone.
    pub(super) fn lost(self: &Arc<Self>) {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Locking | Phase::Preparing => {
                let then = state.abort(Err(lost()));
                self.act(state, then);
            }
            Phase::Deciding => state.lost += 1,
            Phase::Publishing => {
                state.lost += 1;
                self.one_less(state);
            }
            Phase::Over => {}
        }
    }

    /// A participant's resolve is durable, or it had nothing to resolve.
    pub(crate) fn resolved(&self) {
        let mut state = self.state.lock();
        state.unresolved -= 1;
        if state.unresolved == 0 {
            drop(state);
            self.peers.send(self.decider, Message::Forget(self.id));
        }
    }

    /// A participant has come to the end of publishing.
    fn one_less(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.phase != Phase::Publishing {
            return;
        }
        state.left -= 1;
        if state.left == 0 {
            let then = state.over();
            self.act(state, then);
        }
    }

    fn act(self: &Arc<Self>, state: MutexGuard<'_, State>, then: Then) {
        drop(state);
        if let Some(message) = then.to_all {
            for &participant in &self.participants {
                self.peers.send(participant, message(self.id));
            }
        }
        if then.decide {
            self.peers.send(self.decider, Message::Decide(Deciding::new(self.clone())));
        }
        if then.is_published && self.has_writes {
            self.peers.publications.ended();
        }
        if let Some((reply, answer)) = then.reply {
            reply.send(answer);
        }
    }
}

impl State {
    fn abort(&mut self, answer: Result<BatchDone>) -> Then {
        self.phase = Phase::Over;
        let reply = self.reply.take().map(|reply| (reply, answer));
        Then { to_all: Some(Message::Abort), reply, ..Then::default() }
    }

    fn publish(&mut self, participants: usize) -> Then {
        self.phase = Phase::Publishing;
        self.left = participants - self.lost;
        if self.left == 0 {
            return self.over();
        }
        Then { to_all: Some(Message::Publish), ..Then::default() }
    }

    /// Everybody has published who is still there.
    fn over(&mut self) -> Then {
        self.phase = Phase::Over;
        let answer = if self.lost == 0 { Ok(self.done) } else { Err(lost()) };
        let reply = self.reply.take().map(|reply| (reply, answer));
        Then { reply, is_published: true, ..Then::default() }
    }
}

/// The right, and the duty, to decide a batch whose intents are durable. Dropping it says that its partition
/// is gone.
pub(crate) struct Deciding {
    agreement: Arc<Agreement>,
    /// The decision is in a commit group.
    may_be_written: bool,
    is_over: bool,
}

impl Deciding {
    fn new(agreement: Arc<Agreement>) -> Deciding {
        Deciding { agreement, may_be_written: false, is_over: false }
    }

    pub(crate) fn id(&self) -> u64 {
        self.agreement.id
    }

    pub(crate) fn only_deletes(&self) -> bool {
        self.agreement.only_deletes
    }

    /// From here on its loss leaves everybody in doubt.
    pub(crate) fn staged(&mut self) {
        self.may_be_written = true;
    }

    /// The decision is durable.
    pub(crate) fn decided(mut self) {
        self.is_over = true;
        self.agreement.decided();
    }

    /// The decision was not written, and never will be.
    pub(crate) fn undecided(mut self, error: &Error) {
        self.is_over = true;
        self.agreement.undecided(error);
    }

    /// The decision may have been written, or not.
    pub(crate) fn in_doubt(mut self, error: &Error) {
        self.is_over = true;
        self.agreement.in_doubt(error);
    }
}

impl Drop for Deciding {
    fn drop(&mut self) {
        if self.is_over {
        } else if self.may_be_written {
            self.agreement.in_doubt(&lost());
        } else {
            self.agreement.undecided(&lost());
        }
    }
}

#[cold]
fn lost() -> Error {
    Error::new(
        ErrorKind::Poisoned,
        "a partition of the batch is gone, by a failed sync or a bug in ringcask; close the store and open it \
         again to see whether the batch happened, which it did whole or not at all",
    )
}
