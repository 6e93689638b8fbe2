//! A file system that goes read-only under an open store, as ext4 does when it meets an error.
//!
//! Without this test the store could take writes that nobody will ever find again, or refuse to be read.

use std::path::{Path, PathBuf};

use ringcask::{Durability, ErrorKind, Io, Options};

use crate::support::loop_mount::{FileSystem, LoopMount};
use crate::support::model::{Lens, Model};
use crate::support::{close, drivers, open, skip, wait};

/// The file that makes ext4 believe that it found an error.
fn trigger(mount: &LoopMount) -> PathBuf {
    let device = std::fs::canonicalize(Path::new("/sys/dev/block").join(mount.device())).unwrap();
    Path::new("/sys/fs/ext4").join(device.file_name().unwrap()).join("trigger_fs_error")
}

fn goes_read_only(io: &Io) {
    let kind = FileSystem::Ext4;
    let options = "loop,errors=remount-ro";
    let Some(mut mount) = LoopMount::with_options(kind, kind.usual_len(), options) else { return };
    let trigger = trigger(&mount);
    if !trigger.exists() {
        return skip(&format!("{} is not there", trigger.display()));
    }
    let options = Options::new().partitions(2).io(io.clone()).data_file_len_max(64 << 10);
    let model = Model::new(40, Lens::Mixed);
    let db = open(&options, &mount.store());
    for index in 0..model.key_count() {
        wait(model.write(&db, index, Durability::Sync, true)).unwrap();
    }
    std::fs::write(trigger, "1").unwrap();
    for round in 0..3 {
        for index in 0..model.key_count() {
            let durability = if round == 1 { Durability::Buffered } else { Durability::Sync };
            let error = wait(model.write(&db, index, durability, false)).unwrap_err();
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::Io | ErrorKind::Poisoned), "{error:?}");
            if (round, index) == (0, 0) {
                println!("{io:?}: {error:?}");
            }
        }
    }
    // Nothing that was refused is to be seen.
    model.check_refused(&db);
    println!("close: {:?}", close(&db));
    drop(db);
    let error = wait(options.clone().open(mount.store())).unwrap_err();
    assert!(error.to_string().contains("read-only"), "no reason is named: {error}");

    mount.remount();
    let db = open(&options, &mount.store());
    model.check_refused(&db);
    wait(model.write(&db, 0, Durability::Sync, true)).unwrap();
    close(&db).unwrap();
}

/// Without it see above.
#[test]
fn a_mount_that_goes_read_only_refuses_writes_and_is_read() {
    drivers().iter().for_each(goes_read_only);
}
