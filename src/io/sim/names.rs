//! The names of a simulated disk: what is seen, what is durable, and the changes between (Q3).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;

use super::random::Random;

/// A file or directory, whatever it is called.
pub(super) type InodeId = u64;

pub(super) const ROOT: InodeId = 0;

/// A directory and a name in it.
pub(super) type Place = (InodeId, OsString);

/// Shared with the disks that came from this one, until it changes.
#[derive(Clone, Default)]
pub(super) struct Names {
    visible: Arc<BTreeMap<Place, InodeId>>,
    durable: Arc<BTreeMap<Place, InodeId>>,
    pending: Vec<NameChange>,
}

/// Edits that survive together or not at all.
#[derive(Clone)]
struct NameChange(Vec<(Place, Option<InodeId>)>);

impl Names {
    pub(super) fn get(&self, dir: InodeId, name: &OsStr) -> Option<InodeId> {
        self.visible.get(&(dir, name.to_owned())).copied()
    }

    pub(super) fn list(&self, dir: InodeId) -> impl Iterator<Item = (&OsString, InodeId)> {
        self.visible
            .range((dir, OsString::new())..(dir + 1, OsString::new()))
            .map(|((_, name), &id)| (name, id))
    }

    /// Every inode that has a name now, in order.
    pub(super) fn visible_ids(&self) -> Vec<InodeId> {
        let mut ids: Vec<_> = self.visible.values().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Changes what is seen; a place with `None` becomes free.
    pub(super) fn change(&mut self, edits: Vec<(Place, Option<InodeId>)>) {
        let change = NameChange(edits);
        change.apply(Arc::make_mut(&mut self.visible));
        self.pending.push(change);
    }

    /// Gives a name that needs no sync.
    pub(super) fn plant(&mut self, place: Place, id: InodeId) {
        Arc::make_mut(&mut self.visible).insert(place.clone(), id);
        Arc::make_mut(&mut self.durable).insert(place, id);
    }

    /// Makes durable whatever changed in `dir`. The other half of a move between directories goes
    /// with it.
    pub(super) fn sync(&mut self, dir: InodeId) {
        let Names { durable, pending, .. } = self;
        pending.retain(|change| {
            let touches = change.0.iter().any(|((parent, _), _)| *parent == dir);
            if touches {
                change.apply(Arc::make_mut(durable));
            }
            !touches
        });
    }

    /// The names after a power cut that keeps those changes that `keep` says yes to.
    fn survivors(&self, mut keep: impl FnMut() -> bool) -> Names {
        let mut durable = self.durable.clone();
        for change in &self.pending {
            if keep() {
                change.apply(Arc::make_mut(&mut durable));
            }
        }
        Names { visible: durable.clone(), durable, pending: Vec::new() }
    }

    /// The names after a power cut that keeps the first so many changes.
    pub(super) fn survivors_first(&self, count: usize) -> Names {
        let mut left = count;
        self.survivors(|| {
            let keep = left > 0;
            left = left.saturating_sub(1);
            keep
        })
    }

    pub(super) fn survivors_random(&self, random: &mut Random) -> Names {
        self.survivors(|| random.chance(0.5))
    }

    pub(super) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn visible(&self) -> impl Iterator<Item = (&Place, &InodeId)> {
        self.visible.iter()
    }

    /// The path of an inode, or of a name in a directory; of a file without a name, its number.
    pub(super) fn path_of(&self, id: InodeId, name: Option<&OsStr>) -> PathBuf {
        let mut path = PathBuf::from("/");
        if id != ROOT {
            match self.visible.iter().find(|(_, named)| **named == id) {
                Some(((dir, name), _)) => path = self.path_of(*dir, Some(name)),
                None => path.push(format!("inode {id}")),
            }
        }
        path.extend(name);
        path
    }

    /// Every inode that has a name now or could have one after a power cut, in order.
    pub(super) fn reachable(&self) -> Vec<InodeId> {
        let edits = self.pending.iter().flat_map(|change| &change.0);
        let is_same = Arc::ptr_eq(&self.visible, &self.durable);
        let durable = self.durable.values().filter(|_| !is_same);
        let named = self.visible.values().chain(durable).copied();
        let mut ids: Vec<_> = named.chain(edits.filter_map(|(_, id)| *id)).chain([ROOT]).collect();
        ids.sort_unstable();
        ids
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<Place, InodeId>) {
        for (place, id) in &self.0 {
            match id {
                Some(id) => names.insert(place.clone(), *id),
                None => names.remove(place),
            };
        }
    }
}
