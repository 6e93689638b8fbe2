//! Backups: one moment of an open store, whole or not at all, and never written to by anybody afterwards.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use futures::future::{FutureExt, join, try_join_all};
use ringcask::sim::{Cut, SimClock};
use ringcask::{BackupReport, Compaction, Db, Durability, ErrorKind, Options, Result, WriteBatch};

use crate::snapshot::write_batches;
use crate::support::{
    ENOSPC, Store, bytes_of, contents, defer, each_disk, get, is_hint, on_wake, seed, wait,
};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn options(store: &Store) -> Options {
    store.options().data_file_len_max(8 << 10).compaction(Compaction::off())
}

fn create(store: &Store) -> Db {
    store.open_with(options(store).partitions(3))
}

fn put_all(db: &Db, from: u32, to: u32, value: &str) {
    let puts = (from..to).map(|n| db.put(format!("{n:04}"), format!("{value} {n}").repeat(9)));
    wait(try_join_all(puts)).unwrap();
}

fn back_up(db: &Db, to: &Store) -> Result<BackupReport> {
    wait(db.backup(to.path()))
}

/// Opens a store, looks, and closes it.
fn look(store: &Store) -> Contents {
    let db = store.open_with(options(store).create_if_missing(false));
    let found = contents(&db);
    wait(db.close()).unwrap();
    found
}

fn is_sound(store: &Store) -> bool {
    wait(store.options().verify(store.path())).unwrap().is_sound()
}

/// Breaks if a later change shows in the backup, or what is done to the opened backup in the store.
#[test]
fn a_backup_and_its_store_go_their_own_ways() {
    each_disk(|store| {
        let backup = store.beside();
        let clock = SimClock::new(1_700_000_000_000);
        let db = store.open_with(options(store).partitions(3).clock(clock.clone()));
        let space = wait(db.keyspace("space")).unwrap();
        put_all(&db, 0, 300, "old");
        put_all(&space, 0, 20, "of the keyspace");
        wait(db.put("brief", "v").ttl(Duration::from_secs(60))).unwrap();
        wait(db.put("long", vec![7; 100_000])).unwrap();
        wait(db.del("0007")).unwrap();
        wait(db.delete_prefix("02")).unwrap();
        let expected = contents(&db);
        assert_eq!(expected.len(), 201);
        let report = back_up(&db, &backup).unwrap();
        assert!(!report.is_incremental && report.files > 3, "{report:?}");
        assert_eq!((report.files_linked, report.files_copied), (report.files, 0));
        let copied = backup.image();
        put_all(&db, 0, 400, "new");
        wait(db.compact()).unwrap();
        let mut new = contents(&db);
        assert!(backup.image() == copied, "the store has written into its backup");
        let sealed: BTreeMap<String, Vec<u8>> =
            store.image().into_iter().filter(|(file, _)| copied.contains_key(file)).collect();
        assert!(is_sound(&backup));

        let opened = backup.open_with(options(&backup).clock(clock.clone()));
        assert_eq!(contents(&opened), expected);
        let of_space = wait(opened.keyspace("space")).unwrap();
        assert_eq!(contents(&of_space).len(), 20);
        clock.advance(Duration::from_secs(60));
        assert_eq!(get(&opened, "brief"), None);
        put_all(&opened, 100, 500, "another way");
        wait(opened.compact()).unwrap();
        wait(opened.clear()).unwrap();
        wait(opened.compact()).unwrap();
        wait(opened.close()).unwrap();
        for (file, bytes) in &sealed {
            if store.data_files().contains(file) {
                assert!(store.read(file) == *bytes, "the backup has written into {file}");
            }
        }
        assert!(new.remove(&b"brief"[..]).is_some());
        assert_eq!(contents(&db), new);
        wait(db.close()).unwrap();
        assert!(is_sound(store) && is_sound(&backup));
        assert_eq!(look(store), new);
    });
}

