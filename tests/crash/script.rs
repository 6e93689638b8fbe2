//! What a store is made to do: steps, in sessions from one open to its end.

#[cfg(feature = "lz4")]
use ringcask::Compression;
use ringcask::{Compaction, Durability, Eviction, Options};

use crate::support::Store;

/// Keys of all scripts: few, so that most writes replace or delete something.
pub(crate) const KEY_COUNT: u8 = 10;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Stores a value of this length that no other write has.
    Put {
        key: u8,
        len: usize,
        durable: bool,
    },
    Del {
        key: u8,
    },
    /// Deletes the keys from one number up to another, of all partitions.
    DelRange {
        from: u8,
        to: u8,
        durable: bool,
    },
    /// Writes to different keys, sent before any is answered.
    Together(Vec<Step>),
    /// Writes to different keys, of which all happen or none.
    Batch(Vec<Step>),
    /// A batch that writes every key that is there, deletes one of them, and adds one in each partition.
    BatchOfAll {
        len: usize,
    },
    /// Gives a value another name, of another partition perhaps.
    Rename {
        from: u8,
        to: u8,
    },
    Sync,
    Compact,
    /// Compacts every second file: what deletes and replaces goes where what it shadows stays (C1).
    CompactHalf {
        odd: bool,
    },
    /// A compaction, with writes to different keys beside it.
    CompactBeside(Vec<Step>),
    /// Makes a backup, beside the store.
    Backup,
    /// Reads every key, one by one and by a scan.
    Read,
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Close,
    Kill,
}

/// From an open to what ends it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) settings: Settings,
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
}

/// What a script varies of [`Options`].
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub(crate) struct Settings {
    pub(crate) prewrite: bool,
    /// Compaction starts by itself, and soon.
    pub(crate) background: bool,
    /// Deletions are acknowledged before they are durable.
    pub(crate) buffered: bool,
    /// Values are stored compressed, and so are short.
    #[cfg_attr(not(feature = "lz4"), expect(dead_code, reason = "nothing can be compressed"))]
    pub(crate) compressed: bool,
    /// No more than three keys a partition are held; others are evicted.
    pub(crate) evicting: bool,
    /// What is written is encrypted with another key than before, if the store is encrypted at all.
    #[cfg_attr(not(feature = "encryption"), expect(dead_code, reason = "nothing is encrypted"))]
    pub(crate) rekeyed: bool,
}

/// The key that comes after [`Store`]'s, or before it again.
#[cfg(feature = "encryption")]
const OTHER_KEY: [u8; 32] = [9; 32];
pub(crate) const KEY: [u8; 32] = [3; 32];

impl Settings {
    pub(crate) const PLAIN: Settings = Settings {
        prewrite: false,
        background: false,
        buffered: false,
        compressed: false,
        evicting: false,
        rekeyed: false,
    };

    /// Two partitions of small files, served by one worker.
    pub(crate) fn options(self, store: &Store) -> Options {
        let compaction =
            if self.background { Compaction::new().dead_ratio(0.05) } else { Compaction::off() };
        let durability = if self.buffered { Durability::Buffered } else { Durability::Sync };
        let options = store.options().partitions(2).workers(1).compaction(compaction);
        // Room is made at every open, and no script has more in flight.
        let options = options.mailbox_requests_max(16);
        let options = options.prewrite(self.prewrite).durability(durability);
        #[cfg(feature = "lz4")]
        let options = if self.compressed { options.compression(Compression::Lz4) } else { options };
        #[cfg(feature = "encryption")]
        let options = match (store.is_encrypted(), self.rekeyed) {
            (false, _) => options,
            (true, false) => options.encryption_key_old(OTHER_KEY),
            (true, true) => options.encryption_key(OTHER_KEY).encryption_key_old(KEY),
        };
        let options = options.data_file_len_max(4096).data_file_records_max(5);
        if self.evicting { options.entries_max(6).eviction(Eviction::Random) } else { options }
    }
}

fn put(key: u8, len: usize) -> Step {
    Step::Put { key, len, durable: true }
}

fn buffered(key: u8, len: usize) -> Step {
    Step::Put { key, len, durable: false }
}

fn del(key: u8) -> Step {
    Step::Del { key }
}

fn del_range(from: u8, to: u8) -> Step {
    Step::DelRange { from, to, durable: true }
}

