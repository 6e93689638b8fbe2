//! Where a store is put: read-only mounts, other people's directories, links, files.
//!
//! Without these tests the first error a new user sees could be the one nobody has read.

use std::os::unix::fs::PermissionsExt;

use ringcask::{Error, ErrorKind, Options};
use rustix::fs::{Gid, Uid};

use crate::child::{Child, command, say, task};
use crate::support::loop_mount::{FileSystem, LoopMount};
use crate::support::{close, drivers, is_root, open, wait};

fn refusal(path: &std::path::Path) -> Error {
    let error = wait(Options::new().open(path)).unwrap_err();
    println!("{error:?}");
    assert!(error.to_string().contains(&path.display().to_string()), "no path is named: {error}");
    error
}

/// Without it a store on a mount that went read-only fails with a bare errno.
#[test]
fn a_read_only_mount_is_named() {
    let Some(mount) = LoopMount::new(FileSystem::Ext4, FileSystem::Ext4.usual_len()) else {
        return;
    };
    let db = open(&Options::new(), &mount.store());
    wait(db.put("key", "value")).unwrap();
    close(&db).unwrap();
    drop(db);
    mount.remount_read_only();
    for path in [mount.store(), mount.path().join("new")] {
        let error = refusal(&path);
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("mounted read-only"), "no reason is named: {error}");
    }
}

/// Without it a service under its own user would not learn which directory is not its own.
#[test]
fn a_directory_of_somebody_else_is_named() {
    if !is_root() {
        return;
    }
    for io in drivers() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let store = dir.path().join("store");
        close(&open(&Options::new(), &store)).unwrap();
        let said = Child::start(command(&[], "nobody", &store, &io)).finish();
        println!("{said:#?}");
        assert_eq!(said.len(), 2, "{said:#?}");
        for line in said {
            assert!(line.starts_with("Io: "), "{line}");
            assert!(line.contains("check the owner and mode"), "no cure is named: {line}");
            assert!(line.contains(&dir.path().display().to_string()), "no path is named: {line}");
        }
    }
}

/// The child: opens what it may not, as a user who owns nothing.
pub(crate) fn nobody() {
    let task = task();
    // Of this thread only, which is enough: threads that are started later inherit it.
    rustix::thread::set_thread_gid(Gid::from_raw(65_534)).unwrap();
    rustix::thread::set_thread_uid(Uid::from_raw(65_534)).unwrap();
    for path in [task.store.clone(), task.store.with_file_name("new")] {
        let error = wait(Options::new().io(task.io.clone()).open(path)).unwrap_err();
        say(&format!("{error:?}"));
    }
}

/// Without it a store behind a link, as deployments like them, could be created beside it, or be
/// open twice.
#[test]
fn a_linked_directory_is_the_store_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (store, link) = (dir.path().join("store"), dir.path().join("link"));
    std::fs::create_dir(&store).unwrap();
    std::os::unix::fs::symlink(&store, &link).unwrap();
    let db = open(&Options::new(), &link);
    wait(db.put("key", "value")).unwrap();
    let error = wait(Options::new().open(&store)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    close(&db).unwrap();
    let db = open(&Options::new().create_if_missing(false), &store);
    assert!(wait(db.contains_key("key")).unwrap());
    close(&db).unwrap();
}

/// Without it the path of a file, or one below a file, fails with a bare errno, or worse: the file
/// is touched.
#[test]
fn a_file_is_not_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "somebody's").unwrap();
    let error = refusal(&file);
    assert_eq!(error.kind(), ErrorKind::NotAStore, "{error}");
    let error = refusal(&file.join("below"));
    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::NotAStore), "{error}");
    let dangling = dir.path().join("dangling");
    std::os::unix::fs::symlink(dir.path().join("nowhere"), &dangling).unwrap();
    let error = refusal(&dangling);
    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::NotAStore), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"somebody's");
}
