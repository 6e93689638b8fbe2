//! How a store is opened, as data.

use std::time::Duration;

use ringcask::sim::SimClock;
use ringcask::{Compaction, Compression, Durability, Eviction, Options};

use crate::support::Store;
use crate::verb::{ACKS, Ack};

/// When the store compacts by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Compacting {
    Never,
    ByDefault,
    Always,
    AtHours(u8, u8),
}

/// How values are stored; as they are, where a feature is missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Compressing {
    Off,
    Lz4,
    Zstd(i32),
}

/// How many keys the store holds, and what happens when it would be more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Holding {
    All,
    /// Writes are refused.
    Refusing(u64),
    /// What expires goes, which nothing here does.
    Mortal(u64),
    LeastRecent(u64),
    LeastFrequent(u64),
    ByChance(u64),
}

impl Holding {
    fn random(random: &mut fastrand::Rng) -> Holding {
        let count = random.u64(1..14);
        match random.u8(..10) {
            0 => Holding::Refusing(count),
            1 => Holding::Mortal(count),
            2 => Holding::LeastRecent(count),
            3 => Holding::LeastFrequent(count),
            4 => Holding::ByChance(count),
            _ => Holding::All,
        }
    }

    /// Whether a key may go at any time.
    pub(crate) fn evicts(self) -> bool {
        let (eviction, _) = self.bound();
        matches!(eviction, Eviction::Lru | Eviction::Lfu | Eviction::Random)
    }

    /// Whether a write that adds a key may be refused.
    pub(crate) fn refuses(self) -> bool {
        self != Holding::All && !self.evicts()
    }

    pub(crate) fn bound(self) -> (Eviction, Option<u64>) {
        match self {
            Holding::All => (Eviction::None, None),
            Holding::Refusing(count) => (Eviction::None, Some(count)),
            Holding::Mortal(count) => (Eviction::Ttl, Some(count)),
            Holding::LeastRecent(count) => (Eviction::Lru, Some(count)),
            Holding::LeastFrequent(count) => (Eviction::Lfu, Some(count)),
            Holding::ByChance(count) => (Eviction::Random, Some(count)),
        }
    }
}

/// With which key what is written is encrypted, where the feature is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Encrypting {
    /// With none, unless the store has one already.
    Keyless,
    Key(u8),
}

const KEY_COUNT: u8 = 3;

impl Encrypting {
    /// All other keys are given as old ones: any of them may have been the newest once.
    #[cfg(feature = "encryption")]
    fn apply(self, store: &Store, options: Options) -> Options {
        let number = match self {
            Encrypting::Key(number) => number,
            Encrypting::Keyless if is_encrypted(store) => 0,
            Encrypting::Keyless => return options,
        };
        let others = (0..KEY_COUNT).filter(|other| *other != number);
        others.fold(options.encryption_key([number; 32]), |options, other| {
            options.encryption_key_old([other; 32])
        })
    }

    #[cfg(not(feature = "encryption"))]
    fn apply(self, _: &Store, options: Options) -> Options {
        let (Encrypting::Keyless | Encrypting::Key(_)) = self;
        options
    }

    /// Whether compaction makes records of the store longer from its next open on.
    pub(crate) fn is_first_key(self, store: &Store) -> bool {
        cfg!(feature = "encryption") && self != Encrypting::Keyless && !is_encrypted(store)
    }
}

fn is_encrypted(store: &Store) -> bool {
    store.list("").contains(&"MANIFEST".to_owned())
        && String::from_utf8_lossy(&store.read("MANIFEST")).contains("\nencryption_key")
}

/// Everything a store can be opened with that is not kept in it.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub(crate) struct Settings {
    pub(crate) workers: usize,
    pub(crate) file_len_log2: u32,
    pub(crate) file_records: u64,
    pub(crate) prewrite: bool,
    pub(crate) mailbox_requests: usize,
    pub(crate) mailbox_bytes: usize,
    pub(crate) ack: Ack,
    pub(crate) compacting: Compacting,
    pub(crate) holding: Holding,
    pub(crate) open_files: usize,
    pub(crate) read_cache: u64,
    pub(crate) locked: u64,
    pub(crate) scrub: bool,
    pub(crate) compressing: Compressing,
    pub(crate) compression_len_min: usize,
    pub(crate) encrypting: Encrypting,
    /// On a simulated disk: transfers are cut short, and reads without a hop find nothing in memory.
    pub(crate) short_transfers: bool,
    pub(crate) would_block: bool,
}

/// The ones that failures are explained with, as far as they show under them.
pub(crate) const PLAIN: Settings = Settings {
    workers: 1,
    file_len_log2: 12,
    file_records: 1 << 20,
    prewrite: false,
    mailbox_requests: 1000,
    mailbox_bytes: 1 << 24,
    ack: Ack::Usual,
    compacting: Compacting::Never,
    holding: Holding::All,
    open_files: 1000,
    read_cache: 0,
    locked: 0,
    scrub: false,
    compressing: Compressing::Off,
    compression_len_min: 0,
    encrypting: Encrypting::Keyless,
    short_transfers: false,
    would_block: false,
};

