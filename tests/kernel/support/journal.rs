//! What a process did up to the moment it was killed: a file that it appends to and that outlives it.
//!
//! A line is 16 bytes and one write, which a killed process has done or has not.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::model::{Model, Version};

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Starting,
    Opening,
    Writing,
    Compacting,
    Closing,
}

impl Phase {
    const ALL: [Phase; 5] =
        [Phase::Starting, Phase::Opening, Phase::Writing, Phase::Compacting, Phase::Closing];

    /// What the process says when it begins.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Opening => "opening",
            Phase::Writing => "writing",
            Phase::Compacting => "compacting",
            Phase::Closing => "closing",
        }
    }
}

const SENT: u32 = 1;
const ANSWERED: u32 = 2;
const PHASE: u32 = 3;
const COMPACTED: u32 = 4;
const LINE_LEN: usize = 16;

/// The writing end, in the process that will be killed.
pub(crate) struct Journal(File);

impl Journal {
    /// Goes on with the journal beside a store.
    pub(crate) fn of(store: &Path) -> Journal {
        let file = OpenOptions::new().append(true).create(true).open(path(store));
        Journal(file.unwrap())
    }

    pub(crate) fn sent(&self, index: usize, version: Version) {
        self.line(SENT, index, version);
    }

    pub(crate) fn answered(&self, index: usize, version: Version) {
        self.line(ANSWERED, index, version);
    }

    pub(crate) fn phase(&self, phase: Phase) {
        self.line(PHASE, phase as usize, 0);
    }

    pub(crate) fn compacted(&self, files_removed: u64) {
        self.line(COMPACTED, 0, files_removed);
    }

    fn line(&self, kind: u32, index: usize, number: u64) {
        let mut line = [0; LINE_LEN];
        line[..4].copy_from_slice(&kind.to_le_bytes());
        line[4..8].copy_from_slice(&u32::try_from(index).unwrap().to_le_bytes());
        line[8..].copy_from_slice(&number.to_le_bytes());
        (&self.0).write_all(&line).unwrap();
    }
}

/// What the journal of a killed process says besides what it wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    pub(crate) phase: Phase,
    pub(crate) answered: u64,
    pub(crate) files_compacted: u64,
}

/// Tells the model what a killed process had sent, and what it had been told; whatever was
/// acknowledged survives a kill. The journal is used up.
pub(crate) fn replay(store: &Path, model: &Model) -> Last {
    let mut last = Last { phase: Phase::Starting, answered: 0, files_compacted: 0 };
    let Ok(bytes) = std::fs::read(path(store)) else { return last };
    std::fs::remove_file(path(store)).unwrap();
    assert_eq!(bytes.len() % LINE_LEN, 0, "lines are whole");
    let mut tickets = vec![None; model.key_count()];
    for line in bytes.chunks_exact(LINE_LEN) {
        let kind = u32::from_le_bytes(line[..4].try_into().unwrap());
        let index = u32::from_le_bytes(line[4..8].try_into().unwrap()) as usize;
        let number = u64::from_le_bytes(line[8..].try_into().unwrap());
        match kind {
            SENT => {
                let ticket = model.attempt(index);
                assert_eq!(ticket.version, number, "versions follow each other");
                tickets[index] = Some(ticket);
            }
            ANSWERED => {
                let ticket = tickets[index].take().expect("what was sent is answered once");
                model.durable(ticket);
                last.answered += 1;
            }
            PHASE => last.phase = Phase::ALL[index],
            COMPACTED => last.files_compacted += number,
            other => panic!("no line is of kind {other}"),
        }
    }
    last
}

fn path(store: &Path) -> std::path::PathBuf {
    store.with_extension("journal")
}
