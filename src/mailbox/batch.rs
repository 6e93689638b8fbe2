//! A batch on its way: what callers send to the partition that sees it through, and what the partitions that
//! take part in it say to each other.

use std::sync::Arc;

use bytes::Bytes;

use super::gate::Marking;
use super::peers::{Agreement, Deciding};
use super::pinned::Pinned;
use super::{Body, Durable, Expected, GetMany, ReplySender};
use crate::error::{Error, ErrorKind, Result};
use crate::moment::{Life, Moment};
use crate::types::{ExpiresAt, KeyHash, KeyspaceId};

/// Everything that is to happen together, by partition.
pub(crate) struct Batch {
    /// Never empty; the first one's partition sees the batch through.
    pub(crate) parts: Vec<Part>,
    pub(crate) durable: Durable,
    pub(crate) reply: ReplySender<Result<BatchDone>>,
}

/// What one partition has to do with a batch; each key is in it once.
pub(crate) struct Part {
    pub(crate) partition: usize,
    pub(crate) entries: Vec<BatchEntry>,
    /// What must be true of keys, or nothing of the batch happens.
    pub(crate) conditions: Vec<Condition>,
}

/// One write of a batch.
pub(crate) struct BatchEntry {
    pub(crate) hash: KeyHash,
    /// As its caller gave it.
    pub(crate) key: Bytes,
    pub(crate) body: Body,
    pub(crate) change: EntryChange,
}

/// What a batch does to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryChange {
    Put { expires_at: Option<ExpiresAt> },
    Del,
}

/// What a key must be like for its batch to happen.
pub(crate) struct Condition {
    pub(crate) hash: KeyHash,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: Bytes,
    pub(crate) expected: Expected,
}

impl Batch {
    pub(crate) fn len_bytes(&self) -> usize {
        self.parts.iter().map(Part::len_bytes).sum()
    }
}

impl Part {
    pub(crate) fn new(partition: usize) -> Part {
        Part { partition, entries: Vec::new(), conditions: Vec::new() }
    }

    /// Bytes that it keeps in memory.
    pub(crate) fn len_bytes(&self) -> usize {
        let entries = self.entries.iter();
        let entries =
            entries.map(|entry| entry.key.len() + entry.body.len() + size_of::<BatchEntry>());
        let conditions =
            self.conditions.iter().map(|condition| condition.key.len() + size_of::<Condition>());
        entries.sum::<usize>() + conditions.sum::<usize>()
    }

    /// Whether it only deletes.
    pub(crate) fn is_del(&self) -> bool {
        self.entries.iter().all(|entry| entry.change == EntryChange::Del)
    }
}

/// How a batch ended that happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchDone {
    /// Keys that were put.
    pub puts: u64,
    /// Keys that were deleted, or would have been had they been there.
    pub dels: u64,
    /// Of all these, how many keys were there before.
    pub were_there: u64,
}

impl BatchDone {
    pub(crate) fn add(&mut self, other: BatchDone) {
        self.puts += other.puts;
        self.dels += other.dels;
        self.were_there += other.were_there;
    }
}

/// What a partition is told past its mailbox. Of batches, because what it is about was admitted to one already, and
/// there are at most a handful for each batch and partition; of moments over all partitions, because there is one at a
/// time, and a mailbox may be full of what waits for it.
pub(crate) enum Message {
    /// Take part.
    Prepare(Participation, Part),
    /// Every condition is met: write the intents.
    Stage(u64),
    /// Every intent is durable: write the decision.
    Decide(Deciding),
    /// The decision is durable: what was intended counts.
    Publish(u64),
    /// Nothing of the batch happens.
    Abort(u64),
    /// Nobody knows what the next open will find of the decision.
    Doubt(u64, Error),
    /// Every partition has a durable resolve: the decision need not be kept.
    Forget(u64),
    /// Say what these keys are, for somebody who keeps batches from being published meanwhile.
    Read(GetMany),
    /// Say what there is now, for a snapshot, and publish nothing until all have.
    Snapshot(Marking<Arc<Moment>>, Arc<Life>),
    /// The same for a backup: the files of the moment are to stay, and the one that is written is to be sealed.
    Backup(Marking<()>, ReplySender<Result<Pinned>>),
    /// A backup needs its files no more.
    Unpin,
    /// All have: go on.
    Go,
    /// A snapshot has ended.
    SnapshotEnded,
}

/// One partition's part in an [`Agreement`]. Dropping it before its end says that the partition is gone.
pub(crate) struct Participation {
    agreement: Arc<Agreement>,
    is_over: bool,
}

impl Participation {
    pub(crate) fn new(agreement: Arc<Agreement>) -> Participation {
        Participation { agreement, is_over: false }
    }

    pub(crate) fn agreement(&self) -> &Arc<Agreement> {
        &self.agreement
    }

    /// The intents of the part are durable.
    pub(crate) fn prepared(&self) {
        self.agreement.prepared();
    }

    /// The part cannot be done, so nothing of the batch is.
    pub(crate) fn fail(mut self, error: &Error) {
        self.is_over = true;
        self.agreement.fail(error);
    }

    /// Nothing of the batch happens, which the partition was told.
    pub(crate) fn give_up(mut self) {
        self.is_over = true;
    }

    /// What was intended counts, and whoever asks is shown it.
    pub(crate) fn published(mut self, done: BatchDone) {
        self.is_over = true;
        self.agreement.published(done);
    }
}

impl Drop for Participation {
    fn drop(&mut self) {
        if !self.is_over {
            self.agreement.lost();
        }
    }
}

#[cold]
pub(crate) fn conflict() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "something that the transaction has read was changed by others before it was committed; nothing was \
         written: begin it again",
    )
}