/// Everything there is, once or twice: creation, small and long values, files that fill up, deletions,
/// compactions asked for and not, hints, closing and being killed.
pub(crate) fn tour() -> Vec<Session> {
    let first = [put(0, 20), put(1, 700), buffered(2, 300), del(0), put(3, 10), buffered(0, 900)];
    let burst = Step::Together(vec![put(4, 100), buffered(5, 1500), put(6, 30), del(1)]);
    let more = [buffered(7, 40), buffered(8, 40), Step::Sync, del(7), del(9), buffered(9, 5000)];
    let overwrite = (0..KEY_COUNT).map(|key| put(key, 60 + usize::from(key)));
    let beside = Step::CompactBeside(vec![put(0, 30), buffered(1, 200), del(2)]);
    let trickle = (0..6).flat_map(|n| [buffered(n, 80), del(n + 3)]);
    let session = |settings, steps: Vec<Step>, end| Session { settings, steps, end };
    let plain = Settings::PLAIN;
    // Values in older files, and then their tombstones in newer ones, without a value to keep them company.
    let values = (0..KEY_COUNT).map(|key| put(key, 500));
    let tombstones = (0..KEY_COUNT).filter(|key| key % 3 != 0).map(del);
    let halves = [true, false].map(|odd| Step::CompactHalf { odd });
    // The same with a range: of values in files before it and beside it, and of one put after it.
    let ranged = (0..KEY_COUNT).map(|key| put(key, 300));
    let unsynced = Step::DelRange { from: 0, to: 3, durable: false };
    let cleared = [del_range(2, 7), put(3, 10), del(5), put(8, 900), unsynced, buffered(1, 30)];
    let batch = Step::Batch(vec![put(1, 300), del(2), put(3, 20), put(4, 700), del(5)]);
    let other = Step::Batch((0..KEY_COUNT).map(|key| put(key, 90)).collect());
    vec![
        session(plain, first.into_iter().chain([burst.clone(), Step::Read]).collect(), End::Kill),
        session(
            Settings { prewrite: true, ..plain },
            vec![
                batch.clone(),
                Step::Backup,
                buffered(1, 30),
                other.clone(),
                Step::Compact,
                batch.clone(),
            ],
            End::Kill,
        ),
        session(
            Settings { background: true, buffered: true, ..plain },
            vec![other, batch, buffered(3, 60), Step::Backup, Step::Read],
            End::Close,
        ),
        session(
            Settings { prewrite: true, ..plain },
            more.into_iter().chain([burst.clone(), put(1, 10), Step::Read]).collect(),
            End::Close,
        ),
        session(
            plain,
            overwrite.clone().chain([Step::Compact, beside, del(4)]).collect(),
            End::Kill,
        ),
        session(
            Settings { background: true, ..plain },
            trickle.clone().chain([Step::Sync, burst]).chain(overwrite).collect(),
            End::Close,
        ),
        session(
            Settings { buffered: true, background: true, prewrite: true, ..plain },
            trickle.chain([put(2, 10), Step::Compact, Step::Read]).collect(),
            End::Kill,
        ),
        session(
            Settings { compressed: true, ..plain },
            vec![del(2), del(3), put(5, 900), buffered(0, 3000), put(1, 20)],
            End::Close,
        ),
        session(plain, vec![Step::Compact, Step::Read], End::Close),
        session(plain, values.chain(tombstones).chain([put(0, 10)]).collect(), End::Close),
        session(plain, halves.clone().into_iter().chain([Step::Read]).collect(), End::Kill),
        session(plain, ranged.chain(cleared).chain([Step::Read]).collect(), End::Kill),
        session(plain, halves.into_iter().chain([Step::Read]).collect(), End::Close),
        session(
            Settings { background: true, ..plain },
            vec![del_range(0, 9), put(4, 40), del_range(4, 10), Step::Compact, Step::Read],
            End::Close,
        ),
    ]
}

/// Keys that come and have to go for others, through compactions and restarts.
pub(crate) fn evicting() -> Vec<Session> {
    let evicting = Settings { evicting: true, ..Settings::PLAIN };
    let keys = |from: u8, len| (0..8).map(move |n| put((from + n * 3) % KEY_COUNT, len));
    let mixed = [buffered(1, 50), del(4), put(7, 900), buffered(2, 20), put(1, 30)];
    let session = |settings, steps, end| Session { settings, steps, end };
    let half = Step::CompactHalf { odd: true };
    vec![
        session(evicting, keys(0, 40).chain(mixed).collect(), End::Kill),
        session(
            Settings { prewrite: true, ..evicting },
            keys(5, 300).chain([half, put(0, 10), Step::Compact, put(3, 10)]).collect(),
            End::Close,
        ),
        session(Settings::PLAIN, vec![put(6, 20), Step::Compact, Step::Read], End::Close),
    ]
}

