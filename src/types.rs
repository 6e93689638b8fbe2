//! Ids and sizes that must not be swapped for each other.

use std::fmt;
use std::num::NonZero;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(pub(crate) $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

id!(
    /// Number of a data file within its partition, never given twice (F1). Zero is "none".
    FileId(u64),
    "{:09}"
);
id!(
    /// Number of a partition, from zero.
    PartitionId(u32),
    "{:03}"
);
id!(
    /// Order of a record among all records of its partition; never given twice (F5). Zero is "none".
    Seqno(u64),
    "{}"
);
id!(
    /// Key space of a record; zero is the default one (N1).
    KeyspaceId(u32),
    "{}"
);

id!(
    /// Which of a store's keys something is encrypted with; zero is "none".
    KeyId(u64),
    "{:016x}"
);

impl KeyId {
    pub(crate) const NONE: KeyId = KeyId(0);
}

/// Random identity of a store; every file repeats it (F2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct StoreId(pub(crate) [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Keyed 128-bit hash of (keyspace, key), cut into the parts that are used separately.
///
/// `bucket` and `table` together are the 96 bits that a keydir entry stores; `route` chooses the
/// partition and is stored nowhere, because every key of a partition shares the choice (§5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyHash {
    /// Chooses the bucket and the control byte inside a table.
    pub(crate) bucket: u64,
    /// Chooses the table inside a keydir.
    pub(crate) table: u32,
    /// Chooses the partition.
    pub(crate) route: u32,
}

/// When a record stops to count, in milliseconds since 1970; never zero, so that "never" costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ExpiresAt(NonZero<u64>);

impl ExpiresAt {
    /// `None` for zero, which a record has for "never".
    pub(crate) fn from_ms(ms: u64) -> Option<ExpiresAt> {
        NonZero::new(ms).map(ExpiresAt)
    }

    pub(crate) fn as_ms(self) -> u64 {
        self.0.get()
    }

    pub(crate) fn as_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.as_ms())
    }
}

/// How long a key is still there, as [`Db::ttl`](crate::Db::ttl) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// There is no such key.
    Missing,
    /// It does not expire.
    Forever,
    /// It expires after this time.
    Left(Duration),
}

/// What is known of a key besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryInfo {
    /// Of the write that made it: larger than that of every earlier write of the key. Numbers of
    /// different partitions say nothing about each other.
    pub seqno: u64,
    /// Length of the value in bytes.
    pub value_len: u64,
    /// When it expires; `None` if never.
    pub expires_at: Option<SystemTime>,
}
