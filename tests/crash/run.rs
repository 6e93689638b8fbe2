//! Running a session: the one place that knows every step.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::{join, join_all};
use ringcask::sim::{Moment, SimDisk};
use ringcask::{Db, Durability, Error, ErrorKind, Result, WriteBatch};

use crate::history::{History, PARTITION_COUNT, Sent};
use crate::script::{End, KEY_COUNT, Session, Settings, Step};
use crate::support::{Store, contents, wait};

/// A session as it went when nothing failed.
pub(crate) struct Recorded {
    /// The disk before each operation, by its number.
    pub(crate) moments: Vec<Moment>,
    /// The disk when it was over.
    pub(crate) end: SimDisk,
}

/// Runs a session on a disk that works, and keeps the disk of every moment.
pub(crate) fn record(store: &Store, session: &Session, history: &mut History) -> Recorded {
    history.begin_session();
    let disk = store.disk();
    disk.record();
    let opened = timed_of_all(disk, session.settings.options(store).open(store.path()));
    let (db, at) = wait(opened);
    let db = db.unwrap_or_else(|error| panic!("I5: {error}"));
    assert_eq!(&contents(&db), history.visible(), "the session begins where the last one ended");
    history.all_durable(at);
    let mut player =
        Player { db: &db, disk, settings: session.settings, history, errors: Vec::new() };
    player.play(&session.steps);
    assert!(player.errors.is_empty(), "{:?}", player.errors);
    assert_eq!(&contents(&db), history.visible());
    if session.end == End::Close {
        let (closed, at) = wait(timed_of_all(disk, db.close()));
        closed.unwrap();
        history.all_durable(at);
    }
    let end = disk.kill();
    let moments = disk.moments();
    abandon(disk, &db);
    Recorded { moments, end }
}

/// Lets go of a store whose disk nobody looks at any more.
pub(crate) fn abandon(disk: &SimDisk, db: &Db) {
    disk.crash_at(0);
    let _crashed = wait(db.close());
}

/// Sends what a script asks for, and notes the answers.
pub(crate) struct Player<'a> {
    pub(crate) db: &'a Db,
    pub(crate) disk: &'a SimDisk,
    pub(crate) settings: Settings,
    pub(crate) history: &'a mut History,
    /// What was answered instead; only of kinds that a failing disk may cause.
    pub(crate) errors: Vec<Error>,
}

