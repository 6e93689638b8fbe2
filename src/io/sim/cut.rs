//! What a power cut leaves: which bytes, and which names, independently of each other.

/// What a power cut leaves of everything that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// Nothing: the least a disk may keep.
    DropUnsynced,
    /// Everything, as if all caches had been written just in time.
    KeepAll,
    /// Any subset of sectors, lengths and directory changes, drawn from the seed.
    Random {
        /// The same seed on the same disk leaves the same bytes.
        seed: u64,
    },
    /// The first so many unsynced writes and length changes, over all files in the order they were
    /// made, and every directory change.
    KeepWrites(usize),
    /// Bytes and names each by a policy of their own.
    Apart {
        /// What is left of writes and length changes.
        bytes: KeptBytes,
        /// What is left of directory changes.
        names: KeptNames,
        /// Draws whatever the policies leave to chance.
        seed: u64,
    },
}

/// What a power cut leaves of unsynced writes and length changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeptBytes {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// The first so many, over all files in the order they were made.
    First(usize),
    /// The first so many, and of the next one a beginning of any length: a torn write.
    Torn(usize),
    /// All lengths and no bytes: files that grew end in zeros.
    Zeros,
    /// Any subset of sectors of 512 bytes, the last one perhaps torn, and any length that a file had.
    Sectors,
}

/// What a power cut leaves of unsynced creations, renames and removals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeptNames {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// The first so many, over all directories in the order they were made.
    First(usize),
    /// Any subset.
    Random,
}

impl Cut {
    pub(super) fn parts(self) -> (KeptBytes, KeptNames) {
        match self {
            Cut::DropUnsynced => (KeptBytes::None, KeptNames::None),
            Cut::KeepAll => (KeptBytes::All, KeptNames::All),
            Cut::Random { .. } => (KeptBytes::Sectors, KeptNames::Random),
            Cut::KeepWrites(count) => (KeptBytes::First(count), KeptNames::All),
            Cut::Apart { bytes, names, .. } => (bytes, names),
        }
    }

    pub(super) fn seed(self) -> u64 {
        match self {
            Cut::Random { seed } | Cut::Apart { seed, .. } => seed,
            _ => 0,
        }
    }
}
