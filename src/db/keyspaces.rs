//! The keyspaces of an open store, and the one thread at a time that changes them.
//!
//! What a caller asks for waits in a queue. A thread that is started when there is something takes all of it,
//! replaces MANIFEST once for every keyspace that is new, and ends when the queue is empty: a thousand callers
//! who each open a keyspace share a few replacements.
//!
//! ## Invariants
//! - **KS1** A handle of a keyspace exists only once MANIFEST, with its name and id, is durable.
//! - **KS2** An id is given once: also one that is found in a data file is never given again, whatever MANIFEST says.
//! - **KS3** After a replacement of which nobody knows whether it is durable, MANIFEST does not change again
//!   before the store is opened anew (D1).
//! - **KS4** A keyspace that is dropped is that from the moment when MANIFEST says so: whoever opens the store after
//!   a crash goes on with it. Its name and its id leave MANIFEST once every partition has a durable tombstone.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::channel::oneshot;
use parking_lot::{Mutex, RwLock};

use super::keyspace::worker_gone;
use super::{Shared, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::io::Fs;
use crate::limits::{KEYSPACE_NAME_LEN_MAX, KEYSPACES_MAX, MANIFEST_LEN_MAX};
use crate::log::layout;
use crate::log::manifest::{Manifest, ManifestKeyspace};
use crate::mailbox::Durable;
use crate::ranges::bounds_of;
use crate::types::KeyspaceId;

/// What became of a change, once it is known.
pub(super) type Changed = oneshot::Receiver<Result<Outcome>>;

/// What became of a change.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    Opened(Space),
    /// Whether there was one.
    Dropped(bool),
}

pub(crate) struct Keyspaces {
    fs: Fs,
    root: PathBuf,
    /// For keyspaces that were never told another one.
    default_ttl: Option<Duration>,
    /// Changed by whoever changes MANIFEST, who holds it meanwhile.
    recorded: Mutex<Recorded>,
    by_name: RwLock<BTreeMap<String, Known>>,
    any_dropped: AtomicBool,
    /// Dropped since the store was opened: handles of them may be left.
    dropped: RwLock<HashSet<KeyspaceId>>,
    queue: Mutex<Queue>,
}

/// What MANIFEST says.
struct Recorded {
    manifest: Manifest,
    /// Its bytes.
    text: String,
    /// Why it does not change any more (KS3).
    failure: Option<Error>,
}

#[derive(Clone, Copy)]
struct Known {
    id: KeyspaceId,
    default_ttl_ms: Option<u64>,
}

#[derive(Default)]
struct Queue {
    changes: VecDeque<Change>,
    /// A thread works on it, or is about to.
    is_running: bool,
}

struct Change {
    name: String,
    what: What,
    reply: oneshot::Sender<Result<Outcome>>,
}

enum What {
    /// With this default time to live in milliseconds, zero for none; `None` leaves it as it is.
    Open {
        default_ttl_ms: Option<u64>,
    },
    Drop,
}

impl Keyspaces {
    /// What `manifest` says; `seen` is the largest id of any record (KS2).
    pub(super) fn new(
        fs: Fs,
        root: PathBuf,
        mut manifest: Manifest,
        seen: KeyspaceId,
        default_ttl: Option<Duration>,
    ) -> Keyspaces {
        let text = manifest.encode().unwrap_or_default();
        let next = KeyspaceId(seen.0.saturating_add(1));
        manifest.keyspace_next = manifest.keyspace_next.max(next);
        let live = manifest.keyspaces.iter().filter(|keyspace| !keyspace.is_dropping);
        let by_name = live.map(|keyspace| (keyspace.name.clone(), Known::of(keyspace))).collect();
        Keyspaces {
            fs,
            root,
            default_ttl,
            recorded: Mutex::new(Recorded { manifest, text, failure: None }),
            by_name: RwLock::new(by_name),
            any_dropped: AtomicBool::new(false),
            dropped: RwLock::default(),
            queue: Mutex::default(),
        }
    }

    pub(super) fn fs(&self) -> &Fs {
        &self.fs
    }

