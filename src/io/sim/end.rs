//! The end of a disk, and the next one: what a kill or a power cut leaves.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::contents::{ChangeId, Contents};
use super::cut::{Cut, KeptBytes, KeptNames};
use super::fingerprint::Fingerprint;
use super::names::{InodeId, Names};
use super::random::Random;
use super::state::{Inode, State};

impl State {
    pub(super) fn kill(&self) -> State {
        self.succeed(self.names.clone(), Arc::clone)
    }

    pub(super) fn power_cut(&self, policy: Cut) -> State {
        let (bytes, names) = policy.parts();
        let mut random = Random::new(policy.seed());
        let names = match names {
            KeptNames::None => self.names.survivors_first(0),
            KeptNames::All => self.names.survivors_first(usize::MAX),
            KeptNames::First(count) => self.names.survivors_first(count),
            KeptNames::Random => self.names.survivors_random(&mut random),
        };
        let keep = |kept: fn(&Contents) -> Vec<u8>| self.succeed_with(names.clone(), kept);
        match bytes {
            KeptBytes::None => keep(|contents| contents.durable().to_vec()),
            KeptBytes::All => keep(|contents| contents.visible().to_vec()),
            KeptBytes::Zeros => keep(Contents::survivors_zeroed),
            KeptBytes::First(count) => {
                let end = self.change_after(count);
                self.succeed_with(names, |contents| contents.survivors_before(end))
            }
            KeptBytes::Torn(count) => {
                let end = self.change_after(count);
                self.succeed_with(names, |contents| contents.survivors_torn(end, &mut random))
            }
            KeptBytes::Sectors => {
                self.succeed_with(names, |contents| contents.survivors_random(&mut random))
            }
        }
    }

    /// How many changes of bytes, and of names, no sync has covered.
    pub(super) fn unsynced(&self) -> (usize, usize) {
        (self.pending_ids().len(), self.names.pending_count())
    }

    /// The id of the first unsynced change that is not among the first `count`.
    fn change_after(&self, count: usize) -> ChangeId {
        self.pending_ids().into_iter().nth(count).unwrap_or(ChangeId::MAX)
    }

    fn pending_ids(&self) -> BTreeSet<ChangeId> {
        let files = self.inodes.values().filter_map(|inode| inode.contents.as_deref());
        // One write can be pending in several pieces, around a range that became durable.
        files.flat_map(Contents::pending_ids).collect()
    }

    fn succeed_with(&self, names: Names, mut survive: impl FnMut(&Contents) -> Vec<u8>) -> State {
        self.succeed(names, |contents| {
            if contents.is_settled() {
                Arc::clone(contents)
            } else {
                Arc::new(Contents::of(survive(contents)))
            }
        })
    }

    fn succeed(
        &self,
        names: Names,
        mut survive: impl FnMut(&Arc<Contents>) -> Arc<Contents>,
    ) -> State {
        let survivor = |(&id, inode): (&InodeId, &Inode)| {
            (id, Inode::new(inode.contents.as_ref().map(&mut survive)))
        };
        let inodes = self.inodes.iter().map(survivor).collect();
        State::from_parts(self.random.clone(), names, inodes, self.inode_last, self.change_last)
    }

    /// A number for what is seen: names, and the bytes behind them.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut fingerprint = Fingerprint::default();
        for ((dir, name), id) in self.names.visible() {
            fingerprint.add(&dir.to_le_bytes());
            fingerprint.add(name.as_encoded_bytes());
            match self.inodes.get(id).and_then(|inode| inode.contents.as_ref()) {
                Some(contents) => fingerprint.add(&contents.fingerprint().to_le_bytes()),
                None => fingerprint.add(&id.to_le_bytes()),
            }
        }
        fingerprint.finish()
    }
}
