//! Does what a case says, and holds every answer against the oracle.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use futures::future::{FutureExt, join_all};
use futures::{Stream, StreamExt};
use ringcask::sim::SimClock;
use ringcask::{Cursor, Db, ErrorKind, Options, Page, Result, Scan, Snapshot};

use crate::follow::{Copy, Watcher};
use crate::op::{ALL, Between, Case, Edge, Fate, How, Op, Selection, Task};
use crate::oracle::{Called, Oracle};
use crate::register::{Action, Answer, Value};
use crate::settings::Settings;
use crate::support::{Store, wait};
use crate::verb::{KEYS, Key, SPACES, Space, Verb, handle, inner, key_bytes, space_name};

/// What is wrong, in words.
pub(crate) type Verdict = std::result::Result<(), String>;

/// Where a case is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum On {
    Sim,
    Uring,
    Blocking,
    Memory,
}

impl On {
    pub(crate) fn store(self, seed: u64) -> Store {
        match self {
            On::Sim => Store::sim(seed),
            On::Uring => Store::uring(),
            On::Blocking => Store::blocking(),
            On::Memory => Store::memory(),
        }
    }
}

/// Runs a case on a new store; a panic is a verdict too.
pub(crate) fn run(case: &Case, on: On) -> Verdict {
    let run = || {
        let mut runner = Runner::new(case, on)?;
        for (index, op) in case.ops.iter().enumerate() {
            runner.step(op).map_err(|what| format!("operation {index}, {op:?}: {what}"))?;
        }
        runner.end()
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

struct Runner {
    store: Store,
    clock: SimClock,
    oracle: Oracle,
    /// `None` while the store is not open.
    db: Option<Db>,
    /// With everything that was in each when it was made.
    snapshots: Vec<(Snapshot, Contents)>,
    settings: Settings,
    /// Makes values differ.
    number: u64,
    /// `None` while the store is not open.
    watcher: Option<Watcher>,
    copy: Copy,
    /// Whether the log is kept for whoever comes back.
    is_retained: bool,
    /// A range that nobody waited for may still be on its way.
    is_wiping: bool,
}

impl Runner {
    fn new(case: &Case, on: On) -> std::result::Result<Runner, String> {
        let store = on.store(case.disk_seed);
        let clock = SimClock::new(1_800_000_000_000);
        let is_retained = case.disk_seed.is_multiple_of(2);
        let options = options_of(&case.settings, &store, &clock, is_retained);
        let db = told("create", store.try_open(options.partitions(case.partitions)))?;
        let watcher = Some(Watcher::begin(&db, events_of(&case.settings))?);
        let settings = case.settings.clone();
        let number = case.disk_seed << 20;
        let mut oracle = Oracle::new();
        oracle.set_vanishing(settings.holding.evicts());
        let snapshots = Vec::new();
        let (db, copy) = (Some(db), Copy::default());
        Ok(Runner {
            store,
            clock,
            oracle,
            db,
            snapshots,
            settings,
            number,
            watcher,
            copy,
            is_retained,
            is_wiping: false,
        })
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open between any two operations")
    }

    fn step(&mut self, op: &Op) -> Verdict {
        if self.oracle.is_crowded() {
            self.settle()?;
        }
        match op {
            Op::One(verb) => self.together(&[(verb.clone(), Fate::Awaited)]),
            Op::Together(calls) => self.together(calls),
            Op::Rename { space, from, to } => self.rename(*space, *from, *to),
            Op::Drop(space) => self.drop_space(*space),
            Op::Scan(selection) => self.scan(selection),
            Op::Flush => self.settle(),
            Op::Compact => told("compact", wait(self.db().compact())).map(drop),
            Op::CompactSome { partition, files } => self.compact_some(*partition, *files),
            Op::CompactAndCancel => {
                let both =
                    futures::future::join(self.db().compact(), self.db().cancel_compaction());
                let (compacted, cancelled) = wait(both);
                told("cancel", cancelled)?;
                match compacted {
                    Err(error) if error.kind() == ErrorKind::Cancelled => Ok(()),
                    compacted => told("compact", compacted).map(drop),
                }
            }
            Op::Abandon { what, polls } => self.abandon(*what, *polls),
            Op::Check => self.check(),
            Op::Snapshot => self.snapshot(),
            Op::LookBack { which, selection, is_last } => {
                self.look_back(*which, selection, *is_last)
            }
            Op::Clock { wall_ms } => {
                self.clock.set(*wall_ms);
                self.clock.advance(std::time::Duration::from_secs(1));
                Ok(())
            }
            Op::Reopen { how, between, settings } => self.reopen(how, *between, settings),
        }
    }

    fn together(&mut self, calls: &[(Verb, Fate)]) -> Verdict {
        let first = self.number;
        self.number += calls.len() as u64;
        let db = self.db();
        let numbered = || (first..).zip(calls);
        let futures = numbered().map(|(number, (verb, fate))| {
            let call = verb.call(db, number);
            async move {
                match fate {
                    Fate::Awaited => Some(call.await),
                    Fate::Dropped(polls) => poll_some(call, *polls).await,
                }
            }
        });
        let mut called = Vec::new();
        for ((number, (verb, fate)), answer) in numbered().zip(wait(join_all(futures))) {
            if *fate == Fate::Dropped(0) {
                continue;
            }
            let answers = answer.map(|answer| self.told(verb, number, answer)).transpose()?;
            let is_in_line = verb.is_in_line();
            called.push(Called { actions: verb.actions(number), answers, is_in_line });
        }
        let is_wipe = |called: &Called| called.actions.iter().any(|of| of.1 == Action::Wipe);
        let is_wiping = self.is_wiping || called.iter().any(is_wipe);
        self.is_wiping |= called.iter().any(|call| call.answers.is_none() && is_wipe(call));
        if let Some(watcher) = &mut self.watcher {
            // A range may overtake what waits for its keys, which is then never there.
            for call in called.iter().filter(|call| call.is_in_line || !is_wiping) {
                watcher.called(&call.actions, call.answers.as_deref().unwrap_or_default());
            }
        }
        self.oracle.called(&called)
    }

    /// What a call said, or that there was no room for it.
    fn told(
        &self,
        verb: &Verb,
        number: u64,
        answer: Result<Vec<Answer>>,
    ) -> std::result::Result<Vec<Answer>, String> {
        match answer {
            Err(error) if error.kind() == ErrorKind::Full && self.settings.holding.refuses() => {
                Ok(verb.refused(number))
            }
            answer => told("call", answer),
        }
    }

    /// What a key holds goes to another name, of another partition perhaps.
    fn rename(&mut self, space: Space, from: Key, to: Key) -> Verdict {
        self.settle()?;
        let get = Verb::Get { key: from };
        let get = if space == 0 { get } else { Verb::In(space, inner(get)) };
        self.together(&[(get, Fate::Awaited)])?;
        let key = |key: Key| space * KEYS + key;
        // It may be evicted, but it can have no other value.
        let held = self.oracle.decided(key(from)).flatten();
        let renamed = wait(async {
            let db = handle(self.db(), space).await?;
            db.rename(key_bytes(from), key_bytes(to)).await
        });
        let is_renamed = match renamed {
            Err(error) if error.kind() == ErrorKind::Full && self.settings.holding.refuses() => {
                return Ok(());
            }
            renamed => told("rename", renamed)?,
        };
        let called = if !is_renamed || from == to {
            vec![(key(from), Action::Get, Answer::Was(is_renamed))]
        } else {
            let held = held.ok_or("what was renamed was not there")?;
            vec![
                (key(from), Action::Exchange(None), Answer::Holds(Some(held))),
                (key(to), Action::Put(held), Answer::Done),
            ]
        };
        let actions = called.iter().map(|(key, action, _)| (*key, *action)).collect();
        let answers = Some(called.into_iter().map(|(_, _, answer)| answer).collect());
        self.oracle.called(&[Called { actions, answers, is_in_line: true }])
    }

    /// What was in it is gone, and what has its name later is another one.
    fn drop_space(&mut self, space: Space) -> Verdict {
        self.settle()?;
        let before = self.db().keyspaces().contains(&space_name(space));
        let old =
            if before { Some(told("keyspace", wait(handle(self.db(), space)))?) } else { None };
        let dropped = told("drop", wait(self.db().drop_keyspace(space_name(space))))?;
        // One whose making was begun by a future that was dropped may have come since.
        if before && !dropped {
            return Err(format!("a keyspace that was there: {before}, was dropped: {dropped}"));
        }
        if let Some(old) = old
            && !wait(old.put("k", "v"))
                .is_err_and(|error| error.kind() == ErrorKind::KeyspaceDropped)
        {
            return Err("a keyspace that was dropped takes a key".to_owned());
        }
        let keys = space * KEYS..(space + 1) * KEYS;
        let actions: Vec<_> = keys.map(|key| (key, Action::Wipe)).collect();
        let answers = Some(vec![Answer::Done; actions.len()]);
        self.oracle.called(&[Called { actions, answers, is_in_line: true }])
    }

    fn scan(&mut self, selection: &Selection) -> Verdict {
        if selection.limit.is_some() {
            // A key that goes away while a scan is under way counts for its limit all the same.
            self.settle()?;
        }
        let found = told("scan", wait(collect(self.db(), selection)))?;
        // A key may be evicted in between.
        if self.oracle.is_settled() && !self.settings.holding.evicts() {
            let counted = told("count", wait(count(self.db(), selection)))?;
            if counted != found.len() as u64 {
                return Err(format!("a scan has {} entries and counts {counted}", found.len()));
            }
        }
        let is_after = |a: &[u8], b: &[u8]| if selection.reverse { a < b } else { a > b };
        if !found.windows(2).all(|pair| is_after(&pair[1].0, &pair[0].0)) {
            return Err("a scan is out of order, or has a key twice".to_owned());
        }
        let mut matching: Vec<(Vec<u8>, Key)> = (0..KEYS)
            .map(|key| (key_bytes(key), key))
            .filter(|(bytes, _)| selection.matches(bytes))
            .collect();
        if let Some((bytes, _)) =
            found.iter().find(|(bytes, _)| !matching.iter().any(|(key, _)| key == bytes))
        {
            return Err(format!(
                "a scan has \"{}\", which it was not asked for",
                bytes.escape_ascii()
            ));
        }
        if selection.limit.is_some_and(|limit| found.len() > limit) {
            return Err(format!("a scan has {} entries, over its limit", found.len()));
        }
        let evicts = self.settings.holding.evicts();
        if selection.limit == Some(found.len()) || (selection.limit.is_some() && evicts) {
            // Nothing is said of keys behind the last one.
            matching
                .retain(|(bytes, _)| found.last().is_some_and(|(last, _)| !is_after(bytes, last)));
        }
        let (mut actions, mut answers) = (Vec::new(), Vec::new());
        for (bytes, key) in matching {
            let found = found.iter().find(|(found, _)| *found == bytes);
            actions.push((selection.space * KEYS + key, Action::Get));
            answers.push(match found {
                Some((_, None)) => Answer::Was(true),
                Some((_, value)) => Answer::Holds(*value),
                None => Answer::Was(false),
            });
        }
        self.oracle.called(&[Called { actions, answers: Some(answers), is_in_line: true }])
    }

    /// What a snapshot has is what a scan would have, and stays so.
    fn snapshot(&mut self) -> Verdict {
        if self.snapshots.len() > 2 {
            self.snapshots.remove(0);
        }
        let snapshot = told("snapshot", wait(self.db().snapshot()))?;
        let found = told("scan a snapshot", wait(collect_of(&snapshot, &ALL)))?;
        let (mut actions, mut answers) = (Vec::new(), Vec::new());
        for key in 0..KEYS {
            let bytes = key_bytes(key);
            let found = found.iter().find(|(found, _)| *found == bytes);
            actions.push((key, Action::Get));
            answers.push(Answer::Holds(found.and_then(|(_, value)| *value)));
        }
        if answers.iter().filter(|answer| **answer != Answer::Holds(None)).count() != found.len() {
            return Err("a snapshot has a key twice, or one that was never put".to_owned());
        }
        self.oracle.called(&[Called { actions, answers: Some(answers), is_in_line: true }])?;
        self.snapshots.push((snapshot, found));
        Ok(())
    }

    fn look_back(&mut self, which: u8, selection: &Selection, is_last: bool) -> Verdict {
        if self.snapshots.is_empty() {
            return Ok(());
        }
        let index = usize::from(which) % self.snapshots.len();
        let (snapshot, then) = &self.snapshots[index];
        let mut expected: Contents =
            then.iter().filter(|(key, _)| selection.matches(key)).cloned().collect();
        if selection.reverse {
            expected.reverse();
        }
        expected.truncate(selection.limit.unwrap_or(usize::MAX));
        if selection.keys_only {
            for (_, value) in &mut expected {
                *value = None;
            }
        }
        let found = told("scan a snapshot", wait(collect_of(snapshot, selection)))?;
        if found != expected {
            return Err(format!("a snapshot had {expected:?} and now has {found:?}"));
        }
        for key in 0..KEYS {
            let bytes = key_bytes(key);
            let value = told("get of a snapshot", wait(snapshot.get(&bytes)))?;
            let value = value.map(|value| Value::of(&value));
            let expected = then.iter().find(|(key, _)| *key == bytes);
            if value != expected.and_then(|(_, value)| *value) {
                return Err(format!("key {key} of a snapshot was {expected:?} and is {value:?}"));
            }
        }
        if is_last {
            self.snapshots.remove(index);
        }
        Ok(())
    }

    fn compact_some(&mut self, partition: u32, files: u16) -> Verdict {
        let dir = format!("partition-{partition:03}/");
        let ids: Vec<u64> = self
            .store
            .data_files()
            .iter()
            .filter_map(|file| file.strip_prefix(&dir)?.strip_suffix(".data")?.parse().ok())
            .enumerate()
            .filter(|(index, _)| files >> (index % 16) & 1 == 1)
            .map(|(_, id)| id)
            .collect();
        if self.store.list(&dir).is_empty() {
            return Ok(()); // There is no such partition.
        }
        told("compact", wait(self.db().compact_files(partition as usize, &ids))).map(drop)
    }

    fn abandon(&mut self, what: Task, polls: u8) -> Verdict {
        let db = self.db();
        let ended = wait(async {
            match what {
                Task::Scanning => {
                    let mut scan = db.scan();
                    let ended = poll_some(scan.next().boxed(), polls).await;
                    ended.flatten().map(|entry| entry.map(drop))
                }
                Task::ScanningKeys => {
                    let mut keys = db.scan().keys();
                    let ended = poll_some(keys.next().boxed(), polls).await;
                    ended.flatten().map(|key| key.map(drop))
                }
                Task::Flushing => poll_some(db.sync().boxed(), polls).await,
                Task::Compacting => {
                    let ended = poll_some(db.compact().boxed(), polls).await;
                    ended.map(|compacted| compacted.map(drop))
                }
                Task::Cancelling => poll_some(db.cancel_compaction().boxed(), polls).await,
            }
        });
        told("abandoned", ended.transpose()).map(drop)
    }

    /// Nothing is in flight after it, and everything is durable.
    fn settle(&mut self) -> Verdict {
        told("sync", wait(self.db().sync()))?;
        self.is_wiping = false;
        self.oracle.settle();
        Ok(())
    }

    /// After it the state of every key is known.
    fn check(&mut self) -> Verdict {
        self.settle()?;
        self.evicted()?;
        self.followed()?;
        for space in 0..SPACES {
            let is_there = space == 0 || self.db().keyspaces().contains(&space_name(space));
            if !is_there {
                let keys = space * KEYS..(space + 1) * KEYS;
                let actions: Vec<_> = keys.map(|key| (key, Action::Get)).collect();
                let answers = Some(vec![Answer::Was(false); actions.len()]);
                self.oracle.called(&[Called { actions, answers, is_in_line: true }])?;
                continue;
            }
            self.scan(&Selection { space, ..ALL })?;
            self.scan(&Selection { space, reverse: true, keys_only: true, ..ALL })?;
            let all = Verb::GetMany { keys: (0..KEYS).collect() };
            let all = if space == 0 { all } else { Verb::In(space, inner(all)) };
            self.together(&[(all, Fate::Awaited)])?;
        }
        let present =
            self.oracle.present().ok_or("bug of the model: a key that was read is undecided")?;
        self.work_off()?;
        let stats = self.db().stats().total();
        if stats.keys as usize != present.len() {
            return Err(format!("stats count {} keys, there are {}", stats.keys, present.len()));
        }
        if present.is_empty() && stats.live_bytes > 0 {
            return Err(format!("stats have {} live bytes of no key", stats.live_bytes));
        }
        self.counted()
    }

    /// What stats count is no more than the log. Compaction may be at it, and they are read one by one: once in many looks is
    /// enough.
    fn counted(&self) -> Verdict {
        let look = || {
            let stats = self.db().stats().total();
            let (live, log) = (stats.live_bytes, stats.log_bytes);
            let counted = live + stats.shadow_bytes + stats.dead_bytes;
            if counted <= log {
                return Ok(());
            }
            std::thread::yield_now();
            Err(format!("stats have {live} live of {counted} bytes in a log of {log}"))
        };
        (0..1000).map(|_| look()).find(Result::is_ok).unwrap_or_else(look)
    }

    /// Whoever watched or followed has what there is.
    fn followed(&mut self) -> Verdict {
        let db = self.db.as_ref().expect("open between any two operations");
        self.copy.catch_up(db, self.is_retained)?;
        let watcher = self.watcher.as_mut().expect("as long as the store is open");
        if self.settings.holding.evicts() {
            // A key may go while somebody looks.
            return watcher.listen();
        }
        self.copy.check(db)?;
        watcher.check(db)
    }

    /// Waits until the store holds no more than it may.
    fn evicted(&self) -> Verdict {
        let (_, Some(bound)) = self.settings.holding.bound() else { return Ok(()) };
        let stats = || self.db().stats();
        let shares =
            |index: u64, count: u64| (bound / count + u64::from(index < bound % count)).max(1);
        let is_over = || {
            let partitions = stats().partitions;
            let count = partitions.len() as u64;
            let mut shares = (0..).map(|index| shares(index, count));
            partitions
                .iter()
                .any(|partition| shares.next().is_some_and(|share| partition.keys > share))
        };
        for _ in 0..10_000 {
            if !self.settings.holding.evicts() || !is_over() {
                return Ok(());
            }
            told("sync", wait(self.db().sync()))?;
        }
        Err(format!("{} keys are not evicted down to {bound}", stats().total().keys))
    }

    fn reopen(&mut self, how: &How, between: Between, settings: &Settings) -> Verdict {
        let is_written_meanwhile = matches!(how, How::ClosedUnder(_));
        // What is encrypted for the first time gets longer.
        let is_growing = self.db().stats().total().files_other_key > 0
            || settings.encrypting.is_first_key(&self.store);
        let evicts = self.settings.holding.evicts() || settings.holding.evicts();
        let is_same = !is_written_meanwhile && !evicts && !is_growing;
        let live_before = self.live_bytes().filter(|_| is_same);
        self.watcher.as_mut().expect("as long as the store is open").listen()?;
        self.watcher = None;
        self.close(how)?;
        self.settings = settings.clone();
        self.oracle.set_vanishing(settings.holding.evicts());
        let options = || options_of(&self.settings, &self.store, &self.clock, self.is_retained);
        match between {
            Between::Nothing => {}
            Between::Verified => self.verify(options())?,
            Between::Repaired => {
                // Whoever verifies has waited for the closing store.
                self.verify(options())?;
                let before = self.store.image();
                let report = told("repair", wait(options().repair(self.store.path())))?;
                let after = self.store.image();
                if report.is_changed() || after != before {
                    let files =
                        before.iter().filter(|file| !after.contains_key(file.0)).chain(&after);
                    let differ = files.filter(|(name, _)| before.get(*name) != after.get(*name));
                    let differ: Vec<_> = differ.map(|(name, _)| name).collect();
                    return Err(format!("repair changed {differ:?} of a sound store: {report:?}"));
                }
            }
            Between::OpenDropped => {
                let opening = options().open(self.store.path()).boxed();
                drop(wait(poll_some(opening, 1)));
            }
        }
        let db = told("open", self.store.try_open(options()))?;
        self.watcher = Some(Watcher::begin(&db, events_of(&self.settings))?);
        self.db = Some(db);
        let live = self.live_bytes();
        if live_before.is_some() && live != live_before {
            return Err(format!("live bytes were {live_before:?} and are {live:?}"));
        }
        Ok(())
    }

    /// Waits until the keydir is rid of what ranges hide, which counts as live until then.
    fn work_off(&self) -> Verdict {
        let mut rounds = 0;
        while self.db().stats().total().range_dels_pending > 0 {
            told("sync", wait(self.db().sync()))?;
            std::thread::yield_now();
            rounds += 1;
            if rounds > 1_000_000 {
                return Err("a range is never worked off".to_owned());
            }
        }
        Ok(())
    }

    /// Live bytes, while nothing can change them.
    fn live_bytes(&self) -> Option<u64> {
        self.work_off().ok()?;
        self.oracle.is_settled().then(|| self.db().stats().total().live_bytes)
    }

    fn close(&mut self, how: &How) -> Verdict {
        let db = self.db.take().expect("open between any two operations");
        match how {
            How::Closed => told("close", wait(db.close()))?,
            How::ClosedTwice => {
                let (first, second) = wait(futures::future::join(db.close(), db.close()));
                told("close", first.and(second))?;
                told("close again", wait(db.close()))?;
            }
            How::ClosedUnder(verbs) => {
                let first = self.number;
                self.number += verbs.len() as u64;
                let calls = (first..).zip(verbs).map(|(number, verb)| verb.call(&db, number));
                let (answers, closed) = wait(futures::future::join(join_all(calls), db.close()));
                told("close", closed)?;
                let mut called = Vec::new();
                for ((number, verb), answer) in (first..).zip(verbs).zip(answers) {
                    let answers = match answer {
                        Err(error) if error.kind() == ErrorKind::Closed => None,
                        answer => Some(self.told(verb, number, answer)?),
                    };
                    let is_in_line = verb.is_in_line();
                    called.push(Called { actions: verb.actions(number), answers, is_in_line });
                }
                self.oracle.called(&called)?;
            }
            How::CloseDropped => drop(wait(poll_some(db.close().boxed(), 1))),
            How::Killed if self.store.is_sim() => {
                self.store = self.store.on(self.store.disk().kill());
            }
            How::LetGo | How::Killed => {}
        }
        if matches!(how, How::Closed | How::ClosedTwice | How::ClosedUnder(_) | How::CloseDropped) {
            let refused = wait(db.get("k"));
            if !refused.is_err_and(|error| error.kind() == ErrorKind::Closed) {
                return Err("a closed store answers".to_owned());
            }
        }
        for (snapshot, _) in self.snapshots.drain(..) {
            let is_open = matches!(how, How::LetGo | How::Killed);
            let refused = wait(snapshot.get("a"));
            if !is_open && !refused.is_err_and(|error| error.kind() == ErrorKind::Closed) {
                return Err("a snapshot of a closed store answers".to_owned());
            }
        }
        drop(db);
        self.oracle.settle();
        Ok(())
    }

    fn verify(&self, options: Options) -> Verdict {
        let report = told("verify", wait(options.verify(self.store.path())))?;
        if report.is_sound() { Ok(()) } else { Err(format!("not sound: {:?}", report.damage)) }
    }

    fn end(&mut self) -> Verdict {
        self.check()?;
        let settings = self.settings.clone();
        self.reopen(&How::Closed, Between::Verified, &settings)?;
        self.check()?;
        told("close", wait(self.db().close()))
    }
}

fn options_of(settings: &Settings, store: &Store, clock: &SimClock, is_retained: bool) -> Options {
    let options = settings.options(store, clock);
    if is_retained { options.changes_retention_bytes(u64::MAX) } else { options }
}

/// How many events a watcher has room for.
fn events_of(settings: &Settings) -> usize {
    if settings.open_files < 6 { settings.open_files } else { 1 << 20 }
}

/// The result in words.
fn told<T>(what: &str, result: Result<T>) -> std::result::Result<T, String> {
    result.map_err(|error| format!("{what}: {:?}: {error}", error.kind()))
}

/// The output, if it is there after so many polls.
pub(crate) async fn poll_some<F: Future + Unpin>(mut future: F, polls: u8) -> Option<F::Output> {
    for _ in 0..polls {
        let mut polled = None;
        std::future::poll_fn(|cx| {
            if polled.is_some() {
                return Poll::Ready(());
            }
            polled = Some(Pin::new(&mut future).poll(cx));
            if matches!(polled, Some(Poll::Ready(_))) {
                return Poll::Ready(());
            }
            // Let others have a turn.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        if let Some(Poll::Ready(output)) = polled {
            return Some(output);
        }
    }
    None
}

/// Keys in the order they came, with values unless only keys were asked for.
pub(crate) type Contents = Vec<(Vec<u8>, Option<Value>)>;

/// What can be scanned.
pub(crate) trait Scanned {
    fn scan(&self) -> Scan;
}

impl Scanned for Db {
    fn scan(&self) -> Scan {
        Db::scan(self)
    }
}

impl Scanned for Snapshot {
    fn scan(&self) -> Scan {
        Snapshot::scan(self)
    }
}

pub(crate) async fn collect(db: &Db, selection: &Selection) -> Result<Contents> {
    collect_of(&handle(db, selection.space).await?, selection).await
}

async fn collect_of(of: &impl Scanned, selection: &Selection) -> Result<Contents> {
    let Some(len) = selection.pages_of else { return collect_at_once(of, selection).await };
    let mut found = Vec::new();
    let mut cursor: Option<Cursor> = None;
    while selection.limit.is_none_or(|limit| found.len() < limit) {
        let left = selection.limit.map_or(usize::MAX, |limit| limit - found.len());
        let scan = scan(of, selection).limit(len.min(left));
        let next = if selection.keys_only {
            let Page { entries, next, .. } = scan.keys().page(cursor.as_ref()).await?;
            found.extend(entries.into_iter().map(|key| (key.to_vec(), None)));
            next
        } else {
            let Page { entries, next, .. } = scan.page(cursor.as_ref()).await?;
            let owned = |(key, value): (Bytes, Bytes)| (key.to_vec(), Some(Value::of(&value)));
            found.extend(entries.into_iter().map(owned));
            next
        };
        let Some(next) = next else { break };
        cursor = Some(next.to_string().parse()?);
    }
    Ok(found)
}

/// How many keys there are.
async fn count(db: &Db, selection: &Selection) -> Result<u64> {
    let db = &handle(db, selection.space).await?;
    if (Selection { space: 0, ..selection.clone() }) == ALL {
        return db.count().await;
    }
    let scan = scan(db, selection);
    let scan = scan.limit(selection.limit.unwrap_or(usize::MAX));
    if selection.keys_only { scan.keys().count().await } else { scan.count().await }
}

async fn collect_at_once(of: &impl Scanned, selection: &Selection) -> Result<Contents> {
    let mut scan = scan(of, selection);
    if let Some(limit) = selection.limit {
        scan = scan.limit(limit);
    }
    if selection.keys_only {
        return drain(scan.keys(), |key| (key.to_vec(), None)).await;
    }
    drain(scan, |(key, value)| (key.to_vec(), Some(Value::of(&value)))).await
}

/// All but its limit.
fn scan(of: &impl Scanned, selection: &Selection) -> Scan {
    let mut scan = of.scan();
    if let Some((key, len)) = selection.prefix {
        let key = key_bytes(key);
        scan = scan.prefix(&key[..len.min(key.len())]);
    }
    if (selection.from, selection.to) != (Edge::Open, Edge::Open) {
        scan = scan.range((selection.from.bound(), selection.to.bound()));
    }
    if selection.reverse {
        scan = scan.reverse();
    }
    scan
}

async fn drain<T, U>(
    mut stream: impl Stream<Item = Result<T>> + Unpin,
    owned: impl Fn(T) -> U,
) -> Result<Vec<U>> {
    let mut found = Vec::new();
    while let Some(entry) = stream.next().await {
        found.push(owned(entry?));
    }
    Ok(found)
}

impl Selection {
    fn matches(&self, key: &[u8]) -> bool {
        let prefix = self.prefix.is_none_or(|(of, len)| {
            let of = key_bytes(of);
            key.starts_with(&of[..len.min(of.len())])
        });
        let from = match self.from.bound() {
            Bound::Unbounded => true,
            Bound::Included(from) => key >= &from[..],
            Bound::Excluded(from) => key > &from[..],
        };
        let to = match self.to.bound() {
            Bound::Unbounded => true,
            Bound::Included(to) => key <= &to[..],
            Bound::Excluded(to) => key < &to[..],
        };
        prefix && from && to
    }
}

impl Edge {
    fn bound(self) -> Bound<Vec<u8>> {
        match self {
            Edge::Open => Bound::Unbounded,
            Edge::With(key) => Bound::Included(key_bytes(key)),
            Edge::Without(key) => Bound::Excluded(key_bytes(key)),
        }
    }
}