/// Breaks if a later backup copies what is there, keeps what does not count any more, or is not the later state.
#[test]
fn a_later_backup_into_the_same_place_takes_only_what_is_new() {
    each_disk(|store| {
        let backup = store.beside();
        let db = create(store);
        put_all(&db, 0, 300, "old");
        let first = back_up(&db, &backup).unwrap();
        let idle = back_up(&db, &backup).unwrap();
        assert!(idle.is_incremental);
        assert_eq!((idle.files, idle.files_kept), (first.files, first.files));
        assert_eq!((idle.files_linked, idle.files_removed), (0, 0));
        put_all(&db, 250, 350, "new");
        let second = back_up(&db, &backup).unwrap();
        assert_eq!(second.files_kept, first.files);
        assert!(second.files_linked > 0 && second.files_removed == 0);
        wait(db.del("0001")).unwrap();
        wait(db.compact()).unwrap();
        let expected = contents(&db);
        let third = back_up(&db, &backup).unwrap();
        assert!(third.files_removed > 0, "{third:?}");
        assert_eq!(backup.data_files().len() as u64, third.files);
        put_all(&db, 0, 400, "later");
        assert_eq!(look(&backup), expected);
        wait(db.close()).unwrap();
    });
}

/// S1, B1: breaks if partitions are sealed at moments of their own: the backup could have an effect without its cause,
/// or half of a batch.
#[test]
fn a_backup_of_a_busy_store_is_one_moment() {
    for store in [Store::uring(), Store::blocking()] {
        let db = store.open_with(options(&store).partitions(4).workers(2));
        let by_partition = |index: usize| {
            let mut keys = (0..).map(|n| format!("key {n}"));
            keys.find(|key| db.partition_of(key) == index).unwrap()
        };
        let keys: Vec<String> = (0..4).map(by_partition).collect();
        let batch_keys: Vec<String> = keys.iter().map(|key| format!("{key}, batch")).collect();
        let is_over = AtomicBool::new(false);
        let mut backups = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1_u64.. {
                    for key in &keys {
                        wait(db.put(key, n.to_le_bytes()).durability(Durability::Buffered))
                            .unwrap();
                    }
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                }
            });
            scope.spawn(|| write_batches(&db, &batch_keys, &is_over));
            let end = defer(|| is_over.store(true, Ordering::SeqCst));
            for _ in 0..12 {
                let before = get(&db, &keys[3]).as_ref().map_or(0, number);
                let backup = store.beside();
                back_up(&db, &backup).unwrap();
                backups.push((backup, before));
            }
            drop(end);
        });
        wait(db.close()).unwrap();
        for (backup, before) in backups {
            let opened = backup.open_with(options(&backup));
            let read = |key: &String| get(&opened, key).as_ref().map_or(0, number);
            let found: Vec<u64> = keys.iter().map(read).collect();
            assert!(found.windows(2).all(|pair| pair[0] >= pair[1]), "{found:?}");
            assert!(found[0] - found[3] <= 1 && found[3] >= before, "{found:?} after {before}");
            let batch: Vec<u64> = batch_keys.iter().map(read).collect();
            assert!(batch.iter().all(|value| *value == batch[0]), "half of a batch: {batch:?}");
            wait(opened.close()).unwrap();
        }
    }
}

fn number(value: &bytes::Bytes) -> u64 {
    u64::from_le_bytes(value[..].try_into().unwrap())
}

/// A waker that stops the thread that wakes, until this is dropped.
struct Stop {
    waker: Waker,
    stopped: mpsc::UnboundedReceiver<()>,
    _go: std::sync::mpsc::Sender<()>,
}

impl Stop {
    fn new() -> Stop {
        let (sender, stopped) = mpsc::unbounded();
        let (go, goes_on) = std::sync::mpsc::channel::<()>();
        let goes_on = Mutex::new(goes_on);
        let waker = on_wake(move || {
            let _nobody_waits = sender.unbounded_send(());
            let _dropped = goes_on.lock().unwrap().recv();
        });
        Stop { waker, stopped, _go: go }
    }

