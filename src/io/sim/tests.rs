//! The simulated disk forgets what a real one may forget, and nothing else.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::poll;

use super::{Cut, KeptBytes, KeptNames, OpKind, SimDisk};
use crate::io::Sharing;
use crate::io::{Disk, Driver, File, Fs, WriteMode};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A disk with one durable file `/a` of these bytes, open.
fn planted(seed: u64, bytes: &[u8]) -> (SimDisk, Fs, Arc<File>) {
    let disk = SimDisk::new(seed);
    disk.write_file("/a", bytes).unwrap();
    let fs = Fs::sim(disk.clone());
    let file = fs.open_write(Path::new("/a")).unwrap();
    (disk, fs, file)
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn after(disk: &SimDisk, cut: Cut) -> Vec<u8> {
    disk.power_cut(cut).read_file("/a").unwrap()
}

fn dsync(disk: &SimDisk, file: &Arc<File>, bytes: &[u8], offset: u64) -> io::Result<()> {
    let (file, bytes) = (Arc::clone(file), bytes.to_vec());
    let engine = async move |disk: Disk| disk.write(&file, bytes, offset, WriteMode::Dsync).await.0;
    Driver::Sim(disk.clone()).run(engine).unwrap()
}

#[test]
fn q1_a_sync_covers_what_was_done_when_it_was_submitted() {
    for seed in 0..20 {
        let (disk, _, file) = planted(seed, b"");
        let on = disk.clone();
        let engine = async move |disk: Disk| {
            let mut write = disk.write(&file, vec![1; 8], 0, WriteMode::Plain);
            let done = poll!(&mut write).is_ready();
            let mut sync = disk.sync(&file);
            sync.as_mut().await.unwrap();
            let durable = after(&on, Cut::DropUnsynced).len();
            assert_eq!(durable, if done { 8 } else { 0 }, "seed {seed}");
            disk.sync(&file).await.unwrap();
            assert_eq!(after(&on, Cut::DropUnsynced).len(), 8);
        };
        Driver::Sim(disk).run(engine).unwrap();
    }
}

#[test]
fn q2_dsync_makes_only_its_own_range_durable() {
    let (disk, _, file) = planted(1, b"");
    file.write_all_at(&[1; 1000], 0).unwrap();
    dsync(&disk, &file, &[2; 100], 600).unwrap();
    let mut expected = vec![0; 600];
    expected.extend([2; 100]);
    assert_eq!(after(&disk, Cut::DropUnsynced), expected, "the bytes before were lost");
    let kept = after(&disk, Cut::KeepWrites(1));
    assert_eq!([kept[0], kept[650], kept[999]], [1, 2, 1], "the older write does not undo it");
    for seed in 0..200 {
        let random = after(&disk, Cut::Random { seed });
        assert_eq!(random[600..700], [2; 100], "seed {seed}");
    }
}

#[test]
fn q2_dsync_behind_a_cut_survives_it() {
    let (disk, _, file) = planted(1, &[9; 2000]);
    file.write_all_at(&[1; 2000], 0).unwrap();
    file.set_len(100).unwrap();
    dsync(&disk, &file, &[2; 10], 200).unwrap();
    for seed in 0..200 {
        let random = after(&disk, Cut::Random { seed });
        assert_eq!(random[100..200], [0; 100], "seed {seed}: cut bytes do not come back");
        assert_eq!(random[200..210], [2; 10], "seed {seed}");
        assert_eq!(random.len(), 210, "seed {seed}");
    }
}

#[test]
fn q3_names_are_lost_without_a_directory_sync() {
    let (disk, fs, file) = planted(1, b"old");
    fs.create_dir(Path::new("/d")).unwrap();
    let new = fs.create_new(Path::new("/b")).unwrap();
    new.write_all_at(b"new", 0).unwrap();
    new.sync_all().unwrap();
    drop((file, new));
    assert_eq!(disk.power_cut(Cut::DropUnsynced).list("/"), ["a"]);

    fs.sync_dir(Path::new("/")).unwrap();
    fs.rename(Path::new("/b"), Path::new("/a")).unwrap();
    let cut = disk.power_cut(Cut::DropUnsynced);
    assert_eq!(cut.list("/"), ["a", "b", "d"]);
    assert_eq!(cut.read_file("/a").unwrap(), b"old", "the rename was not synced");
    for seed in 0..50 {
        let random = disk.power_cut(Cut::Random { seed });
        let renamed = random.list("/").len() == 2;
        assert_eq!(random.read_file("/a").unwrap(), if renamed { b"new" } else { b"old" });
    }
    fs.sync_dir(Path::new("/")).unwrap();
    assert_eq!(after(&disk, Cut::DropUnsynced), b"new");

    fs.remove_file(Path::new("/a")).unwrap();
    assert_eq!(after(&disk, Cut::DropUnsynced), b"new", "an unlinked file comes back");
    assert!(disk.kill().read_file("/a").is_none());
}

#[test]
fn q4_every_sector_has_the_content_of_some_moment() {
    let (disk, _, file) = planted(1, &[0; 2048]);
    file.write_all_at(&[1; 2048], 0).unwrap();
    file.write_all_at(&[2; 1024], 512).unwrap();
    let (mut mixed, mut torn) = (false, false);
    for seed in 0..300 {
        let bytes = after(&disk, Cut::Random { seed });
        assert_eq!(bytes.len(), 2048);
        let sectors: Vec<_> = bytes.chunks(512).collect();
        let whole = sectors.iter().filter(|part| part.iter().all(|byte| *byte == part[0])).count();
        assert!(whole >= 3, "seed {seed}: at most one sector is torn");
        torn |= whole == 3;
        mixed |= sectors[0][0] == 0 && sectors[1][0] == 2;
        assert!(!bytes[..512].contains(&2));
    }
    assert!(mixed && torn, "the policy reaches what it is for");
}

#[test]
fn q4_lengths_survive_apart_from_bytes() {
    let (disk, _, file) = planted(1, b"");
    file.write_all_at(&[1; 1024], 0).unwrap();
    let cuts: Vec<_> = (0..100).map(|seed| after(&disk, Cut::Random { seed })).collect();
    assert!(cuts.iter().any(|bytes| bytes.len() == 1024 && bytes[..512] == [0; 512]));
    assert!(cuts.iter().any(Vec::is_empty));
}

#[test]
fn q5_a_second_sync_does_not_bring_lost_writes_back() {
    let (disk, _, file) = planted(1, b"old");
    file.write_all_at(b"new", 0).unwrap();
    disk.fail_syncs(EIO, false);
    assert_eq!(errno(file.sync_data()), Some(EIO));
    file.sync_data().unwrap();
    assert_eq!(disk.read_file("/a").unwrap(), b"new");
    assert_eq!(after(&disk, Cut::DropUnsynced), b"old");
    file.drop_pages().unwrap();
    assert_eq!(disk.read_file("/a").unwrap(), b"old", "only the page cache had them");

    disk.fail_syncs(EIO, true);
    assert_eq!(errno(dsync(&disk, &file, b"x", 0)), Some(EIO));
    assert_eq!(after(&disk, Cut::DropUnsynced), b"old");
    disk.clear_faults();
    dsync(&disk, &file, b"x", 0).unwrap();
    assert_eq!(after(&disk, Cut::DropUnsynced), b"xld");
}

#[test]
fn q5_a_failed_sync_is_reported_once_through_every_descriptor() {
    let (disk, fs, file) = planted(1, b"old");
    let other = fs.open_write(Path::new("/a")).unwrap();
    file.write_all_at(b"new", 0).unwrap();
    disk.fail_syncs(EIO, false);
    assert_eq!(errno(file.sync_data()), Some(EIO));
    let late = fs.open_write(Path::new("/a")).unwrap();
    file.sync_data().unwrap();
    late.sync_data().unwrap();
    assert_eq!(errno(other.sync_all()), Some(EIO));
    other.sync_all().unwrap();
    assert_eq!(after(&disk, Cut::DropUnsynced), b"old");
}

#[test]
fn q6_an_operation_nobody_polls_does_not_stop_the_next() {
    for seed in 0..20 {
        let (disk, _, file) = planted(seed, b"");
        let engine = async move |disk: Disk| {
            let mut held = disk.write(&file, vec![1; 8], 0, WriteMode::Plain);
            let pending = poll!(&mut held).is_pending();
            let (result, _) = disk.write(&file, vec![2; 8], 4, WriteMode::Plain).await;
            result.unwrap();
            if pending {
                held.await.0.unwrap();
            }
            assert_eq!(
                disk.read(&file, 20, 0).await.unwrap(),
                [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]
            );
        };
        Driver::Sim(disk).run(engine).unwrap();
    }
}

#[test]
fn writes_come_in_pieces_and_are_continued() {
    let (disk, _, file) = planted(1, b"");
    disk.short_transfers(1.0);
    let bytes: Vec<u8> = (0..=255).collect();
    let (expected, before) = (bytes.clone(), disk.ops());
    let engine = async move |disk: Disk| {
        disk.write(&file, bytes, 0, WriteMode::Plain).await.0.unwrap();
        disk.read(&file, 300, 0).await.unwrap()
    };
    assert_eq!(Driver::Sim(disk.clone()).run(engine).unwrap(), expected);
    assert!(disk.ops() - before > 1 && disk.reads() > 1);
}

#[test]
fn a_crash_stops_everything_from_its_operation_on() {
    let workload = |disk: &SimDisk| -> io::Result<()> {
        let fs = Fs::sim(disk.clone());
        fs.create_dir(Path::new("/store"))?;
        fs.replace_file(Path::new("/store"), "FILES", b"first")?;
        fs.replace_file(Path::new("/store"), "FILES", b"second")
    };
    let counted = SimDisk::new(1);
    workload(&counted).unwrap();
    for op in 0..counted.ops() {
        let disk = SimDisk::new(1);
        disk.crash_at(op);
        assert_eq!(errno(workload(&disk)), Some(EIO), "op {op}");
        assert!(disk.crashed());
        assert_eq!(errno(Fs::sim(disk.clone()).exists(Path::new("/"))), Some(EIO));
        for cut in [Cut::DropUnsynced, Cut::KeepAll, Cut::KeepWrites(1), Cut::Random { seed: op }] {
            let files = disk.power_cut(cut).read_file("/store/FILES");
            let whole = files.is_none_or(|bytes| bytes == b"first" || bytes == b"second");
            assert!(whole, "op {op}, {cut:?}: replaced by half");
        }
    }
}

#[test]
fn keep_writes_takes_the_first_over_all_files() {
    let (disk, fs, a) = planted(1, b"");
    let b = fs.create_new(Path::new("/b")).unwrap();
    a.write_all_at(b"1", 0).unwrap();
    b.write_all_at(b"2", 0).unwrap();
    a.write_all_at(b"3", 1).unwrap();
    let expected: [(&[u8], &[u8]); 4] = [(b"", b""), (b"1", b""), (b"1", b"2"), (b"13", b"2")];
    for (count, (in_a, in_b)) in expected.into_iter().enumerate() {
        let cut = disk.power_cut(Cut::KeepWrites(count));
        assert_eq!((&*cut.read_file("/a").unwrap(), &*cut.read_file("/b").unwrap()), (in_a, in_b));
    }
    assert_eq!(disk.kill().power_cut(Cut::KeepWrites(1)).read_file("/a").unwrap(), b"1");
}

fn apart(bytes: KeptBytes, names: KeptNames, seed: u64) -> Cut {
    Cut::Apart { bytes, names, seed }
}

#[test]
fn a_torn_write_is_a_beginning_behind_whole_ones() {
    let (disk, _, file) = planted(1, b"");
    file.write_all_at(&[1; 600], 0).unwrap();
    file.write_all_at(&[2; 600], 600).unwrap();
    assert_eq!(disk.unsynced(), (2, 0));
    let torn = |seed| after(&disk, apart(KeptBytes::Torn(1), KeptNames::None, seed));
    let lens: std::collections::BTreeSet<usize> = (0..50).map(|seed| torn(seed).len()).collect();
    assert!(lens.len() > 20 && lens.iter().all(|len| (600..1200).contains(len)), "{lens:?}");
    assert_eq!(torn(1)[..600], [1; 600]);
    assert_eq!(torn(1)[600..].iter().filter(|byte| **byte != 2).count(), 0);
}

#[test]
fn lengths_without_bytes_are_zeros() {
    let (disk, _, file) = planted(1, &[9; 100]);
    file.write_all_at(&[1; 200], 50).unwrap();
    let cut = apart(KeptBytes::Zeros, KeptNames::None, 0);
    assert_eq!(after(&disk, cut), [[9; 100].as_slice(), &[0; 150]].concat());
    file.set_len(20).unwrap();
    file.set_len(70).unwrap();
    assert_eq!(after(&disk, cut), [[9; 20].as_slice(), &[0; 50]].concat());
}

#[test]
fn names_survive_apart_from_bytes() {
    let (disk, fs, file) = planted(1, b"old");
    file.write_all_at(b"new", 0).unwrap();
    for name in ["/b", "/c"] {
        fs.create_new(Path::new(name)).unwrap().write_all_at(b"bytes", 0).unwrap();
    }
    assert_eq!(disk.unsynced(), (3, 2));
    let cut = disk.power_cut(apart(KeptBytes::None, KeptNames::First(1), 0));
    assert_eq!(cut.list("/"), ["a", "b"]);
    assert_eq!(cut.read_file("/b").unwrap(), b"");
    let cut = disk.power_cut(apart(KeptBytes::All, KeptNames::None, 0));
    assert_eq!((cut.list("/"), cut.read_file("/a").unwrap()), (vec!["a".into()], b"new".into()));
    let random = |seed| disk.power_cut(apart(KeptBytes::All, KeptNames::Random, seed)).list("/");
    assert!((0..50).any(|seed| random(seed) == ["a", "c"]), "any subset");
}

#[test]
fn every_moment_is_kept_while_recording() {
    let (disk, fs, file) = planted(1, b"0");
    disk.record();
    file.write_all_at(b"1", 0).unwrap();
    fs.rename(Path::new("/a"), Path::new("/b")).unwrap();
    file.sync_all().unwrap();
    disk.crash_at(3);
    assert_eq!(errno(file.set_len(0)), Some(EIO));
    assert_eq!(errno(file.set_len(0)), Some(EIO));
    let moments = disk.moments();
    let kinds: Vec<_> = moments.iter().map(|moment| (moment.kind, moment.path.to_str())).collect();
    let expected = [
        (OpKind::Write, Some("/a")),
        (OpKind::Rename, Some("/b")),
        (OpKind::Sync, Some("/b")),
        (OpKind::SetLen, Some("/b")),
    ];
    assert_eq!(kinds, expected, "and none after the crash");
    let seen = |index: usize, path| moments[index].disk.read_file(path);
    assert_eq!(seen(0, "/a").unwrap(), b"0");
    assert_eq!((seen(1, "/a").unwrap(), seen(2, "/a")), (b"1".to_vec(), None));
    let durable =
        |index: usize, path| moments[index].disk.power_cut(Cut::DropUnsynced).read_file(path);
    assert_eq!((durable(2, "/a").unwrap(), durable(3, "/a").unwrap()), (b"0".into(), b"1".into()));
    assert!(disk.moments().is_empty());
}

#[test]
fn a_fingerprint_is_of_what_is_seen() {
    let (disk, fs, file) = planted(1, b"12345678");
    let before = disk.fingerprint();
    assert_eq!(disk.kill().fingerprint(), before);
    file.write_all_at(b"x", 7).unwrap();
    assert_ne!(disk.fingerprint(), before);
    assert_eq!(disk.power_cut(Cut::DropUnsynced).fingerprint(), before);
    file.write_all_at(b"8", 7).unwrap();
    assert_eq!(disk.fingerprint(), before);
    file.set_len(9).unwrap();
    assert_ne!(disk.fingerprint(), before, "a zero at the end counts");
    file.set_len(8).unwrap();
    fs.rename(Path::new("/a"), Path::new("/b")).unwrap();
    assert_ne!(disk.fingerprint(), before, "a name counts");
}

#[test]
fn reads_opens_and_single_transfers_fail_by_number() {
    let (disk, fs, file) = planted(1, b"abc");
    let open = || fs.open_read(Path::new("/a")).map(drop);
    disk.fail_open(disk.opens() + 1, EIO, false);
    open().unwrap();
    assert_eq!(errno(open()), Some(EIO));
    open().unwrap();
    disk.fail_read(disk.reads() + 1, EIO, true);
    assert_eq!(file.read_at(&mut [0; 3], 0).unwrap(), 3);
    assert_eq!(errno(file.read_at(&mut [0; 3], 0)), Some(EIO));
    assert_eq!(errno(file.read_at(&mut [0; 3], 0)), Some(EIO));
    disk.clear_faults();
    let before = disk.ops();
    disk.shorten_op(before);
    file.write_all_at(b"ABC", 0).unwrap();
    assert!(disk.ops() > before + 1, "in two transfers");
    assert_eq!(disk.read_file("/a").unwrap(), b"ABC");
}

#[test]
fn a_full_disk_takes_what_fits_and_gives_space_back() {
    let (disk, fs, file) = planted(1, b"");
    disk.capacity_bytes(Some(100));
    file.write_all_at(&[1; 80], 0).unwrap();
    assert_eq!(errno(file.write_all_at(&[2; 40], 80)), Some(ENOSPC));
    assert_eq!(file.len().unwrap(), 100, "the part that fitted was written");
    file.write_all_at(&[3; 100], 0).unwrap();
    assert_eq!(errno(file.set_len(101)), Some(ENOSPC));
    file.set_len(50).unwrap();
    fs.create_new(Path::new("/b")).unwrap().write_all_at(&[4; 50], 0).unwrap();
    fs.remove_file(Path::new("/b")).unwrap();
    file.write_all_at(&[5; 50], 50).unwrap();
    assert_eq!(errno(dsync(&disk, &file, &[6; 1], 100)), Some(ENOSPC));
    disk.capacity_bytes(None);
    dsync(&disk, &file, &[6; 1], 100).unwrap();
}

#[test]
fn faults_hit_the_operations_they_name() {
    let (disk, fs, file) = planted(1, b"abc");
    disk.fail_op(disk.ops() + 1, ENOSPC, false);
    file.write_all_at(b"1", 0).unwrap();
    assert_eq!(errno(file.write_all_at(b"2", 0)), Some(ENOSPC));
    file.write_all_at(b"3", 0).unwrap();
    disk.fail_op(disk.ops(), EIO, true);
    assert_eq!(errno(fs.sync_dir(Path::new("/"))), Some(EIO));
    assert_eq!(errno(file.set_len(0)), Some(EIO));
    disk.clear_faults();
    disk.fail_reads(EIO);
    assert_eq!(errno(file.read_at(&mut [0; 3], 0)), Some(EIO));
    disk.clear_faults();
    disk.would_block(1.0);
    let blocked = file.read_now(&mut [0; 3], 0).unwrap_err();
    assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(file.read_at(&mut [0; 3], 0).unwrap(), 3);
}

#[test]
fn locks_end_with_the_process_and_with_the_power() {
    let disk = SimDisk::new(1);
    let lock = |disk: &SimDisk| {
        Fs::sim(disk.clone()).lock(Path::new("/LOCK"), Sharing::Exclusive).unwrap()
    };
    let held = lock(&disk);
    assert!(held.is_some() && lock(&disk).is_none());
    assert!(lock(&disk.kill()).is_some());
    assert!(lock(&disk.power_cut(Cut::KeepAll)).is_some());
    drop(held);
    assert!(lock(&disk).is_some());
}

#[test]
fn flipped_bits_are_in_memory_and_on_the_disk() {
    let (disk, _, file) = planted(1, b"abc");
    file.write_all_at(b"x", 0).unwrap();
    disk.flip("/a", 0, 1).unwrap();
    disk.flip("/a", 2, 1).unwrap();
    assert_eq!(disk.read_file("/a").unwrap(), [b'x' ^ 1, b'b', b'c' ^ 1]);
    assert_eq!(after(&disk, Cut::KeepWrites(1)), [b'x' ^ 1, b'b', b'c' ^ 1]);
    assert_eq!(after(&disk, Cut::DropUnsynced)[2], b'c' ^ 1);
    assert!(disk.flip("/a", 3, 1).is_err());
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || {
        let (disk, _, file) = planted(42, b"");
        disk.short_transfers(0.3);
        let polls = std::cell::Cell::new(0);
        let engine = async |disk: Disk| {
            for index in 0..50u8 {
                let mut op = disk.write(&file, vec![index; 100], 0, WriteMode::Plain);
                poll_fn(|cx| {
                    polls.set(polls.get() + 1);
                    op.as_mut().poll(cx)
                })
                .await
                .0
                .unwrap();
            }
        };
        Driver::Sim(disk.clone()).run(engine).unwrap();
        (disk.ops(), polls.get(), after(&disk, Cut::Random { seed: 9 }))
    };
    assert_eq!(run(), run());
}