    /// What MANIFEST says now.
    pub(super) fn manifest(&self) -> Manifest {
        self.recorded.lock().manifest.clone()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.by_name.read().keys().cloned().collect()
    }

    /// The ids of all keyspaces, in order, the default one included.
    pub(super) fn ids(&self) -> Vec<KeyspaceId> {
        let mut ids: Vec<KeyspaceId> = self.by_name.read().values().map(|known| known.id).collect();
        ids.push(KeyspaceId(0));
        ids.sort_unstable();
        ids
    }

    /// The name of a keyspace, unless it is gone, or the default one.
    pub(super) fn name_of(&self, id: KeyspaceId) -> Option<String> {
        let by_name = self.by_name.read();
        by_name.iter().find(|(_, known)| known.id == id).map(|(name, _)| name.clone())
    }

    /// Refuses handles of keyspaces that are gone.
    pub(super) fn check(&self, id: KeyspaceId) -> Result<()> {
        if self.any_dropped.load(Ordering::Relaxed) && self.dropped.read().contains(&id) {
            return Err(Error::keyspace_dropped());
        }
        Ok(())
    }

    fn space_of(&self, known: Known) -> Space {
        let default_ttl = match known.default_ttl_ms {
            None => self.default_ttl,
            Some(0) => None,
            Some(ms) => Some(Duration::from_millis(ms)),
        };
        Space { id: known.id, default_ttl }
    }

    /// Replaces MANIFEST by what `change` makes of it; nothing is written if that is what it was.
    fn replace(&self, change: impl FnOnce(&mut Manifest) -> Result<()>) -> Result<()> {
        let mut recorded = self.recorded.lock();
        if let Some(failure) = &recorded.failure {
            return Err(failure.clone());
        }
        let mut manifest = recorded.manifest.clone();
        change(&mut manifest)?;
        if manifest == recorded.manifest {
            return Ok(());
        }
        if self.fs.is_read_only() {
            return Err(Error::read_only(&self.root));
        }
        let path = self.root.join(layout::MANIFEST);
        let text = manifest.encode().map_err(|why| Error::invalid(why.to_string()))?;
        let staged = self
            .fs
            .stage_file(&self.root, layout::MANIFEST, text.as_bytes())
            .map_err(|source| Error::io("replace", &path, source))?;
        if let Err(source) = staged.commit() {
            let is_unchanged = self
                .fs
                .read_file(&path, MANIFEST_LEN_MAX)
                .is_ok_and(|bytes| bytes == recorded.text.as_bytes());
            let error = Error::io("replace", &path, source);
            if !is_unchanged {
                let advice = "nobody knows which of the two a power cut would leave, so keyspaces stay \
                              as they are until the store is closed and opened again";
                let failure = Error::new(ErrorKind::Poisoned, format!("{error}; {advice}"));
                recorded.failure = Some(failure.clone());
                return Err(failure);
            }
            return Err(error);
        }
        recorded.manifest = manifest;
        recorded.text = text;
        Ok(())
    }

    /// Opens or creates all of these with one replacement of MANIFEST.
    fn open_all(&self, opens: Vec<Open>) {
        let mut outcomes = Vec::new();
        let replaced = self.replace(|manifest| {
            let opened =
                opens.iter().map(|open| record_open(manifest, &open.name, open.default_ttl_ms));
            outcomes.extend(opened);
            Ok(())
        });
        // Without an outcome nothing was tried, and that has a reason.
        outcomes.resize_with(opens.len(), || Err(worker_gone()));
        for (open, outcome) in opens.into_iter().zip(outcomes) {
            let opened = replaced.clone().and(outcome).map(|known| {
                self.by_name.write().insert(open.name, known);
                Outcome::Opened(self.space_of(known))
            });
            let _caller_is_gone = open.reply.send(opened);
        }
    }

    /// Ids of keyspaces that are being dropped.
    fn dropping(&self) -> Vec<(KeyspaceId, String)> {
        let recorded = self.recorded.lock();
        let all = recorded.manifest.keyspaces.iter().filter(|keyspace| keyspace.is_dropping);
        all.map(|keyspace| (keyspace.id, keyspace.name.clone())).collect()
    }

