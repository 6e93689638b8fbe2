//! Whoever watches the store, and whoever makes a copy of its changes, has in the end what the store holds.
//!
//! A watch lives as long as the store is open; the copy goes on where it was, whatever became of the store meanwhile.

use std::collections::BTreeMap;

use futures::FutureExt;
use ringcask::{ChangeKind, ChangePosition, ChangesSince, Db, ErrorKind, Watch, WatchEvent};

use crate::register::{Action, Answer, Value};
use crate::run::Verdict;
use crate::support::wait;
use crate::verb::{KEYS, Key, SPACES, key_bytes, space_name};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// What somebody has who watches the default keyspace from when the store was opened.
pub(crate) struct Watcher {
    watch: Watch,
    /// `None` if something was missed.
    entries: Option<Entries>,
    /// Of each key the number of the last change that was told.
    seqnos: BTreeMap<Vec<u8>, u64>,
    /// Puts that were answered and are to be told.
    expected: Vec<(Key, Value)>,
    lags: u64,
}

impl Watcher {
    /// With room for so many events.
    pub(crate) fn begin(db: &Db, events: usize) -> Result<Watcher, String> {
        let watch = db.watch().value_len_max(usize::MAX).buffer(events, usize::MAX);
        let watch = watch.begin().map_err(|error| error.to_string())?;
        // What is told too, because it came in between, is told again.
        let entries = Some(entries(db)?);
        let (seqnos, expected) = (BTreeMap::new(), Vec::new());
        Ok(Watcher { watch, entries, seqnos, expected, lags: 0 })
    }

    /// These calls have had their answers.
    pub(crate) fn called(&mut self, actions: &[(Key, Action)], answers: &[Answer]) {
        for ((key, action), answer) in actions.iter().zip(answers) {
            if let (Action::Put(value), Answer::Done) = (action, answer)
                && *key < KEYS
            {
                self.expected.push((*key, *value));
            }
        }
    }

    /// Takes what there is: every put that was answered is told, nothing is told twice, and of a key in order.
    pub(crate) fn listen(&mut self) -> Verdict {
        let mut told: Vec<(Vec<u8>, Value)> = Vec::new();
        let mut missed = 0;
        while let Some(Some(event)) = self.watch.next().now_or_never() {
            let event = event.map_err(|error| format!("watch: {error}"))?;
            match &event {
                WatchEvent::Put { key, value, seqno, .. } => {
                    self.in_order(key, *seqno)?;
                    let value = value.as_ref().ok_or("a watch leaves out a value")?;
                    told.push((key.to_vec(), Value::of(value)));
                    if let Some(entries) = &mut self.entries {
                        entries.insert(key.to_vec(), value.to_vec());
                    }
                }
                WatchEvent::Del { key, seqno }
                | WatchEvent::Evicted { key, seqno }
                | WatchEvent::Expired { key, seqno } => {
                    self.in_order(key, *seqno)?;
                    if let Some(entries) = &mut self.entries {
                        entries.remove(&key[..]);
                    }
                }
                WatchEvent::DelRange { range, .. } => {
                    if let Some(entries) = &mut self.entries {
                        entries.retain(|key, _| !range.contains(key));
                    }
                }
                WatchEvent::Lagged { missed: count } => {
                    missed += count;
                    self.lags += 1;
                    self.entries = None;
                }
                other => return Err(format!("a watch tells {other:?}")),
            }
        }
        let mut unseen = 0;
        for (key, value) in std::mem::take(&mut self.expected) {
            let key = key_bytes(key);
            match told.iter().position(|told| told.0 == key && told.1 == value) {
                Some(at) => drop(told.swap_remove(at)),
                None => unseen += 1,
            }
        }
        if unseen > missed {
            return Err(format!("a watch did not tell {unseen} puts, and says it is {missed}"));
        }
        Ok(())
    }

    /// Of a key and its numbers, which only grow.
    fn in_order(&mut self, key: &[u8], seqno: u64) -> Verdict {
        let last = self.seqnos.insert(key.to_vec(), seqno);
        match last {
            Some(last) if last >= seqno => {
                Err(format!("a watch tells change {seqno} of a key behind {last}"))
            }
            _ => Ok(()),
        }
    }