    fn poll<T>(&self, future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
        future.poll_unpin(&mut Context::from_waker(&self.waker))
    }

    /// Waits until a thread is stopped.
    fn stopped(&mut self) {
        wait(self.stopped.next()).unwrap();
    }
}

/// BA3: breaks if a file that had intents or a decision at the moment comes into a backup with the hint that it got when
/// they were settled. The hint does not say that there are any, so an open of the backup would leave the batch out.
#[test]
fn a_batch_that_is_on_its_way_is_completed_by_the_open_of_a_backup() {
    let seed = seed();
    let (mut rounds, mut completed) = (0, 0);
    while completed < 3 {
        rounds += 1;
        assert!(rounds < 200, "no moment was behind a decision");
        let store = Store::sim(seed.wrapping_add(rounds));
        let backup = store.beside();
        let db = store.open_with(options(&store).partitions(2).workers(1).prewrite(false));
        let keys = [0, 1].map(|partition| {
            let mut keys = (0..).map(|n| format!("key {n}"));
            keys.find(|key| db.partition_of(key) == partition).unwrap()
        });
        for key in &keys {
            wait(db.put(key, "before")).unwrap();
        }
        // A thread looks at its place first. If that is done at once the moment comes too early, and the round shows nothing.
        let mut making = db.backup(backup.path());
        let mut start = Stop::new();
        assert!(start.poll(&mut making).is_pending());
        start.stopped();
        drop(start);
        // Both partitions write their intents, and mark as soon as those are durable. If the one that decides is the last
        // one, the decision is in the file that it seals then.
        store.disk().stall_syncs(true);
        let batch = keys.iter().fold(WriteBatch::new(), |batch, key| batch.put(key, "after"));
        let mut writing = db.write(batch).boxed();
        assert!((&mut writing).now_or_never().is_none());
        while store.disk().stalled() < 2 {
            std::thread::yield_now();
        }
        let mut marks = Stop::new();
        let mut is_early = marks.poll(&mut making).is_ready();
        store.disk().stall_syncs(false);
        if !is_early {
            marks.stopped();
            // The last to mark cannot seal its file now, so nothing can be copied yet.
            is_early = (&mut making).now_or_never().is_some();
        }
        if is_early {
            continue;
        }
        drop(marks);
        wait(writing).unwrap();
        let has_hint = |partition: &str| store.list(partition).contains(&"000000001.hint".into());
        let mut looks = 0;
        while !["partition-000", "partition-001"].into_iter().all(has_hint) {
            wait(db.sync()).unwrap();
            looks += 1;
            assert!(looks < 1_000_000);
        }
        // Whoever answers has written the last hint to its end.
        wait(db.sync()).unwrap();
        wait(making).unwrap();
        wait(db.close()).unwrap();

        let by_log = backup.on(backup.disk().kill());
        by_log.spoil_hints();
        let files = by_log.data_files().len();
        let expected = look(&by_log);
        assert!(look(&backup) == expected, "round {rounds}: the hints of the backup hide a batch");
        if by_log.data_files().len() > files {
            assert!(expected.values().all(|value| value == b"after"));
            completed += 1;
        }
    }
}