    /// From here on nobody finds the keyspace, and handles of it are of no use.
    fn forget(&self, id: KeyspaceId) {
        self.by_name.write().retain(|_, known| known.id != id);
        self.dropped.write().insert(id);
        self.any_dropped.store(true, Ordering::Release);
    }
}

/// Somebody who wants a keyspace.
struct Open {
    name: String,
    default_ttl_ms: Option<u64>,
    reply: oneshot::Sender<Result<Outcome>>,
}

impl Known {
    fn of(keyspace: &ManifestKeyspace) -> Known {
        Known { id: keyspace.id, default_ttl_ms: keyspace.default_ttl_ms }
    }
}

/// Makes `manifest` have the keyspace.
fn record_open(manifest: &mut Manifest, name: &str, default_ttl_ms: Option<u64>) -> Result<Known> {
    if let Some(there) = manifest.keyspaces.iter_mut().find(|keyspace| keyspace.name == name) {
        there.default_ttl_ms = default_ttl_ms.or(there.default_ttl_ms);
        return Ok(Known::of(there));
    }
    if manifest.keyspaces.len() >= KEYSPACES_MAX {
        return Err(Error::invalid(format!(
            "the keyspace {name:?} would be one too many; a store has at most {KEYSPACES_MAX}"
        )));
    }
    let id = manifest.keyspace_next;
    let next = id.0.checked_add(1).ok_or_else(|| {
        Error::invalid(format!(
            "the keyspace {name:?} cannot be created: every number that a keyspace can have was given; dump \
             the store and load it into another one"
        ))
    })?;
    manifest.keyspace_next = KeyspaceId(next);
    let made = ManifestKeyspace { id, name: name.to_owned(), default_ttl_ms, is_dropping: false };
    let known = Known::of(&made);
    manifest.keyspaces.push(made);
    Ok(known)
}

impl Shared {
    /// The keyspace, or the change that has to be waited for to have it.
    pub(super) fn open_space(
        self: &Arc<Self>,
        name: &str,
        default_ttl_ms: Option<u64>,
    ) -> Result<Result<Space, Changed>> {
        check_name(name)?;
        if self.lifecycle.is_closing() {
            return Err(Error::closed());
        }
        let keyspaces = &self.keyspaces;
        if let Some(known) = keyspaces.by_name.read().get(name)
            && default_ttl_ms.is_none_or(|asked| known.default_ttl_ms == Some(asked))
        {
            return Ok(Ok(keyspaces.space_of(*known)));
        }
        self.change(name, What::Open { default_ttl_ms }).map(Err)
    }

    /// Has the keyspace dropped.
    pub(super) fn drop_space(self: &Arc<Self>, name: &str) -> Result<Changed> {
        check_name(name)?;
        self.change(name, What::Drop)
    }

    /// Goes on with what was begun before the store was opened. Where that fails, as on a full disk, whoever
    /// opens a keyspace of the name tries again.
    pub(super) fn finish_drops(&self) {
        for (id, name) in self.keyspaces.dropping() {
            match self.finish_drop(id) {
                Ok(()) => {
                    tracing::info!(keyspace = name, "a keyspace that was being dropped is gone");
                }
                Err(error) => tracing::warn!(keyspace = name, %error, "cannot drop a keyspace"),
            }
        }
    }

    /// Drops the keyspace that MANIFEST calls so; says whether there is one.
    fn drop_named(&self, name: &str) -> Result<bool> {
        let mut found = None;
        self.keyspaces.replace(|manifest| {
            let mut all = manifest.keyspaces.iter_mut();
            if let Some(keyspace) = all.find(|keyspace| keyspace.name == name) {
                keyspace.is_dropping = true;
                found = Some(keyspace.id);
            }
            Ok(())
        })?;
        let Some(id) = found else { return Ok(false) };
        self.keyspaces.forget(id);
        self.finish_drop(id)?;
        Ok(true)
    }