    /// Nothing is under way: what was told comes to what is there.
    pub(crate) fn check(&mut self, db: &Db) -> Verdict {
        self.listen()?;
        let now = entries(db)?;
        match &self.entries {
            Some(entries) if *entries != now => {
                return Err(format!("by a watch there is {entries:?}, and there is {now:?}"));
            }
            Some(_) => {}
            // It looks for itself, and goes on from there.
            None => self.entries = Some(now),
        }
        Ok(())
    }
}

/// A copy of all keyspaces that is made of the changes.
#[derive(Default)]
pub(crate) struct Copy {
    /// By the numbers of their keyspaces.
    entries: BTreeMap<u32, Entries>,
    names: BTreeMap<u32, String>,
    /// As text, as somebody keeps it who comes back later.
    position: Option<String>,
}

impl Copy {
    /// Applies what has come since; from the beginning, if something is gone and it need not be there.
    pub(crate) fn catch_up(&mut self, db: &Db, is_retained: bool) -> Verdict {
        loop {
            let since = match &self.position {
                None => ChangesSince::Beginning,
                Some(text) => {
                    text.parse::<ChangePosition>().map_err(|error| error.to_string())?.into()
                }
            };
            let mut changes = db.changes(since);
            let ended = loop {
                match wait(changes.next()) {
                    None => break Ok(()),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(change)) => {
                        let id = change.keyspace_id;
                        if let Some(name) = &change.keyspace {
                            self.names.insert(id, name.to_string());
                        }
                        let entries = self.entries.entry(id).or_default();
                        match change.kind {
                            ChangeKind::Put { key, value, .. } => {
                                entries.insert(key.to_vec(), value.to_vec());
                            }
                            ChangeKind::Del { key } => drop(entries.remove(&key[..])),
                            ChangeKind::DelRange(range) => {
                                entries.retain(|key, _| !range.contains(key));
                            }
                            other => return Err(format!("a change is {other:?}")),
                        }
                    }
                }
            };
            match ended {
                Ok(()) => {
                    self.position = Some(changes.position().to_string());
                    return Ok(());
                }
                Err(error)
                    if error.kind() == ErrorKind::PositionGone
                        && !is_retained
                        && self.position.is_some() =>
                {
                    *self = Copy::default();
                }
                Err(error) => return Err(format!("changes: {:?}: {error}", error.kind())),
            }
        }
    }

    /// Nothing is under way: the copy is the store.
    pub(crate) fn check(&self, db: &Db) -> Verdict {
        let mut copied: BTreeMap<String, &Entries> = BTreeMap::new();
        for (id, entries) in self.entries.iter().filter(|(_, entries)| !entries.is_empty()) {
            let name = match self.names.get(id) {
                Some(name) => name.clone(),
                None if *id == 0 => String::new(),
                None => return Err(format!("keyspace {id} is a copy of nothing: {entries:?}")),
            };
            if copied.insert(name.clone(), entries).is_some() {
                return Err(format!("keyspace {name:?} is there twice"));
            }
        }
        let mut there: BTreeMap<String, Entries> = BTreeMap::from([(String::new(), entries(db)?)]);
        for name in (1..SPACES).map(space_name).filter(|name| db.keyspaces().contains(name)) {
            let space = wait(db.keyspace(&name)).map_err(|error| error.to_string())?;
            there.insert(name, entries(&space)?);
        }
        there.retain(|_, entries| !entries.is_empty());
        if copied.iter().map(|(name, entries)| (name, *entries)).ne(&there) {
            return Err(format!("the copy is {copied:?}, the store is {there:?}"));
        }
        Ok(())
    }
}

fn entries(db: &Db) -> Result<Entries, String> {
    let mut scan = db.scan();
    let mut entries = Entries::new();
    while let Some(entry) = wait(scan.next()) {
        let (key, value) = entry.map_err(|error| format!("scan: {error}"))?;
        entries.insert(key.to_vec(), value.to_vec());
    }
    Ok(entries)
}
