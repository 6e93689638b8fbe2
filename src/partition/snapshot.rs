//! What a partition does for snapshots: it marks the moment, and notes what was there before it changes anything.
//!
//! The moment is one of all partitions ([`Gate`](crate::mailbox::Gate)). A partition marks when no group is in flight, so what
//! it has published then is what it has, and submits no other group until all have marked.

use std::sync::Arc;

use super::Partition;
use super::commit::InFlight;
use crate::error::Result;
use crate::mailbox::{Marking, Pinned, ReplySender};
use crate::moment::{End, Life, Moment, Place};
use crate::planted::{Bug, is_planted};
use crate::types::KeyHash;

/// Moments that a partition has marked, or is to.
#[derive(Default)]
pub(super) struct Moments {
    /// As soon as nothing is in flight.
    wanted: Vec<Wanted>,
    /// Marked, while others have not.
    held: usize,
    snapshots: Vec<Arc<Moment>>,
}

/// What a moment is wanted for.
enum Wanted {
    Snapshot(Marking<Arc<Moment>>, Arc<Life>),
    Backup(Marking<()>, ReplySender<Result<Pinned>>),
}

impl Moments {
    pub(super) fn want_backup(&mut self, marking: Marking<()>, reply: ReplySender<Result<Pinned>>) {
        self.wanted.push(Wanted::Backup(marking, reply));
    }

    /// Whether nothing may be published.
    pub(super) fn is_held(&self) -> bool {
        self.held > 0 || !self.wanted.is_empty()
    }

    /// All others have marked too.
    pub(super) fn go(&mut self) {
        self.held -= usize::from(!is_planted(Bug::MomentsApart));
    }

    /// The partition goes, and with it the keydir that snapshots look into.
    pub(super) fn leave(&mut self) {
        for moment in self.snapshots.drain(..) {
            moment.life.end(End::Gone);
            moment.clear();
        }
    }
}

impl Partition {
    pub(super) fn snapshot_wanted(&mut self, marking: Marking<Arc<Moment>>, life: Arc<Life>) {
        // The log is sealed, or about to be: dropping it says that there is none.
        if !self.sealing {
            self.moments.wanted.push(Wanted::Snapshot(marking, life));
        }
    }

    /// Marks the moments that are wanted, if nothing is in flight.
    pub(super) fn moments_mark(&mut self) {
        if self.moments.wanted.is_empty()
            || !matches!(self.in_flight, InFlight::None | InFlight::Pause)
        {
            return;
        }
        for wanted in std::mem::take(&mut self.moments.wanted) {
            let is_held = match wanted {
                Wanted::Snapshot(marking, life) => {
                    let table = self.view.files.load_full();
                    let moment = Arc::new(Moment::new(life, self.ranges.clone(), table));
                    self.moments.snapshots.push(moment.clone());
                    marking.marked(moment, self.config.expiry.now_ms())
                }
                Wanted::Backup(marking, reply) => self.backup_mark(marking, reply),
            };
            self.moments.held += usize::from(is_held && !is_planted(Bug::MomentsApart));
        }
    }

    /// The keydir is about to say something else of this key, moves aside (SS1, SS2).
    #[inline]
    pub(super) fn snapshots_note(&self, hash: KeyHash) {
        if !self.moments.snapshots.is_empty() {
            self.snapshots_note_old(hash);
        }
    }

    #[cold]
    fn snapshots_note_old(&self, hash: KeyHash) {
        if is_planted(Bug::SnapshotUnnoted) {
            return;
        }
        let old = self.keydir.get(hash);
        let old = old.map(|location| Place { data: self.data_at(location), location });
        let mut has_ended = false;
        for moment in &self.moments.snapshots {
            // SS3: one that has ended is over for readers before it misses anything.
            if moment.life.ended().is_none() {
                let grown = moment.note(hash, old.as_ref());
                has_ended |= grown > 0 && moment.life.grown(grown);
            }
        }
        if has_ended {
            tracing::warn!(partition = self.id.0, "a snapshot has ended: too much was changed");
            self.config.peers.snapshot_ended();
        }
    }

    /// Ends snapshots that are too old.
    pub(super) fn snapshots_grow_old(&mut self) {
        for moment in &self.moments.snapshots {
            if moment.life.grow_old() {
                tracing::warn!(partition = self.id.0, "a snapshot has ended: it is too old");
            }
        }
        self.snapshots_prune();
    }

    /// Lets go of what snapshots held that have ended.
    pub(super) fn snapshots_prune(&mut self) {
        let is_over = |moment: &mut Arc<Moment>| moment.life.ended().is_some();
        let ended: Vec<Arc<Moment>> = self.moments.snapshots.extract_if(.., is_over).collect();
        if !ended.is_empty() {
            self.upkeep.release_moments(ended);
        }
    }
}
