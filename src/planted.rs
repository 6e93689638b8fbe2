//! Bugs that are planted on purpose, to show that the tests would notice them.
//!
//! They exist only in builds with `--cfg planted_bugs`, and there at most one of them is alive: the one
//! that `RINGCASK_PLANTED_BUG` names. `scripts/planted-bugs.sh` brings each alive in turn and demands that a
//! test fails. In every other build [`is_planted`] is a constant `false`, and nothing of this is left.

/// One wrong line, and the promise that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// W2: a durable write is acknowledged without a sync.
    AckBeforeSync,
    /// W2: a DSYNC write is taken to make the bytes before it durable too.
    DsyncCoversAll,
    /// W4: a file is sealed and left without a sync.
    SealUnsynced,
    /// F1: a data file that `FILES` does not list is read.
    UnlistedFileRead,
    /// F1: a directory is not synced after its names changed.
    DirectoryUnsynced,
    /// F1: a store without MANIFEST is taken for a new one.
    MissingManifestIgnored,
    /// F3: the checksum of a record's key and value is not looked at.
    BodyCrcIgnored,
    /// F3: the checksum of a record's header is not looked at.
    HeaderCrcIgnored,
    /// F3: a record's checksum does not say where in its file it belongs.
    PlaceIgnored,
    /// F4: a group need not follow the one before it.
    StaleGroupRevived,
    /// F4: bytes that were durable once are cut off like a torn tail.
    DamagedTailCut,
    /// F5: an open starts to count sequence numbers from the beginning.
    SeqnoReset,
    /// K3: of two records of a key the one read last wins.
    LastReadWins,
    /// K4: compaction moves a key that was overwritten meanwhile.
    MovedUnconditionally,
    /// K5: what a put supersedes is not counted as dead.
    DeadUncounted,
    /// C1: a tombstone goes although an older file may hold its key.
    TombstoneDroppedEarly,
    /// C1: a range tombstone goes although an older file may hold a key of its range.
    RangeDroppedEarly,
    /// C1: a range tombstone goes although an older file has intents of its range.
    IntentsUnhidden,
    /// RG2: a reader does not ask whether a range hides what it found.
    RangeIgnoredByReaders,
    /// RG2: a range is forgotten before the keydir is rid of its keys.
    RangeForgottenEarly,
    /// C2: inputs are removed before `FILES` names the outputs.
    InputsRemovedEarly,
    /// C2: `FILES` names outputs that are not synced.
    OutputsUnsynced,
    /// CM1: what superseded the records left out need not be durable.
    SupersedersUnsynced,
    /// KR2: a key run covers files that it was not made from.
    CoversTheUnmerged,
    /// B1: a batch that fits into one commit group is spread over several.
    BatchInPieces,
    /// B1: a batch is decided before its intents are durable.
    DecidedEarly,
    /// B1: a decision counts before it is durable.
    DecisionUnsynced,
    /// B1: an open makes the intents of a batch count that nobody decided.
    AbortsForgotten,
    /// §5: readers are not told that a batch is being published.
    BatchSeenHalf,
    /// H1: a hint of another state of its data file is believed.
    StaleHintBelieved,
    /// H1: a scan that meets a damaged hint goes on without that file.
    DamagedHintPassedOver,
    /// SN1: a scan passes over keys that were written or moved since it began.
    RewrittenPassedOver,
    /// SS1: what was there is not noted for snapshots before it changes.
    SnapshotUnnoted,
    /// S1: partitions say what there is for a snapshot, and do not wait for each other.
    MomentsApart,
    /// BU2: MANIFEST of a backup is there before the files that it makes count.
    BackupManifestFirst,
    /// B1: a file with intents or decisions comes into a backup with a hint that does not say so.
    UnsettledHintKept,
    /// F5: a backup that is opened stays what it was.
    BackupStaysOne,
    /// SN2: a scan takes every key that a file names for one that is there.
    NamesBelieved,
    /// D1: a sync that failed is tried again, and believed.
    FailedSyncRetried,
    /// D1: what reached the disk of a group that failed stays there.
    FailedGroupLeft,
    /// U4: a write that moved some of its bytes is taken for done.
    ShortWriteIgnored,
    /// R1: a request is answered twice.
    AnsweredTwice,
    /// RT3: what a key left behind when it went to another partition counts when it comes back.
    LeftBehindCounts,
    /// RP3: a new map is in force before the names of what was moved are durable.
    MovedUnsynced,
    /// EV1: a key is evicted without a tombstone.
    EvictionUnlogged,
    /// CO2: a compressed value of another length than it claims is handed out.
    ClaimedLengthBelieved,
    /// CO3: what is copied stays under the key that it had.
    OldKeyKept,
    /// Hints of an encrypted store are not encrypted.
    HintInPlain,
    /// WT2: a watcher that fell behind is not told so.
    WatchGapHidden,
    /// WT1: a write is acknowledged before its event can be taken.
    WatchToldLate,
    /// CF2: a follower is not told that a part of the log is gone.
    ChangesGapHidden,
    /// The read cache knows a record by its offset, whichever file that is in.
    CachedByOffset,
    /// RO1: a reader takes a batch that was decided for one that did not happen.
    UnsettledForReaders,
    /// X1: a store that is open elsewhere is opened.
    LockIgnored,
}

#[cfg(not(planted_bugs))]
#[inline]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}

#[cfg(planted_bugs)]
pub(crate) fn is_planted(bug: Bug) -> bool {
    static ALIVE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let alive = ALIVE.get_or_init(|| std::env::var("RINGCASK_PLANTED_BUG").ok());
    alive.as_ref().is_some_and(|alive| *alive == format!("{bug:?}"))
}
