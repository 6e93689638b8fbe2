//! What callers see of a partition without asking its worker: the keydir to look up, the open files
//! to read, the counters to add up. One writer, the worker; any number of readers (DESIGN §4).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::error::Error;
use crate::keydir::{KeydirReader, Usage};
use crate::log::data_file::FileTable;
use crate::log::key_run::KeyRun;
use crate::planted::{Bug, is_planted};
use crate::ranges::SharedRanges;
use crate::stats::{Counter, PartitionStats, Recorder, Striped};
use crate::types::{FileId, Seqno};

pub(crate) struct PartitionView {
    pub(crate) keydir: KeydirReader,
    /// What the keydir still has of ranges that were deleted.
    pub(crate) ranges: SharedRanges,
    /// Changed after the keydir no longer points into what goes, and before it points into what comes.
    pub(crate) files: ArcSwap<FileTable>,
    /// Moves when a file is opened: what its reads are dated by, to find the one longest unused.
    pub(crate) clock: AtomicU64,
    /// Odd while a batch is published: whoever looks meanwhile may see a part of it, and asks the worker.
    epoch: AtomicU64,
    /// The newest file of the log that compaction has taken, as `FILES` says it.
    log_gone: AtomicU64,
    /// No record that is in the log has a larger sequence number.
    seqno_max: AtomicU64,
    failure: OnceLock<Error>,
    /// The worker is gone, and with it the table of files.
    is_gone: AtomicBool,
    is_scanned_wide: AtomicBool,
    pub(crate) counters: WorkerCounters,
    pub(crate) gets_hop_free: Striped,
    pub(crate) gets_missing: Striped,
}

/// Written by the worker alone.
#[derive(Default)]
pub(crate) struct WorkerCounters {
    pub(crate) puts: Counter,
    pub(crate) put_value_bytes: Counter,
    pub(crate) put_stored_bytes: Counter,
    pub(crate) dels: Counter,
    pub(crate) batches: Counter,
    pub(crate) expired: Counter,
    pub(crate) range_dels: Counter,
    pub(crate) range_dels_pending: Counter,
    pub(crate) range_removed: Counter,
    pub(crate) evicted: Counter,
    pub(crate) entries_max: Counter,
    pub(crate) bytes_max: Counter,
    pub(crate) writes_full: Counter,
    pub(crate) keys_mortal: Counter,
    pub(crate) gets: Counter,
    pub(crate) reads: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) pages: Counter,
    pub(crate) page_bytes: Counter,
    pub(crate) commits: Counter,
    pub(crate) commit_records: Counter,
    pub(crate) commit_bytes: Counter,
    pub(crate) commits_dsync: Counter,
    pub(crate) commits_failed: Counter,
    pub(crate) syncs: Counter,
    pub(crate) prewritten_bytes: Counter,
    pub(crate) files: Counter,
    pub(crate) files_open: Counter,
    pub(crate) files_opened: Counter,
    pub(crate) files_other_key: Counter,
    pub(crate) rotations: Counter,
    pub(crate) hints: Counter,
    pub(crate) hint_bytes: Counter,
    pub(crate) key_runs: Counter,
    pub(crate) key_run_bytes: Counter,
    pub(crate) compactions: Counter,
    pub(crate) compactions_failed: Counter,
    pub(crate) throttled_nanos: Counter,
    pub(crate) compaction_debt_bytes: Counter,
    pub(crate) compaction_read_bytes: Counter,
    pub(crate) compaction_written_bytes: Counter,
    pub(crate) scrubbed_bytes: Counter,
    pub(crate) scrub_passes: Counter,
    pub(crate) files_damaged: Counter,
    pub(crate) log_bytes: Counter,
    pub(crate) live_bytes: Counter,
    pub(crate) shadow_bytes: Counter,
    pub(crate) dead_bytes: Counter,
    pub(crate) commit_latency: Recorder,
}

impl PartitionView {
    /// `seqno_max` is the largest number in the log.
    pub(crate) fn new(keydir: KeydirReader, files: &FileTable, seqno_max: Seqno) -> PartitionView {
        PartitionView {
            keydir,
            ranges: SharedRanges::default(),
            files: ArcSwap::from_pointee(files.shown(&[])),
            clock: AtomicU64::new(1),
            epoch: AtomicU64::new(0),
            log_gone: AtomicU64::new(0),
            seqno_max: AtomicU64::new(seqno_max.0),
            failure: OnceLock::new(),
            is_gone: AtomicBool::new(false),
            is_scanned_wide: AtomicBool::new(false),
            counters: WorkerCounters::default(),
            gets_hop_free: Striped::default(),
            gets_missing: Striped::default(),
        }
    }

    /// Which batches were published: a reader who finds it even, and the same afterwards, has seen each of
    /// them whole or not at all. What a look-up in the keydir shows of a batch was put there after the epoch
    /// became odd, and the look-up's lock orders the two.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Called by the worker before and after it publishes a batch.
    pub(crate) fn turn_epoch(&self) {
        if !is_planted(Bug::BatchSeenHalf) {
            self.epoch.store(self.epoch.load(Ordering::Relaxed) + 1, Ordering::SeqCst);
        }
    }

