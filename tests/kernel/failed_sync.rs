//! A device that has promised more than it can keep: writes are taken, syncs fail.
//!
//! Without this test a failed sync could be tried again, succeed because the kernel has forgotten
//! the pages it could not write, and acknowledge what is lost (D1).

use ringcask::{Durability, ErrorKind, Io, Options};

use crate::support::loop_mount::{FileSystem, LoopMount, Mount};
use crate::support::{MIB, close, drivers, open, wait};

fn fails_once(io: &Io) {
    // Dropped from the last to the first: store, file system, device.
    let outer = tempfile::tempdir().unwrap();
    // A file system in memory that is smaller than the image on it.
    let Some(thin) = Mount::new("tmpfs", "size=14m", &outer.path().join("thin")) else { return };
    let image = thin.path().join("image");
    let Some(mut mount) = LoopMount::with_image(FileSystem::Ext4, 64 * MIB, image) else { return };
    let options = Options::new().partitions(1).io(io.clone());
    let db = open(&options, &mount.store());
    let value = |number: usize| vec![number as u8; 64 << 10];

    let mut durable = 0;
    let error = loop {
        assert!(durable < 1000, "the device never filled up");
        let put = db.put(durable.to_string(), value(durable)).durability(Durability::Sync);
        match wait(put) {
            Ok(()) => durable += 1,
            Err(error) => break error,
        }
    };
    println!("{io:?}: after {durable} puts: {error}");
    assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
    assert!(durable > 0);

    // Never again, whatever the kernel says to a second sync; also when there is room.
    for round in 0..2 {
        for durability in [Durability::Sync, Durability::Buffered] {
            let error = wait(db.put("later", "x").durability(durability)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
        }
        assert_eq!(wait(db.sync()).unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(wait(db.del("0")).unwrap_err().kind(), ErrorKind::Poisoned);
        assert!(db.stats().total().poisoned.is_some());
        for number in 0..durable {
            let found = wait(db.get(number.to_string())).unwrap();
            assert!(found.is_some_and(|found| found == value(number)), "key {number}");
        }
        assert_eq!(wait(db.get("later")).unwrap(), None);
        if round == 0 {
            thin.remount("size=96m");
        }
    }
    assert_eq!(close(&db).unwrap_err().kind(), ErrorKind::Poisoned);
    drop(db);

    mount.remount();
    let db = open(&options, &mount.store());
    for number in 0..durable {
        let found = wait(db.get(number.to_string())).unwrap();
        assert!(found.is_some_and(|found| found == value(number)), "key {number}");
    }
    assert_eq!(wait(db.get("later")).unwrap(), None);
    wait(db.put("later", "x")).unwrap();
    close(&db).unwrap();
}

/// Without it see above: "a sync failed" has to be the last thing a partition learns.
#[test]
fn d1_a_failed_sync_is_final() {
    drivers().iter().for_each(fails_once);
}
