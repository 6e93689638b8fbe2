//! A store on the simulated disk, small enough for Miri: opened, filled, rotated, compacted, killed,
//! opened again. Everything between a caller's future and the bytes of a file is in it but the ring.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use futures::executor::block_on;
use ringcask::sim::{Cut, SimClock, SimDisk};
use ringcask::{Compaction, Db, Durability, Io, Options};

const KEYS: usize = if cfg!(miri) { 9 } else { 200 };

fn open(disk: &SimDisk, name: &str) -> Db {
    let options = Options::new()
        .io(Io::Sim(disk.clone()))
        .partitions(1)
        .pin_workers(false)
        .prewrite(false)
        .compaction(Compaction::off())
        .data_file_len_max(4096)
        // Miri has no clock that goes on while the machine sleeps.
        .clock(SimClock::new(1_000_000))
        // Each place in it takes Miri longer than the processor takes for all.
        .mailbox_requests_max(16)
        // Asked for, so that nobody asks the system how many there may be, which Miri has no answer to.
        .open_files_max(64);
    block_on(options.open(format!("/{name}"))).unwrap()
}

fn key(n: usize) -> String {
    format!("key {n:03}")
}

/// Even keys are overwritten, every third is deleted.
fn fill(db: &Db) {
    block_on(async {
        for n in 0..KEYS {
            db.put(key(n), vec![1; 600]).await.unwrap();
        }
        for n in (0..KEYS).step_by(2) {
            db.put(key(n), format!("new {n}")).durability(Durability::Buffered).await.unwrap();
        }
        for n in (0..KEYS).step_by(3) {
            assert!(db.del(key(n)).await.unwrap());
        }
    });
}

fn check(db: &Db) {
    block_on(async {
        let mut expected = Vec::new();
        for n in 0..KEYS {
            let value = match (n % 3, n % 2) {
                (0, _) => None,
                (_, 0) => Some(format!("new {n}").into_bytes()),
                _ => Some(vec![1; 600]),
            };
            assert_eq!(db.get(key(n)).await.unwrap().map(Vec::from), value);
            assert_eq!(db.contains_key(key(n)).await.unwrap(), value.is_some());
            expected.extend(value.map(|value| (key(n).into_bytes(), value)));
        }
        let found = db.get_many([key(1), key(3)]).await.unwrap();
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
        let mut scan = db.scan().prefix("key");
        let mut scanned = Vec::new();
        while let Some(entry) = scan.next().await {
            let (key, value) = entry.unwrap();
            scanned.push((key.to_vec(), value.to_vec()));
        }
        assert_eq!(scanned, expected);
    });
}

/// Breaks under Miri if a path of the engine does what Rust forbids, or leaks.
#[test]
fn a_store_is_filled_compacted_and_closed() {
    let disk = SimDisk::new(1);
    let db = open(&disk, "closed");
    fill(&db);
    check(&db);
    assert!(disk.list("/closed/partition-000").len() > 3, "the active file was changed");
    block_on(db.compact()).unwrap();
    check(&db);
    block_on(db.close()).unwrap();
    let db = open(&disk, "closed");
    check(&db);
    block_on(db.close()).unwrap();
}

/// Breaks as above, in recovery: of a store that was killed, and of one whose power was cut.
#[test]
fn a_store_is_killed_and_recovered() {
    let disk = SimDisk::new(2);
    let db = open(&disk, "killed");
    fill(&db);
    let killed = disk.kill();
    block_on(db.sync()).unwrap();
    let cut = disk.power_cut(Cut::DropUnsynced);
    block_on(db.close()).unwrap();
    for after in [killed, cut] {
        let db = open(&after, "killed");
        check(&db);
        block_on(db.close()).unwrap();
    }
}

/// A future that is dropped while its request is under way frees nothing twice and loses nothing.
#[test]
fn dropped_futures_leave_a_sound_store() {
    let db = open(&SimDisk::new(3), "dropped");
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    for n in 0..8 {
        let mut put = std::pin::pin!(db.put(key(n), vec![2; 300]).into_future());
        let _polled = put.as_mut().poll(&mut cx);
        let mut get = std::pin::pin!(db.get(key(n)));
        let _polled = get.as_mut().poll(&mut cx);
    }
    block_on(db.sync()).unwrap();
    for n in 0..8 {
        // Sent at its first poll, so it is done, dropped or not.
        assert_eq!(block_on(db.get(key(n))).unwrap().as_deref(), Some([2; 300].as_slice()));
    }
    block_on(db.close()).unwrap();
}