impl Settings {
    pub(crate) fn random(random: &mut fastrand::Rng) -> Settings {
        let few_or = |random: &mut fastrand::Rng, many| {
            if random.bool() { random.usize(1..6) } else { many }
        };
        Settings {
            workers: random.usize(1..4),
            file_len_log2: random.u32(12..19),
            file_records: few_or(random, 1 << 20) as u64,
            prewrite: random.bool(),
            mailbox_requests: few_or(random, 1000),
            mailbox_bytes: if random.bool() { random.usize(1..20_000) } else { 1 << 24 },
            ack: ACKS[random.usize(..ACKS.len())],
            compacting: match random.u8(..6) {
                0 => Compacting::Never,
                1 => Compacting::ByDefault,
                2 => {
                    let from = random.u8(..24);
                    Compacting::AtHours(from, (from + 1 + random.u8(..23)) % 24)
                }
                _ => Compacting::Always,
            },
            holding: Holding::random(random),
            open_files: few_or(random, 1000),
            read_cache: [0, 0, 2_000, 1 << 20][random.usize(..4)],
            locked: [0, 0, 20_000, 1 << 20][random.usize(..4)],
            scrub: random.u8(..4) == 0,
            compressing: match random.u8(..4) {
                0 => Compressing::Lz4,
                1 => Compressing::Zstd(random.i32(-7..4)),
                _ => Compressing::Off,
            },
            compression_len_min: if random.bool() { 0 } else { random.usize(1..1000) },
            encrypting: match random.u8(..3) {
                0 => Encrypting::Key(random.u8(..KEY_COUNT)),
                _ => Encrypting::Keyless,
            },
            short_transfers: random.u8(..4) == 0,
            would_block: random.u8(..3) == 0,
        }
    }

    /// The options, and for a simulated disk its ways.
    pub(crate) fn options(&self, store: &Store, clock: &SimClock) -> Options {
        if store.is_sim() {
            store.disk().short_transfers(if self.short_transfers { 0.2 } else { 0.0 });
            store.disk().would_block(if self.would_block { 0.4 } else { 0.0 });
        }
        let always = Compaction::new().dead_ratio(0.01).dead_bytes(1);
        let options = store
            .options()
            .clock(clock.clone())
            // An open that nobody waited for may still be under way.
            .lock_wait(Duration::from_secs(60))
            .workers(self.workers)
            .data_file_len_max(1 << self.file_len_log2)
            .data_file_records_max(self.file_records)
            .prewrite(self.prewrite)
            .compression(match self.compressing {
                #[cfg(feature = "lz4")]
                Compressing::Lz4 => Compression::Lz4,
                #[cfg(feature = "zstd")]
                Compressing::Zstd(level) => Compression::Zstd { level },
                _ => Compression::None,
            })
            .compression_len_min(self.compression_len_min)
            .mailbox_requests_max(self.mailbox_requests)
            .mailbox_bytes_max(self.mailbox_bytes)
            .durability(self.ack.durability().unwrap_or(Durability::Sync))
            .compaction(match self.compacting {
                Compacting::Never => Compaction::off(),
                Compacting::ByDefault => Compaction::new(),
                Compacting::Always => always,
                Compacting::AtHours(from, to) => always.hours_utc(from, to),
            })
            .open_files_max(self.open_files)
            .read_cache_bytes(self.read_cache)
            .locked_bytes(self.locked);
        let (eviction, bound) = self.holding.bound();
        let options = options.eviction(eviction);
        let options = if let Some(count) = bound { options.entries_max(count) } else { options };
        let options = self.encrypting.apply(store, options);
        if self.scrub { options.scrub_bytes_per_sec(1 << 30) } else { options }
    }

    /// With one setting after the other as in [`PLAIN`]; files may have to be longer than that.
    pub(crate) fn simpler(&self) -> Vec<Settings> {
        let with = |change: &dyn Fn(&mut Settings)| {
            let mut simpler = self.clone();
            change(&mut simpler);
            simpler
        };
        [
            PLAIN.clone(),
            with(&|s| s.workers = PLAIN.workers),
            with(&|s| s.file_len_log2 = PLAIN.file_len_log2),
            with(&|s| s.file_len_log2 = if s.file_len_log2 == 12 { 12 } else { 18 }),
            with(&|s| s.file_records = PLAIN.file_records),
            with(&|s| s.prewrite = PLAIN.prewrite),
            with(&|s| s.mailbox_requests = PLAIN.mailbox_requests),
            with(&|s| s.mailbox_bytes = PLAIN.mailbox_bytes),
            with(&|s| s.ack = PLAIN.ack),
            with(&|s| s.compacting = PLAIN.compacting),
            with(&|s| s.holding = PLAIN.holding),
            with(&|s| s.open_files = PLAIN.open_files),
            with(&|s| s.read_cache = PLAIN.read_cache),
            with(&|s| s.locked = PLAIN.locked),
            with(&|s| s.scrub = PLAIN.scrub),
            with(&|s| s.compressing = PLAIN.compressing),
            with(&|s| s.compression_len_min = PLAIN.compression_len_min),
            with(&|s| s.encrypting = PLAIN.encrypting),
            with(&|s| s.short_transfers = PLAIN.short_transfers),
            with(&|s| s.would_block = PLAIN.would_block),
        ]
        .into_iter()
        .filter(|settings| settings != self)
        .collect()
    }
}
