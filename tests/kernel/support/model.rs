//! What a store may hold after a crash: of every key, the newest acknowledged version or one that
//! was written after it, and never a byte that nobody wrote.

use std::sync::Mutex;

use futures::TryStreamExt;
use ringcask::{Db, Durability, Error};

use super::block_on;

/// Grows with every write to a key; the value follows from it.
pub(crate) type Version = u64;

/// A version, or `None` for a key that is absent.
type State = Option<Version>;

/// How long values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lens {
    /// From nothing to a few pages, so that groups end anywhere.
    Mixed,
    /// All the same, so that a new group ends exactly where an old one did.
    Same,
}

/// Every state that each key may be in. One writer a key.
pub(crate) struct Model {
    lens: Lens,
    keys: Vec<Mutex<Key>>,
}

struct Key {
    allowed: Vec<State>,
    newest: Version,
    /// Acknowledged at some durability.
    answered: Version,
}

impl Model {
    pub(crate) fn new(key_count: usize, lens: Lens) -> Model {
        let key = || Mutex::new(Key { allowed: vec![None], newest: 0, answered: 0 });
        Model { lens, keys: (0..key_count).map(|_| key()).collect() }
    }

    pub(crate) fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// The version to write next; from now on it may be there.
    pub(crate) fn attempt(&self, index: usize) -> Version {
        let mut key = self.keys[index].lock().unwrap();
        key.newest += 1;
        let version = key.newest;
        key.allowed.push(state_after(self.lens, version));
        version
    }

    /// From now on `version` must be there, or a later one.
    pub(crate) fn acknowledged(&self, index: usize, version: Version) {
        let mut key = self.keys[index].lock().unwrap();
        let newest = key.newest;
        key.allowed = (version..=newest).map(|later| state_after(self.lens, later)).collect();
    }

    /// From now on everything that was acknowledged, at any durability, must be there.
    pub(crate) fn everything_is_durable(&self) {
        for index in 0..self.keys.len() {
            let answered = self.keys[index].lock().unwrap().answered;
            if answered > 0 {
                self.acknowledged(index, answered);
            }
        }
    }

    /// The newest version attempted of any key.
    pub(crate) fn newest(&self) -> Version {
        self.keys.iter().map(|key| key.lock().unwrap().newest).max().unwrap_or(0)
    }

    /// A process that is not this one goes on from `base`, with every key.
    pub(crate) fn go_on_from(&self, base: Version) {
        self.keys.iter().for_each(|key| key.lock().unwrap().newest = base);
    }

    /// Writes the next version of a key; an acknowledgement that `counts` is held against the store.
    pub(crate) async fn write(
        &self,
        db: &Db,
        index: usize,
        durability: Durability,
        counts: bool,
    ) -> Result<Version, Error> {
        let version = self.attempt(index);
        write(db, self.lens, index, version, durability).await?;
        self.keys[index].lock().unwrap().answered = version;
        if counts {
            self.acknowledged(index, version);
        }
        Ok(version)
    }

    /// Holds the store against the model; what it holds is what it must hold from now on.
    pub(crate) fn check(&self, db: &Db) {
        let entries: Vec<_> = block_on(db.scan().try_collect()).unwrap();
        let mut present = 0;
        for (index, key) in self.keys.iter().enumerate() {
            let mut key = key.lock().unwrap();
            let name = key_name(index);
            let value = block_on(db.get(&name)).unwrap();
            let found = value.map(|value| version_in(self.lens, index, &value));
            assert!(
                key.allowed.contains(&found),
                "{name}: found version {found:?}, allowed are {:?}",
                key.allowed
            );
            present += usize::from(found.is_some());
            key.allowed = vec![found];
            key.answered = 0;
        }
        assert_eq!(entries.len(), present, "a scan finds as many keys as gets do");
        for (key, value) in entries {
            let name = std::str::from_utf8(&key).unwrap();
            let index = name.strip_prefix("key-").and_then(|index| index.parse().ok());
            version_in(self.lens, index.expect("only keys of the model"), &value);
        }
    }
}

/// Some versions are deletions, unless lengths are to stay the same.
pub(crate) fn is_deletion(lens: Lens, version: Version) -> bool {
    lens == Lens::Mixed && version % 7 == 3
}

fn state_after(lens: Lens, version: Version) -> State {
    (!is_deletion(lens, version)).then_some(version)
}

pub(crate) async fn write(
    db: &Db,
    lens: Lens,
    index: usize,
    version: Version,
    durability: Durability,
) -> Result<(), Error> {
    if is_deletion(lens, version) {
        db.del(key_name(index)).await?;
        return Ok(());
    }
    db.put(key_name(index), value_of(lens, index, version)).durability(durability).await
}

pub(crate) fn key_name(index: usize) -> String {
    format!("key-{index:04}")
}

pub(crate) fn value_of(lens: Lens, index: usize, version: Version) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(version.wrapping_mul(0x9E37_79B9) ^ index as u64);
    let filler_len = match lens {
        Lens::Same => 200,
        Lens::Mixed if rng.u8(..8) == 0 => rng.usize(..12_000),
        Lens::Mixed => rng.usize(..400),
    };
    let mut value = format!("{index:04}@{version:012}:").into_bytes();
    value.extend((0..filler_len).map(|_| rng.u8(..)));
    value
}

/// The version a value is of; panics if it is no value that was ever written to this key.
pub(crate) fn version_in(lens: Lens, index: usize, value: &[u8]) -> Version {
    let digits = value.get(5..17).and_then(|digits| std::str::from_utf8(digits).ok());
    let version = digits.and_then(|digits| digits.parse().ok());
    let version = version.unwrap_or_else(|| panic!("{}: an invented value", key_name(index)));
    assert!(
        value == value_of(lens, index, version),
        "{}: not the bytes of version {version}",
        key_name(index)
    );
    version
}