impl Player<'_> {
    pub(crate) fn play(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put { .. } | Step::Del { .. } => {
                let at = self.disk.ops();
                wait(self.write(std::slice::from_ref(step)));
                if self.settings.evicting {
                    self.note_evicted(at);
                }
            }
            Step::DelRange { from, to, durable } => self.del_range(*from, *to, *durable),
            Step::Together(writes) => wait(self.write(writes)),
            Step::Batch(writes) => self.batch(writes),
            Step::BatchOfAll { len } => {
                let at = self.disk.ops();
                self.batch_of_all(*len);
                if self.settings.evicting {
                    self.note_evicted(at);
                }
            }
            Step::Rename { from, to } => {
                let at = self.disk.ops();
                self.rename(&key_of(*from), &key_of(*to));
                if self.settings.evicting {
                    self.note_evicted(at);
                }
            }
            Step::Sync => {
                let (result, at) = wait(timed_of_all(self.disk, self.db.sync()));
                if self.expect(result).is_some() {
                    self.history.all_durable(at);
                }
            }
            Step::Compact => {
                let compacted = wait(self.db.compact());
                self.expect(compacted);
            }
            Step::CompactHalf { odd } => self.compact_half(*odd),
            Step::CompactBeside(writes) => {
                let db = self.db;
                let (compacted, ()) = wait(join(db.compact(), self.write(writes)));
                self.expect(compacted);
            }
            Step::Backup => {
                let to = self.db.path().with_extension("backup");
                let made = wait(self.db.backup(to));
                self.expect(made);
            }
            Step::Read => self.read(),
        }
    }

    /// What was evicted for a write that was sent before operation `at` is a deletion behind it.
    fn note_evicted(&mut self, at: u64) {
        let (synced, synced_at) = wait(timed_of_all(self.disk, self.db.sync()));
        if self.expect(synced).is_none() {
            return;
        }
        let found = contents(self.db);
        let gone: Vec<_> = self
            .history
            .visible()
            .keys()
            .filter(|key| !found.contains_key(*key))
            .cloned()
            .collect();
        for partition in 0..PARTITION_COUNT {
            let of = gone.iter().filter(|key| self.db.partition_of(key) == partition);
            assert!(of.count() <= 1, "one came and more had to go: {gone:?}");
        }
        for key in gone {
            let partition = self.db.partition_of(&key);
            let sent = self.history.send(at, partition, key, None);
            self.history.acknowledge(synced_at, &sent, true);
        }
        self.history.all_durable(synced_at);
    }

    fn compact_half(&mut self, odd: bool) {
        for partition in 0..PARTITION_COUNT {
            let dir = self.db.path().join(format!("partition-{partition:03}"));
            let names = self.disk.list(dir);
            let ids = names.iter().filter_map(|name| name.strip_suffix(".data")?.parse().ok());
            let half: Vec<u64> = ids.skip(usize::from(odd)).step_by(2).collect();
            let compacted = wait(self.db.compact_files(partition, &half));
            self.expect(compacted);
        }
    }

    /// One write in each partition, that deletes what is there of the range.
    fn del_range(&mut self, from: u8, to: u8, durable: bool) {
        let mut keys: [Vec<Vec<u8>>; PARTITION_COUNT] = Default::default();
        for key in (from..to).map(key_of) {
            keys[self.db.partition_of(&key)].push(key);
        }
        let at = self.disk.ops();
        // A range that ends where it begins, or before, is asked of nobody: its answer vouches for nothing.
        let sent = keys.into_iter().enumerate().filter(|_| from < to);
        let sent: Vec<Sent> = sent.map(|(id, keys)| self.history.send_del(at, id, keys)).collect();
        let durability = if durable { Durability::Sync } else { Durability::Buffered };
        let (from, to) =
            (key_of(from), if to < KEY_COUNT { key_of(to) } else { b"key :".to_vec() });
        let deletion = self.db.delete_range(from..to).durability(durability);
        let (deleted, at) = wait(timed_of_all(self.disk, deletion));
        if self.expect(deleted).is_some() {
            for sent in &sent {
                self.history.acknowledge(at, sent, durable);
            }
            return;
        }
        // Partitions are on their own: it may have failed in one and been done in another.
        for key in sent.iter().flat_map(Sent::keys) {
            if let Ok(None) = wait(self.db.get(key)) {
                self.history.gone(key);
            }
        }
    }

    /// Sends writes in their order, and then waits for them.
    async fn write(&mut self, steps: &[Step]) {
        let sent: Vec<(Sent, bool)> = steps.iter().map(|step| self.note(step)).collect();
        let (db, disk) = (self.db, self.disk);
        let writes = sent.iter().map(|(sent, durable)| timed(disk, write(db, sent, *durable)));
        let answers = join_all(writes).await;
        let mut answers: Vec<_> = sent.iter().zip(answers).collect();
        answers.sort_by_key(|(_, (_, at))| *at);
        for ((sent, durable), (answer, at)) in answers {
            if self.expect(answer).is_some() {
                self.history.acknowledge(at, sent, *durable);
            }
        }
    }

    fn batch(&mut self, steps: &[Step]) {
        let changes = steps.iter().map(|step| self.change(step));
        self.batch_of(changes.map(|(key, value, _)| (key, value)).collect());
    }

    fn batch_of_all(&mut self, len: usize) {
        let mut writes: Vec<_> =
            self.history.visible().keys().map(|key| (key.clone(), None)).collect();
        for (index, (_, value)) in writes.iter_mut().enumerate().skip(1) {
            *value = Some(self.value(len + index));
        }
        for partition in 0..PARTITION_COUNT {
            let absent = (0..KEY_COUNT).map(key_of).find(|key| {
                self.db.partition_of(key) == partition && !self.history.visible().contains_key(key)
            });
            writes.extend(absent.map(|key| (key, Some(self.value(len)))));
        }
        self.batch_of(writes);
    }

    fn batch_of(&mut self, writes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        let batch = writes.iter().fold(WriteBatch::new(), |batch, (key, value)| match value {
            Some(value) => batch.put(key, value),
            None => batch.del(key),
        });
        let placed = |(key, value): (Vec<u8>, _)| (self.db.partition_of(&key), key, value);
        let writes = writes.into_iter().map(placed).collect();
        let sent = self.history.send_batch(self.disk.ops(), writes);
        let write = self.db.write(batch).durability(Durability::Sync);
        let (answer, at) = wait(timed_of_all(self.disk, write));
        if self.expect(answer).is_some() {
            self.history.acknowledge_batch(at, &sent, true);
        }
    }

    fn rename(&mut self, from: &[u8], to: &[u8]) {
        let value = self.history.visible().get(from).cloned();
        let is_change = value.is_some() && from != to;
        let place = |key: &[u8]| self.db.partition_of(key);
        let writes =
            vec![(place(from), from.to_vec(), None), (place(to), to.to_vec(), value.clone())];
        let sent = is_change.then(|| self.history.send_batch(self.disk.ops(), writes));
        let (answer, at) = wait(timed_of_all(self.disk, self.db.rename(from, to)));
        let Some(is_renamed) = self.expect(answer) else { return };
        assert_eq!(is_renamed, value.is_some(), "rename {from:?}");
        if let Some(sent) = sent {
            self.history.acknowledge_batch(at, &sent, !self.settings.buffered);
        }
    }

    /// What a step makes of which key, and whether it is durable when it is acknowledged.
    fn change(&self, step: &Step) -> (Vec<u8>, Option<Vec<u8>>, bool) {
        match *step {
            Step::Put { key, len, durable } => (key_of(key), Some(self.value(len)), durable),
            Step::Del { key } => (key_of(key), None, !self.settings.buffered),
            _ => panic!("{step:?} is not a write"),
        }
    }

    fn note(&mut self, step: &Step) -> (Sent, bool) {
        let (key, value, durable) = self.change(step);
        let partition = self.db.partition_of(&key);
        (self.history.send(self.disk.ops(), partition, key, value), durable)
    }

    /// Bytes that no other value has, where there is room for it.
    fn value(&self, len: usize) -> Vec<u8> {
        let number = self.history.sent_count().to_le_bytes();
        number.into_iter().cycle().take(len).collect()
    }

    /// What is read is what was acknowledged last, or an error that says why not.
    fn read(&mut self) {
        for key in (0..KEY_COUNT).map(key_of) {
            let found = wait(self.db.get(&key));
            if let Some(found) = self.expect(found) {
                let expected = self.history.visible().get(&key);
                assert_eq!(found.as_deref(), expected.map(Vec::as_slice), "{key:?}");
            }
        }
        let mut scan = self.db.scan();
        let mut found = BTreeMap::new();
        while let Some(entry) = wait(scan.next()) {
            let Some((key, value)) = self.expect(entry) else { return };
            found.insert(key.to_vec(), value.to_vec());
        }
        assert_eq!(&found, self.history.visible());
    }

    fn expect<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.errors.push(expected_error(error))).ok()
    }
}