/// What meets elsewhere only by chance: batches whose keys are evicted, renamed, and deleted by range, encrypted with one
/// key and completed with the next, by an open that finds them half way.
pub(crate) fn together() -> Vec<Session> {
    let first = Settings { evicting: true, compressed: true, ..Settings::PLAIN };
    let next = Settings { rekeyed: true, prewrite: true, ..first };
    let batch = |len| Step::BatchOfAll { len };
    let session = |settings, steps, end| Session { settings, steps, end };
    let puts = (0..5).map(|key| put(key, 100));
    let renames = [Step::Rename { from: 4, to: 9 }, Step::Rename { from: 7, to: 0 }];
    let unsynced = Step::DelRange { from: 0, to: 3, durable: false };
    vec![
        session(
            first,
            puts.chain([batch(40), renames[0].clone(), batch(600)]).collect(),
            End::Kill,
        ),
        session(
            next,
            vec![batch(30), unsynced, buffered(8, 900), batch(90), renames[1].clone(), batch(20)],
            End::Kill,
        ),
        session(first, vec![batch(50), Step::CompactHalf { odd: true }, Step::Read], End::Kill),
        session(Settings::PLAIN, vec![Step::Compact, Step::Read], End::Close),
    ]
}

/// The same in few operations, because it is run again for each of them.
pub(crate) fn brief() -> Vec<Session> {
    let plain = Settings::PLAIN;
    let burst = Step::Together(vec![put(2, 900), del(0), buffered(3, 1500), put(5, 40)]);
    let small = (0..8).map(|n| put(n % 3, 20));
    let beside = Step::CompactBeside(vec![put(1, 30), buffered(3, 200), del(2)]);
    let overwrite = (0..12).map(|n| if n % 4 == 3 { buffered(n % 6, 90) } else { put(n % 6, 90) });
    let prewrite = Settings { prewrite: true, ..plain };
    let background = Settings { background: true, ..plain };
    let half = Step::CompactHalf { odd: true };
    let batch = Step::Batch(vec![put(0, 40), put(1, 600), del(2), put(3, 30), put(4, 10)]);
    let steps = [
        (plain, vec![put(0, 20), buffered(1, 600), burst, put(4, 2000), Step::Read], End::Kill),
        (plain, vec![batch.clone(), buffered(2, 50), batch, Step::Read], End::Kill),
        (prewrite, small.chain([Step::Sync, Step::Compact, Step::Read]).collect(), End::Close),
        (background, overwrite.chain([beside, Step::Read]).collect(), End::Close),
        (
            Settings { compressed: true, ..plain },
            vec![del(1), put(3, 800), half.clone(), Step::Compact, Step::Read, buffered(6, 10)],
            End::Kill,
        ),
        (plain, vec![put(2, 50), del_range(1, 4), put(3, 20), half, Step::Compact], End::Kill),
    ];
    steps.map(|(settings, steps, end)| Session { settings, steps, end }).into()
}

/// Sessions drawn by chance.
pub(crate) fn random(random: &mut fastrand::Rng) -> Vec<Session> {
    let sessions = random.usize(2..5);
    std::iter::repeat_with(|| {
        let settings = Settings {
            prewrite: random.bool(),
            background: random.bool(),
            buffered: random.u8(..4) == 0,
            compressed: random.u8(..4) == 0,
            evicting: false,
            rekeyed: random.u8(..4) == 0,
        };
        let steps = random.usize(5..25);
        let steps = std::iter::repeat_with(|| random_step(random)).take(steps).collect();
        Session { settings, steps, end: if random.bool() { End::Close } else { End::Kill } }
    })
    .take(sessions)
    .collect()
}

fn random_step(random: &mut fastrand::Rng) -> Step {
    match random.u8(..100) {
        0..60 => {
            let key = random.u8(..KEY_COUNT);
            random_write(random, key)
        }
        60..72 => Step::Together(random_writes(random)),
        72..80 => Step::Batch(random_writes(random)),
        80..87 => Step::Sync,
        87..90 => Step::Compact,
        90..92 => Step::CompactHalf { odd: random.bool() },
        92 => Step::Rename { from: random.u8(..KEY_COUNT), to: random.u8(..KEY_COUNT) },
        93..95 => {
            let (from, to) = (random.u8(..KEY_COUNT), random.u8(..=KEY_COUNT));
            Step::DelRange { from, to, durable: random.bool() }
        }
        95..98 => Step::CompactBeside(random_writes(random)),
        _ => Step::Read,
    }
}

fn random_writes(random: &mut fastrand::Rng) -> Vec<Step> {
    let mut keys: Vec<u8> = (0..KEY_COUNT).collect();
    random.shuffle(&mut keys);
    keys.truncate(random.usize(1..6));
    keys.into_iter().map(|key| random_write(random, key)).collect()
}

fn random_write(random: &mut fastrand::Rng, key: u8) -> Step {
    let len_max = if random.u8(..10) == 0 { 5000 } else { 400 };
    match random.u8(..4) {
        0 => Step::Del { key },
        _ => Step::Put { key, len: random.usize(..len_max), durable: random.bool() },
    }
}