    /// Deletes what is in a keyspace of which MANIFEST says that it is being dropped, and then its name.
    fn finish_drop(&self, id: KeyspaceId) -> Result<()> {
        let (begin, end) = bounds_of(Bound::Unbounded, Bound::Unbounded).unwrap_or_default();
        let cleared = self.del_range(id, &begin, &end, true, Durable::Sync);
        futures::executor::block_on(cleared).into_iter().collect::<Result<()>>()?;
        self.keyspaces.replace(|manifest| {
            manifest.keyspaces.retain(|keyspace| keyspace.id != id);
            Ok(())
        })
    }

    /// Has a thread make the change.
    fn change(self: &Arc<Self>, name: &str, what: What) -> Result<Changed> {
        let (reply, receiver) = oneshot::channel();
        let mut queue = self.keyspaces.queue.lock();
        if !queue.is_running {
            // Close waits for it, because the store's lock has to be held while MANIFEST is replaced.
            let Some(running) = self.lifecycle.begin_task() else { return Err(Error::closed()) };
            let shared = self.clone();
            std::thread::Builder::new()
                .name("ringcask-keyspaces".into())
                .spawn(move || {
                    let _running = running;
                    let worker = QueueWorker(shared);
                    while worker.step() {}
                })
                .map_err(|source| {
                    Error::io("start a thread to change the keyspaces of", &self.path, source)
                })?;
            queue.is_running = true;
        }
        queue.changes.push_back(Change { name: name.to_owned(), what, reply });
        Ok(receiver)
    }
}

/// Who works on the queue.
struct QueueWorker(Arc<Shared>);

impl QueueWorker {
    /// Makes the changes that are at the head of the queue; false if there are none.
    fn step(&self) -> bool {
        let keyspaces = &self.0.keyspaces;
        let mut queue = keyspaces.queue.lock();
        let changes = Vec::from(std::mem::take(&mut queue.changes));
        if changes.is_empty() {
            queue.is_running = false;
            return false;
        }
        drop(queue);
        let mut opens = Vec::new();
        for Change { name, what, reply } in changes {
            match what {
                What::Open { default_ttl_ms } => opens.push(Open { name, default_ttl_ms, reply }),
                What::Drop => {
                    // In the order in which they were asked for.
                    self.open_all(std::mem::take(&mut opens));
                    let dropped = self.0.drop_named(&name).map(Outcome::Dropped);
                    let _caller_is_gone = reply.send(dropped);
                }
            }
        }
        self.open_all(opens);
        true
    }

    /// Opens keyspaces, after one of the name that is still being dropped is gone.
    fn open_all(&self, mut opens: Vec<Open>) {
        for (_, dropping) in self.0.keyspaces.dropping() {
            if !opens.iter().any(|open| open.name == dropping) {
                continue;
            }
            if let Err(error) = self.0.drop_named(&dropping) {
                for open in opens.extract_if(.., |open| open.name == dropping) {
                    let _caller_is_gone = open.reply.send(Err(error.clone()));
                }
            }
        }
        if !opens.is_empty() {
            self.0.keyspaces.open_all(opens);
        }
    }
}

impl Drop for QueueWorker {
    /// After a panic nobody else would answer.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = self.0.keyspaces.queue.lock();
            queue.is_running = false;
            for change in queue.changes.drain(..) {
                let _caller_is_gone = change.reply.send(Err(worker_gone()));
            }
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    if (1..=KEYSPACE_NAME_LEN_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the name of the keyspace is {} bytes long; it has 1 to {KEYSPACE_NAME_LEN_MAX} bytes",
        name.len()
    )))
}

/// As MANIFEST has it: zero for none.
pub(super) fn as_ms(ttl: Option<Duration>) -> Result<u64> {
    let Some(ttl) = ttl else { return Ok(0) };
    if ttl.is_zero() {
        return Err(Error::invalid(
            "the default time to live is zero; leave it out, or give `None` for keys that stay",
        ));
    }
    // What no date could hold is refused when something is put.
    Ok(u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).min(i64::MAX as u64))
}