pub(crate) fn expected_error(error: Error) -> Error {
    let ordinary = [ErrorKind::Io, ErrorKind::NoSpace, ErrorKind::Poisoned, ErrorKind::Closed];
    assert!(ordinary.contains(&error.kind()), "{error}");
    error
}

pub(crate) fn key_of(key: u8) -> Vec<u8> {
    format!("key {key}").into_bytes()
}

/// By one of the verbs that come to the same.
async fn write(db: &Db, sent: &Sent, durable: bool) -> Result<()> {
    let long = Duration::from_secs(3_600_000);
    let durability = if durable { Durability::Sync } else { Durability::Buffered };
    let (key, value) = sent.only();
    match value {
        None if sent.is_odd() => db.del(key).await.map(drop),
        None => db.get_and_del(key).durability(durability).await.map(drop),
        Some(value) => match value.len() % 4 {
            0 => db.get_and_put(key, value).durability(durability).await.map(drop),
            1 => db.put(key, value).ttl(long).durability(durability).await,
            _ => db.put(key, value).durability(durability).await,
        },
    }
}

/// A future of one partition, and before which operation of the disk its answer came: whoever answers wakes it there and
/// then, while the disk may have gone on by the time that it is polled.
pub(crate) fn timed<F: Future>(disk: &SimDisk, future: F) -> Timed<F> {
    let bell =
        Bell { disk: disk.clone(), rung_at: AtomicU64::new(u64::MAX), parent: Mutex::default() };
    Timed { future: Box::pin(future), bell: Arc::new(bell) }
}

/// A future that waits for answers of several, and before which operation of the disk all of them were there, or a later one:
/// when it is polled because of the first, the last may be there already, and nobody has said since when.
pub(crate) async fn timed_of_all<F: Future>(disk: &SimDisk, future: F) -> (F::Output, u64) {
    let output = future.await;
    (output, disk.ops())
}

pub(crate) struct Timed<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
}

struct Bell {
    disk: SimDisk,
    rung_at: AtomicU64,
    parent: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung_at.store(self.disk.ops(), Ordering::SeqCst);
        let parent = self.parent.lock().unwrap().take();
        parent.into_iter().for_each(Waker::wake);
    }
}

impl<F: Future> Future for Timed<F> {
    type Output = (F::Output, u64);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let timed = self.get_mut();
        *timed.bell.parent.lock().unwrap() = Some(cx.waker().clone());
        let rung_at = timed.bell.rung_at.swap(u64::MAX, Ordering::SeqCst);
        let waker = Waker::from(timed.bell.clone());
        let polled = timed.future.as_mut().poll(&mut Context::from_waker(&waker));
        polled.map(|output| (output, rung_at.min(timed.bell.disk.ops())))
    }
}
