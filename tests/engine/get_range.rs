//! Parts of values: what a slice of the whole would be, also of one that is too long to have in memory, and never a
//! byte that was not checked.

use std::ops::Bound;
use std::time::Duration;

use ringcask::sim::SimClock;
use ringcask::{Compaction, ErrorKind};

use crate::support::{Store, bytes_of, each_disk, seed, wait};

/// Around what is read without the worker, and around the pieces of what is not.
const LENS: [usize; 8] = [0, 10, 60_000, 66_000, 131_000, 1 << 20, (1 << 20) + 70_000, 5 << 20];

#[test]
fn a_part_is_a_slice_of_the_whole() {
    let seed = seed();
    each_disk(|store| {
        let random = &mut fastrand::Rng::with_seed(seed);
        let db = store.open();
        for len in LENS {
            let value = bytes_of(random, len);
            wait(db.put("k", value.clone())).unwrap();
            let slice = |start: usize, end: usize| {
                value.get(start.min(len)..end.min(len)).unwrap_or_default()
            };
            for _ in 0..6 {
                let (start, end) = (random.usize(..=len + 10), random.usize(..=len + 10));
                let part = wait(db.get_range("k", start as u64..end as u64)).unwrap().unwrap();
                assert!(part == slice(start, end), "{start}..{end} of {len}");
            }
            let all = wait(db.get_range("k", ..)).unwrap().unwrap();
            assert!(all == value, "all of {len}");
            let behind = (Bound::Excluded(0), Bound::Included(len as u64));
            assert!(wait(db.get_range("k", behind)).unwrap().unwrap() == slice(1, len));
            assert_eq!(wait(db.get_range("k", 3..=4)).unwrap().unwrap(), slice(3, 5));
            let last = wait(db.get_range("k", u64::MAX..)).unwrap().unwrap();
            assert!(last.is_empty());
        }
        assert_eq!(wait(db.get_range("missing", ..)).unwrap(), None);
        assert_eq!(wait(db.get_range("", ..)).unwrap_err().kind(), ErrorKind::InvalidArgument);
        wait(db.del("k")).unwrap();
        assert_eq!(wait(db.get_range("k", ..)).unwrap(), None);
        wait(db.close()).unwrap();
        assert_eq!(wait(db.get_range("k", ..)).unwrap_err().kind(), ErrorKind::Closed);
    });
}

/// Breaks if what is stored is taken for the value, or an encrypted key for another's.
#[cfg(all(feature = "lz4", feature = "encryption"))]
#[test]
fn a_part_of_what_is_stored_otherwise_is_a_part_of_the_value() {
    let stores = [Store::sim(seed()), Store::sim(seed()), Store::sim(seed())];
    let mut value = bytes_of(&mut fastrand::Rng::with_seed(seed()), 150_000);
    value.extend(std::iter::repeat_n(7, 200_000));
    let compression = ringcask::Compression::Lz4;
    for (n, store) in stores.iter().enumerate() {
        let options = store.options();
        let options = match n {
            0 => options.compression(compression),
            1 => options.encryption_key([3; 32]),
            _ => options.encryption_key([3; 32]).compression(compression),
        };
        let db = store.open_with(options);
        wait(db.put("k", value.clone())).unwrap();
        let part = wait(db.get_range("k", 149_000..151_000)).unwrap().unwrap();
        assert!(part == value[149_000..151_000], "variant {n}");
        assert_eq!(wait(db.get_range("missing", ..)).unwrap(), None);
        wait(db.close()).unwrap();
    }
}

/// Breaks if a range that was deleted hides the whole and not its parts.
#[test]
fn a_deleted_range_has_no_parts() {
    each_disk(|store| {
        let db = store.open_one();
        wait(db.put("k1", vec![1; 100_000])).unwrap();
        wait(db.put("k2", vec![2; 100])).unwrap();
        wait(db.delete_prefix("k")).unwrap();
        for key in ["k1", "k2"] {
            assert_eq!(wait(db.get_range(key, 5..9)).unwrap(), None, "{key}");
        }
        wait(db.put("k1", vec![3; 100_000])).unwrap();
        assert_eq!(wait(db.get_range("k1", 5..7)).unwrap().unwrap(), [3, 3].as_slice());
        wait(db.close()).unwrap();
    });
}

#[test]
fn what_has_expired_has_no_parts() {
    let store = Store::sim(seed());
    let clock = SimClock::new(1_700_000_000_000);
    let db = store.open_with(store.options().clock(clock.clone()));
    let hour = Duration::from_secs(3600);
    wait(db.put("k", vec![1; 100_000]).ttl(hour)).unwrap();
    assert_eq!(wait(db.get_range("k", 1..3)).unwrap().unwrap(), [1, 1].as_slice());
    clock.advance(hour);
    assert_eq!(wait(db.get_range("k", 1..3)).unwrap(), None);
    wait(db.close()).unwrap();
}

/// Breaks if only the part is looked at: the value could be any.
#[test]
fn a_byte_that_was_not_asked_for_is_checked_too() {
    let store = Store::sim(seed());
    let db = store.open_one();
    wait(db.put("k", vec![7; 3 << 20])).unwrap();
    wait(db.close()).unwrap();
    let file = store.data_files().remove(0);
    let mut bytes = store.read(&file);
    let at = bytes.windows(100).position(|window| window == [7; 100]).unwrap();
    bytes[at + (2 << 20)] ^= 1;
    store.write(&file, &bytes);
    let db = store.open_one();
    let error = wait(db.get_range("k", ..10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.location().is_some());
    wait(db.close()).unwrap();
}

/// Breaks if a record that is replaced, or moved by a compaction, while it is read is taken for damaged, or read
/// half as it was and half as it is.
#[test]
fn parts_are_of_one_value_whatever_goes_on() {
    each_disk(|store| {
        let options = store.options().partitions(1).compaction(Compaction::new().dead_ratio(0.1));
        let db = store.open_with(options.data_file_len_max(1 << 20));
        wait(db.put("k", vec![0; 300_000])).unwrap();
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for n in 1..60_u8 {
                    wait(db.put("k", vec![n; 300_000])).unwrap();
                    if n % 10 == 0 {
                        wait(db.compact()).unwrap();
                    }
                }
            });
            let mut last = 0;
            while !writing.is_finished() {
                let part = wait(db.get_range("k", 70_000..290_000)).unwrap().unwrap();
                let n = part[0];
                assert!(part.len() == 220_000 && part.iter().all(|byte| *byte == n));
                assert!(n >= last, "an older value came back");
                last = n;
            }
        });
        wait(db.close()).unwrap();
    });
}