/// BU2: breaks if what a crash leaves of a backup is taken for a whole one, or an earlier one is lost to a later one.
#[test]
fn cut_short_anywhere_it_is_the_old_one_or_the_new_one_or_none() {
    let seed = seed();
    let (mut refused, mut old, mut new) = (0, 0, 0);
    for is_copied in [false, true] {
        let store = Store::sim(seed);
        let backup = store.beside();
        if is_copied {
            store.disk().refuse_links();
        }
        let db = store.open_with(options(&store).partitions(2).workers(1));
        put_all(&db, 0, 60, "first");
        let mut states: Vec<Option<Contents>> = vec![None];
        for round in 0..2 {
            let now = contents(&db);
            states.push(Some(now.clone()));
            store.disk().record();
            let report = back_up(&db, &backup).unwrap();
            assert_eq!(report.files_copied > 0, is_copied);
            assert_eq!(report.is_incremental, round == 1);
            let moments = store.disk().moments();
            assert!(moments.len() > 20);
            for (index, moment) in moments.iter().enumerate() {
                let random = Cut::Random { seed: seed ^ index as u64 };
                let cuts = [Cut::DropUnsynced, Cut::KeepAll, random];
                let cut = cuts.map(|cut| (format!("{cut:?}"), moment.disk.power_cut(cut)));
                let killed = ("killed".to_owned(), moment.disk.kill());
                for (what, disk) in cut.into_iter().chain([killed]) {
                    let what = format!("backup {round}, operation {index}, {what}");
                    let (store, backup) = (store.on(disk.clone()), backup.on(disk));
                    let source = store.open_with(options(&store));
                    assert!(contents(&source) == now, "{what}: the store has lost something");
                    let before = backup.image();
                    match backup.try_open(options(&backup).create_if_missing(false)) {
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::NotAStore, "{what}: {error}");
                            assert!(round == 0, "{what}: the earlier backup is lost: {error}");
                            assert!(backup.image() == before);
                            refused += 1;
                            // It is gone on with.
                            back_up(&source, &backup)
                                .unwrap_or_else(|error| panic!("{what}: {error}"));
                            assert!(look(&backup) == now, "{what}: what it was made again");
                        }
                        Ok(opened) => {
                            let found = contents(&opened);
                            wait(opened.close()).unwrap();
                            assert!(is_sound(&backup), "{what}");
                            let state =
                                states.iter().position(|state| state.as_ref() == Some(&found));
                            match state {
                                Some(state) if state == round + 1 => new += 1,
                                Some(_) => old += 1,
                                None => panic!("{what}: {} keys, neither old nor new", found.len()),
                            }
                        }
                    }
                    wait(source.close()).unwrap();
                }
            }
            // The same without opening it in between.
            put_all(&db, 30, 90, "second");
            wait(db.del("0003")).unwrap();
            wait(db.compact()).unwrap();
        }
        wait(db.close()).unwrap();
    }
    assert!(refused > 20 && old > 20 && new > 10, "{refused} {old} {new}");
}

/// BU2: breaks if an incremental backup that was cut short keeps the next one from being made.
#[test]
fn an_incremental_backup_is_gone_on_with() {
    let store = Store::sim(seed());
    let backup = store.beside();
    let db = store.open_with(options(&store).partitions(2).workers(1));
    put_all(&db, 0, 60, "first");
    back_up(&db, &backup).unwrap();
    put_all(&db, 30, 90, "second");
    wait(db.compact()).unwrap();
    store.disk().record();
    back_up(&db, &backup).unwrap();
    let moments = store.disk().moments();
    wait(db.close()).unwrap();
    for moment in moments.iter().step_by(2) {
        let disk = moment.disk.power_cut(Cut::DropUnsynced);
        let (store, backup) = (store.on(disk.clone()), backup.on(disk));
        let db = store.open_with(options(&store));
        wait(db.put("third", "v")).unwrap();
        assert!(back_up(&db, &backup).unwrap().is_incremental);
        assert_eq!(look(&backup), contents(&db));
        wait(db.close()).unwrap();
    }
}