    /// Why the partition takes no writes, if so.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    /// The first failure stays: later ones follow from it.
    pub(crate) fn set_failure(&self, error: &Error) {
        let _first_wins = self.failure.set(error.clone());
    }

    /// Lets go of the files: handles may outlive the worker by far, descriptors should not.
    pub(crate) fn leave(&self) {
        self.is_gone.store(true, Ordering::Release);
        self.files.store(Arc::default());
    }

    /// Whether there are no files because the worker is gone; for who has loaded an empty table before.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// For readers: the files there are now, and the key runs that stand for some of them.
    pub(crate) fn show_files(&self, files: &FileTable, runs: &[Arc<KeyRun>]) {
        self.files.store(Arc::new(files.shown(runs)));
    }

    /// A scan had to merge many cursors.
    pub(crate) fn note_wide_scan(&self) {
        if !self.is_scanned_wide.load(Ordering::Relaxed) {
            self.is_scanned_wide.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there was one since this was asked last.
    pub(crate) fn take_wide_scan(&self) -> bool {
        self.is_scanned_wide.load(Ordering::Relaxed)
            && self.is_scanned_wide.swap(false, Ordering::Relaxed)
    }

    /// For those who follow the log, who look at the files first.
    pub(crate) fn log_gone(&self) -> FileId {
        FileId(self.log_gone.load(Ordering::Acquire))
    }

    pub(crate) fn show_log_gone(&self, file: FileId) {
        self.log_gone.store(file.0, Ordering::Release);
    }

    /// For those who follow the log, who look how far it is durable first.
    pub(crate) fn seqno_max(&self) -> Seqno {
        Seqno(self.seqno_max.load(Ordering::Acquire))
    }

    /// Before any of these numbers is durable.
    pub(crate) fn show_seqno_max(&self, seqno: Seqno) {
        self.seqno_max.store(seqno.0, Ordering::Release);
    }

    /// For stats: what the files hold now.
    pub(crate) fn show_usage(&self, usage: &Usage) {
        let total = usage.total();
        self.counters.live_bytes.set(total.live_bytes);
        self.counters.shadow_bytes.set(total.shadow_bytes);
        self.counters.dead_bytes.set(total.dead_bytes());
    }

    pub(crate) fn stats(&self, queue_depth: u64) -> PartitionStats {
        let counters = &self.counters;
        let gets_hop_free = self.gets_hop_free.get();
        PartitionStats {
            keys: self.keydir.len(),
            keydir_bytes: self.keydir.ram_bytes(),
            puts: counters.puts.get(),
            put_value_bytes: counters.put_value_bytes.get(),
            put_stored_bytes: counters.put_stored_bytes.get(),
            dels: counters.dels.get(),
            batches: counters.batches.get(),
            expired: counters.expired.get(),
            range_dels: counters.range_dels.get(),
            range_dels_pending: counters.range_dels_pending.get(),
            range_removed: counters.range_removed.get(),
            evicted: counters.evicted.get(),
            entries_max: counters.entries_max.get(),
            bytes_max: counters.bytes_max.get(),
            writes_full: counters.writes_full.get(),
            keys_mortal: counters.keys_mortal.get(),
            gets: counters.gets.get() + gets_hop_free,
            gets_hop_free,
            gets_missing: self.gets_missing.get(),
            reads: counters.reads.get(),
            read_bytes: counters.read_bytes.get(),
            pages: counters.pages.get(),
            page_bytes: counters.page_bytes.get(),
            commits: counters.commits.get(),
            commit_records: counters.commit_records.get(),
            commit_bytes: counters.commit_bytes.get(),
            commits_dsync: counters.commits_dsync.get(),
            commits_failed: counters.commits_failed.get(),
            syncs: counters.syncs.get(),
            prewritten_bytes: counters.prewritten_bytes.get(),
            files: counters.files.get(),
            files_open: counters.files_open.get(),
            files_opened: counters.files_opened.get(),
            files_other_key: counters.files_other_key.get(),
            rotations: counters.rotations.get(),
            hints: counters.hints.get(),
            hint_bytes: counters.hint_bytes.get(),
            key_runs: counters.key_runs.get(),
            key_run_bytes: counters.key_run_bytes.get(),
            compactions: counters.compactions.get(),
            compactions_failed: counters.compactions_failed.get(),
            throttled_nanos: counters.throttled_nanos.get(),
            compaction_debt_bytes: counters.compaction_debt_bytes.get(),
            compaction_read_bytes: counters.compaction_read_bytes.get(),
            compaction_written_bytes: counters.compaction_written_bytes.get(),
            scrubbed_bytes: counters.scrubbed_bytes.get(),
            scrub_passes: counters.scrub_passes.get(),
            files_damaged: counters.files_damaged.get(),
            log_bytes: counters.log_bytes.get(),
            live_bytes: counters.live_bytes.get(),
            shadow_bytes: counters.shadow_bytes.get(),
            dead_bytes: counters.dead_bytes.get(),
            queue_depth,
            commit_latency: counters.commit_latency.snapshot(),
            poisoned: self.failure().map(ToString::to_string),
        }
    }
}
