//! File systems with habits of their own: tmpfs, which has no disk, and overlayfs, which containers have.
//!
//! Without these tests a flag that one of them does not know, or a file that changes its inode when it is
//! first written to, would be met by users.

use std::path::Path;

use futures::future::join_all;
use ringcask::{Durability, Io, Options};

use crate::support::loop_mount::Mount;
use crate::support::model::{Lens, Model};
use crate::support::{close, drivers, open, verify_sound, wait};

fn options(io: &Io) -> Options {
    Options::new().partitions(2).io(io.clone()).data_file_len_max(24 << 10)
}

/// A short life of a store: opened twice, with rotations and a compaction.
fn live(model: &Model, io: &Io, store: &Path) {
    for _ in 0..2 {
        let db = open(&options(io), store);
        model.check(&db);
        for round in 0..20 {
            let durability = if round % 3 == 0 { Durability::Sync } else { Durability::Buffered };
            let writes =
                (0..model.key_count()).map(|index| model.write(&db, index, durability, true));
            for written in wait(join_all(writes)) {
                written.unwrap();
            }
        }
        wait(db.compact()).unwrap();
        wait(db.sync()).unwrap();
        model.check(&db);
        let total = db.stats().total();
        assert!(total.rotations > 0 && total.compactions > 0, "the log never moved: {total:?}");
        close(&db).unwrap();
        verify_sound(store);
    }
    let db = open(&options(io), store);
    model.check(&db);
    close(&db).unwrap();
}

/// Without it tests of services that use a store would need a disk.
#[test]
fn a_store_lives_on_tmpfs() {
    for io in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let Some(mount) = Mount::new("tmpfs", "size=64m", &dir.path().join("tmpfs")) else {
            return;
        };
        live(&Model::new(40, Lens::Mixed), &io, &mount.path().join("store"));
    }
}

/// Without it a store in a container's own layer, or one that came with its image, might not open or
/// be two files at once.
#[test]
fn a_store_lives_on_overlayfs() {
    for io in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| dir.path().join(name));
        for layer in [&lower, &upper, &work] {
            std::fs::create_dir(layer).unwrap();
        }
        // One store comes with the lower layer, the other is made on top of it.
        let shipped = Model::new(40, Lens::Mixed);
        live(&shipped, &io, &lower.join("shipped"));
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let Some(mount) = Mount::new("overlay", &layers, &dir.path().join("merged")) else {
            return;
        };
        live(&shipped, &io, &mount.path().join("shipped"));
        live(&Model::new(40, Lens::Mixed), &io, &mount.path().join("store"));
        drop(mount);
        verify_sound(&lower.join("shipped"));
    }
}