/// Breaks if compaction takes files away before they are copied.
#[test]
fn what_is_compacted_while_it_is_copied_is_in_the_backup() {
    let store = Store::sim(seed());
    store.disk().refuse_links();
    let backup = store.beside();
    let db = create(&store);
    put_all(&db, 0, 400, "old");
    let expected = contents(&db);
    // The time of a simulated disk is a thousandth.
    let copying = db.backup(backup.path()).bytes_per_sec(200_000);
    let change = async {
        let mut polls = 0;
        while backup.data_files().is_empty() {
            std::thread::yield_now();
            futures::pending!();
            polls += 1;
            assert!(polls < 100_000_000);
        }
        for n in 0..400 {
            db.del(format!("{n:04}")).await.unwrap();
        }
        db.compact().await.unwrap()
    };
    let copying = async {
        let mut copying = copying;
        // Both are polled in turn, however rarely they are woken.
        std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            copying.poll_unpin(cx)
        })
        .await
    };
    let (report, compacted) = wait(join(copying, change));
    assert!(report.unwrap().files_copied > 3 && compacted.files_removed > 3);
    assert_eq!(look(&backup), expected);
    assert!(contents(&db).is_empty());
    // What was kept for the backup goes.
    let mut looks = 0;
    while store.data_files().len() as u64 > db.stats().total().files {
        wait(db.put("k", "v")).unwrap();
        looks += 1;
        assert!(looks < 100_000, "{:?}", store.data_files());
    }
    wait(db.close()).unwrap();
}

#[test]
fn a_backup_that_nobody_waits_for_leaves_nothing_pinned() {
    each_disk(|store| {
        let db = create(store);
        for round in 0..20_usize {
            put_all(&db, 0, 50, "v");
            let backup = store.beside();
            let mut making = db.backup(backup.path());
            for _ in 0..round {
                if (&mut making).now_or_never().is_some() {
                    break;
                }
                std::thread::yield_now();
            }
            drop(making);
            let mut looks = 0;
            // Until it has let go of the directory, if it has come so far.
            while let Err(error) = back_up(&db, &backup) {
                assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
                std::thread::yield_now();
                looks += 1;
                assert!(looks < 1_000_000);
            }
            assert_eq!(look(&backup), contents(&db));
        }
        wait(db.compact()).unwrap();
        let mut looks = 0;
        while store.data_files().len() as u64 > db.stats().total().files {
            wait(db.put("k", "v")).unwrap();
            std::thread::sleep(Duration::from_millis(1));
            looks += 1;
            assert!(looks < 20_000, "{:?}", store.data_files());
        }
        wait(db.close()).unwrap();
    });
}

#[test]
fn closing_waits_for_a_backup_or_ends_it() {
    each_disk(|store| {
        for _ in 0..5 {
            let db = create(store);
            put_all(&db, 0, 200, "v");
            let backup = store.beside();
            let (made, closed) = wait(join(db.backup(backup.path()), db.close()));
            closed.unwrap();
            match made {
                Ok(_) => assert_eq!(look(&backup).len(), 200),
                Err(error) => assert!(error.is_closed(), "{error}"),
            }
            assert!(wait(db.backup(backup.path())).unwrap_err().is_closed());
        }
    });
}

/// F5: breaks if a backup that went its own way is taken for an earlier state of the store.
#[test]
fn a_backup_that_was_opened_is_a_store_of_its_own() {
    each_disk(|store| {
        let backup = store.beside();
        let db = create(store);
        put_all(&db, 0, 50, "v");
        back_up(&db, &backup).unwrap();
        let before = String::from_utf8(backup.read("MANIFEST")).unwrap();
        assert!(before.contains("backup_of"), "{before}");
        assert_eq!(look(&backup).len(), 50);
        let after = String::from_utf8(backup.read("MANIFEST")).unwrap();
        assert!(after.contains("instance") && !after.contains("backup_of"), "{after}");
        let error = back_up(&db, &backup).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("opened since"), "{error}");
        assert_eq!(look(&backup).len(), 50);
        assert!(String::from_utf8(backup.read("MANIFEST")).unwrap() == after);
        // It can be backed up itself, elsewhere.
        let opened = backup.open_with(options(&backup));
        let second = store.beside();
        back_up(&opened, &second).unwrap();
        let error = back_up(&db, &second).unwrap_err();
        assert!(error.to_string().contains("another copy of it"), "{error}");
        assert!(back_up(&opened, &second).unwrap().is_incremental);
        wait(opened.close()).unwrap();
        wait(db.close()).unwrap();
    });
}

