//! What is measured: the rows, each with who takes part and what is aimed at.

use crate::peer::{Class, Mix};

/// One row of the table.
pub struct Row {
    pub name: &'static str,
    pub title: &'static str,
    pub class: Class,
    pub work: Work,
    pub value_len: usize,
    /// Tasks of Ringcask.
    pub callers: usize,
    /// Threads that those tasks are spread over.
    pub threads: usize,
    /// Numbers of threads that the others try; the best counts.
    pub peer_threads: &'static [usize],
    /// The number of records, of a hundred of those asked for.
    pub records_percent: u64,
    /// Ringcask ÷ this peer is to be at least so much; "best" is the best of the class.
    pub targets: &'static [(&'static str, f64)],
}

#[derive(Clone, Copy, PartialEq)]
pub enum Work {
    /// Records are there before; the time counts that the mix runs.
    Mix(Mix),
    /// An empty store is filled, and is durable in the end.
    Load,
}

impl Row {
    /// Whether anything is read.
    pub fn is_read(&self) -> bool {
        matches!(self.work, Work::Mix(mix) if mix.reads > 0 || mix.scans > 0)
    }

    /// Whether what was read is read again soon.
    pub fn is_read_again(&self) -> bool {
        matches!(self.work, Work::Mix(mix) if mix.is_zipf)
    }

    pub fn is_named(&self, asked: &str) -> bool {
        self.name == asked || self.name.trim_end_matches(|c: char| c.is_ascii_lowercase()) == asked
    }
}

/// At most so many threads wait for a sync each: more do not help any of them.
const SYNCING: &[usize] = &[16, 64];
const FEW: &[usize] = &[1, 2, 4];

/// In the order of the table.
pub fn all() -> Vec<Row> {
    let put = Row {
        name: "1a",
        title: "durable put, 256 callers",
        class: Class::Durable,
        work: Work::Mix(Mix::PUTS),
        value_len: 100,
        callers: 256,
        threads: 2,
        peer_threads: SYNCING,
        records_percent: 20,
        targets: &[("rocksdb", 10.0)],
    };
    let get = Row {
        name: "4a",
        title: "get, in memory, 1 thread",
        class: Class::Buffered,
        work: Work::Mix(Mix::GETS),
        callers: 1,
        threads: 1,
        peer_threads: &[1],
        records_percent: 100,
        targets: &[("lmdb", 1.2), ("candystore", 1.2), ("rocksdb", 4.0)],
        ..put
    };
    let ycsb = |name, title, mix, targets: &'static [(&'static str, f64)]| Row {
        name,
        title,
        work: Work::Mix(Mix { is_zipf: true, ..mix }),
        value_len: 1000,
        callers: 64,
        targets,
        ..put
    };
    let reads = |reads| Mix { reads, ..Mix::PUTS };
    let mut rows = vec![
        Row {
            name: "1b",
            title: "durable put, 1,024 callers",
            callers: 1024,
            targets: &[("rocksdb", 20.0)],
            ..put
        },
        Row {
            name: "2",
            title: "durable put, 1 caller",
            callers: 1,
            threads: 1,
            peer_threads: &[1],
            targets: &[("rocksdb", 1.0), ("lmdb", 1.0)],
            ..put
        },
        Row {
            name: "3a",
            title: "buffered put, 256 callers",
            class: Class::Buffered,
            peer_threads: FEW,
            targets: &[("rocksdb", 4.0), ("best", 1.0)],
            ..put
        },
        Row {
            name: "3b",
            title: "buffered put, one thread with 256 in flight",
            class: Class::Buffered,
            threads: 1,
            peer_threads: &[1],
            targets: &[("rocksdb", 4.0), ("best", 1.0)],
            ..put
        },
        Row {
            name: "4b",
            title: "get, in memory, 64 callers",
            callers: 64,
            threads: 2,
            peer_threads: &[2, 64],
            targets: &[("lmdb", 1.1), ("candystore", 1.1), ("rocksdb", 4.0)],
            ..get
        },
        ycsb("6a", "YCSB A: half puts, zipf, 64 clients", reads(50), &[("rocksdb", 5.0)]),
        ycsb("6b", "YCSB B: 5 % puts", reads(95), &[("rocksdb", 3.0)]),
        ycsb("6c", "YCSB C: gets", reads(100), &[("rocksdb", 3.0)]),
        ycsb(
            "6d",
            "YCSB D: 5 % new records",
            Mix { is_inserting: true, ..reads(95) },
            &[("rocksdb", 3.0)],
        ),
        ycsb(
            "6f",
            "YCSB F: half read-modify-write",
            Mix { read_modify_writes: 100, ..reads(50) },
            &[("rocksdb", 5.0)],
        ),
        ycsb(
            "7e",
            "YCSB E: scans of 1 to 100, 5 % new records",
            Mix { scans: 95, is_inserting: true, ..reads(0) },
            &[("rocksdb", 0.5)],
        ),
        Row {
            name: "12",
            title: "bulk load, one task, durable when it returns",
            work: Work::Load,
            callers: 1,
            threads: 1,
            peer_threads: &[1],
            records_percent: 20,
            targets: &[("best", 2.0)],
            ..put
        },
        put,
        get,
    ];
    rows.sort_by_key(|row: &Row| {
        (row.name.trim_end_matches(char::is_alphabetic).parse::<u32>().ok(), row.name)
    });
    rows
}
