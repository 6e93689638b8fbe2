//! The images that one moment can leave.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Mutex;

use ringcask::sim::{Cut, KeptBytes, KeptNames, SimDisk};

/// Every power cut worth telling apart: everything, nothing, each beginning of what was not synced, torn
/// writes, holes of zeros, subsets of sectors, and names kept or dropped without regard to bytes.
pub(crate) fn cuts(disk: &SimDisk, random: &mut fastrand::Rng, random_count: usize) -> Vec<Cut> {
    let (writes, names) = disk.unsynced();
    let mut cuts = vec![Cut::DropUnsynced, Cut::KeepAll];
    let mut add = |bytes, names| cuts.push(Cut::Apart { bytes, names, seed: random.u64(..) });
    for names in [KeptNames::All, KeptNames::None] {
        (0..=writes).for_each(|count| add(KeptBytes::First(count), names));
        (0..writes).for_each(|count| add(KeptBytes::Torn(count), names));
        add(KeptBytes::Zeros, names);
        (0..random_count).for_each(|_| add(KeptBytes::Sectors, names));
    }
    for bytes in [KeptBytes::All, KeptBytes::None, KeptBytes::Sectors] {
        (0..names).for_each(|count| add(bytes, KeptNames::First(count)));
        (0..random_count).for_each(|_| add(bytes, KeptNames::Random));
    }
    cuts
}

/// Images that were opened already, with what was expected of them.
pub(crate) struct Seen<E>(Mutex<HashSet<(E, u64)>>);

impl<E: Eq + Hash> Seen<E> {
    pub(crate) fn new() -> Seen<E> {
        Seen(Mutex::new(HashSet::new()))
    }

    pub(crate) fn is_new(&self, expected: E, image: &SimDisk) -> bool {
        self.0.lock().unwrap().insert((expected, image.fingerprint()))
    }
}