#[test]
fn what_cannot_be_a_place_for_a_backup_is_left_alone() {
    each_disk(|store| {
        let db = create(store);
        put_all(&db, 0, 50, "v");
        let refused = |to: &std::path::Path, word: &str| {
            let error = wait(db.backup(to)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        };
        let image = store.image();
        refused(store.path(), "inside of it");
        refused(&store.path().join("below/it"), "inside of it");
        refused(&store.path().join("partition-000"), "inside of it");
        if !store.is_sim() {
            refused(store.path().parent().unwrap(), "around it");
        }
        assert!(store.image().keys().eq(image.keys()));
        let other = store.beside();
        let of_other = create(&other);
        refused(other.path(), "it holds a store");
        wait(of_other.close()).unwrap();
        let before = other.image();
        refused(other.path(), "it holds a store");
        assert!(other.image() == before);
        let foreign = store.beside();
        wait(db.backup(foreign.path())).unwrap();
        foreign.remove("MANIFEST");
        refused(foreign.path(), "it holds partition-000");
        if !store.is_sim() {
            let file = foreign.path().join("a file");
            std::fs::write(&file, "text").unwrap();
            refused(&file, "not a directory");
            assert_eq!(std::fs::read(&file).unwrap(), b"text");
        }
        wait(db.close()).unwrap();
    });
}

/// Breaks if a full disk leaves half of a backup that opens, takes the earlier one along, or stays full.
#[test]
fn a_full_disk_leaves_the_earlier_backup() {
    let store = Store::sim(seed());
    let backup = store.beside();
    let db = store.open_with(options(&store).partitions(2).workers(1));
    put_all(&db, 0, 100, "old");
    let expected = contents(&db);
    back_up(&db, &backup).unwrap();
    // Much more than fits into what is left, the reserves included.
    put_all(&db, 0, 3000, "new");
    wait(db.sync()).unwrap();
    wait(db.compact()).unwrap();
    // What was compacted goes a little later, and would be space.
    while store.data_files().len() as u64 > db.stats().total().files {
        wait(db.del("no such key")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    store.disk().refuse_links();
    let all = || store.used_bytes() + backup.used_bytes();
    let before = all();
    store.disk().capacity_bytes(Some(before + (30 << 10)));
    let first = store.beside();
    for to in [&backup, &first] {
        let error = back_up(&db, to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert!(all() < before + (20 << 10), "{} bytes are still taken", all() - before);
    }
    store.disk().clear_faults();
    assert_eq!(ENOSPC, 28);
    let error = first.try_open(options(&first)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAStore, "{error}");
    assert!(error.to_string().contains("incomplete"), "{error}");
    assert_eq!(look(&backup), expected);
    back_up(&db, &first).unwrap();
    assert_eq!(look(&first), contents(&db));
    wait(db.close()).unwrap();
}

#[test]
fn a_backup_is_restored_to_an_empty_place_only() {
    each_disk(|store| {
        let (backup, back) = (store.beside(), store.beside());
        let db = create(store);
        put_all(&db, 0, 200, "v");
        let expected = contents(&db);
        back_up(&db, &backup).unwrap();
        let restore =
            |from: &Store, to: &Store| wait(store.options().restore(from.path(), to.path()));
        let image = backup.image();
        let report = restore(&backup, &back).unwrap();
        assert_eq!(report.files_linked, report.files);
        let restored = back.open_with(options(&back));
        assert_eq!(contents(&restored), expected);
        put_all(&restored, 0, 300, "later");
        wait(restored.compact()).unwrap();
        wait(restored.close()).unwrap();
        assert!(backup.image() == image, "what was restored has written into the backup");
        // Again, elsewhere, of the same backup.
        let again = store.beside();
        restore(&backup, &again).unwrap();
        assert_eq!(look(&again), expected);
        for (from, to, kind, word) in [
            (&backup, &back, ErrorKind::InvalidArgument, "it holds a store"),
            (&backup, store, ErrorKind::InvalidArgument, "it holds a store"),
            (&backup, &backup, ErrorKind::InvalidArgument, "inside of it"),
            (&back, &store.beside(), ErrorKind::InvalidArgument, "not a backup"),
            (&store.beside(), &store.beside(), ErrorKind::NotAStore, "there is no backup"),
        ] {
            let error = restore(from, to).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
        wait(db.close()).unwrap();
        assert!(back_up(&db, &backup).is_err());
    });
}

/// H1: breaks if a backup needs the hints that it has, or that it has none.
#[test]
fn a_backup_without_hints_is_whole() {
    let random = &mut fastrand::Rng::with_seed(seed());
    let store = Store::sim(seed());
    let backup = store.beside();
    let db = create(&store);
    put_all(&db, 0, 1000, "v");
    wait(db.put("bytes", bytes_of(random, 3000))).unwrap();
    wait(db.compact()).unwrap();
    back_up(&db, &backup).unwrap();
    assert!(backup.image().keys().any(|file| is_hint(file)));
    backup.spoil_hints();
    assert_eq!(look(&backup), contents(&db));
    wait(db.close()).unwrap();
    assert!(is_sound(&store));
}

/// Breaks if a backup of a store that has another number of partitions by now has leftovers of the old ones, or is refused
/// because files of a partition that was made anew have the names of others.
#[test]
fn a_later_backup_has_the_partitions_that_the_store_has() {
    each_disk(|store| {
        let backup = store.beside();
        let mut db = create(store);
        put_all(&db, 0, 300, "first");
        back_up(&db, &backup).unwrap();
        for (round, count) in [5, 2, 4, 1, 3].into_iter().enumerate() {
            wait(db.close()).unwrap();
            wait(options(store).repartition(store.path(), count)).unwrap();
            db = store.open_with(options(store));
            put_all(&db, 100, 200, &format!("round {round}"));
            wait(db.del(format!("{round:04}"))).unwrap();
            if round == 2 {
                // One is left out.
                continue;
            }
            let expected = contents(&db);
            let report = back_up(&db, &backup).unwrap();
            assert!(report.is_incremental, "{report:?}");
            put_all(&db, 250, 300, "later");
            let is_partition = |name: &String| name.starts_with("partition-");
            let there = backup.list("").into_iter().filter(is_partition).count();
            assert_eq!(there as u32, count);
            assert!(is_sound(&backup));
            let restored = store.beside();
            std::fs::remove_dir_all(restored.path()).ok();
            wait(options(store).restore(backup.path(), restored.path())).unwrap();
            assert_eq!(look(&restored), expected, "{count} partitions");
        }
        wait(db.close()).unwrap();
    });
}

/// A store that was restored has gone its own way: it does not go on into the backup that it came from, and says so.
#[test]
fn a_restored_store_leaves_the_backup_that_it_came_from() {
    let store = Store::sim(seed());
    let (backup, restored, next) = (store.beside(), store.beside(), store.beside());
    let db = create(&store);
    put_all(&db, 0, 100, "v");
    back_up(&db, &backup).unwrap();
    wait(db.close()).unwrap();
    wait(options(&store).restore(backup.path(), restored.path())).unwrap();
    let db = restored.open_with(options(&restored));
    put_all(&db, 50, 60, "later");
    let before = backup.image();
    let error = back_up(&db, &backup).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let text = error.to_string();
    for part in ["the store that this one was restored from", "choose an empty directory"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(text.lines().count(), 1);
    assert!(backup.image() == before, "it was changed");
    // That of a stranger is told apart.
    let (stranger, foreign) = (store.beside(), store.beside());
    let other = stranger.open_with(options(&stranger).partitions(1));
    back_up(&other, &foreign).unwrap();
    wait(other.close()).unwrap();
    let text = back_up(&db, &foreign).unwrap_err().to_string();
    assert!(text.contains("a backup of another store"), "{text}");
    assert!(back_up(&db, &next).is_ok() && back_up(&db, &next).unwrap().is_incremental);
    let expected = contents(&db);
    wait(db.close()).unwrap();
    assert_eq!(look(&next), expected);
}
