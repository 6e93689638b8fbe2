//! Keys of a store that is encrypted at rest.

use std::fmt;

#[cfg(feature = "encryption")]
use super::Options;

/// The keys that a store is opened with.
#[derive(Clone, Default)]
pub(crate) struct EncryptionKeys {
    /// Without it nothing is encrypted.
    pub(crate) current: Option<[u8; 32]>,
    /// For what was encrypted before the key was replaced.
    pub(crate) old: Vec<[u8; 32]>,
}

/// Says how many there are, and nothing of them.
impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = usize::from(self.current.is_some()) + self.old.len();
        write!(f, "{count} keys")
    }
}

#[cfg(feature = "encryption")]
impl Options {
    /// Encrypts keys and values on the disk with this key, 32 bytes that nobody can guess; feature `encryption`.
    /// Default: nothing is encrypted.
    ///
    /// Whoever has the files and not the key learns how many records there are, how long their keys and values
    /// are, to which keyspace they belong, when they expire, and which were written when; not a byte of a key or value,
    /// in data files, hint files or anywhere else. What was changed on purpose does not decrypt, but a whole record can
    /// be exchanged for an older one of the same key. The cipher is XChaCha20-Poly1305; a record gets 64 bytes
    /// longer. Lose the key and the data is lost.
    ///
    /// - A store that is encrypted opens with its key only: without it, or with another one, opening is
    ///   [`WrongKey`](crate::ErrorKind::WrongKey), and nothing was changed.
    /// - A store that was not encrypted is from now on: what is written is encrypted, what is there stays
    ///   readable, and [`Db::compact`](crate::Db::compact) encrypts it.
    /// - To replace the key, open with the new one here and the old one as
    ///   [`encryption_key_old`](Self::encryption_key_old).
    ///
    /// # Example: what is on the disk says nothing
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path();
    /// use ringcask::{ErrorKind, Options};
    /// let key = [7; 32]; // from wherever secrets are kept
    /// let db = Options::new().partitions(1).encryption_key(key).open(path).await?;
    /// db.put("user:1", "Ada Lovelace").await?;
    /// db.close().await?;
    ///
    /// let bytes = std::fs::read(path.join("partition-000/000000001.data")).unwrap();
    /// assert!(!bytes.windows(3).any(|part| part == b"Ada" || part == b"use"));
    /// let refused = Options::new().open(path).await.unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::WrongKey);
    /// # Ok::<(), ringcask::Error>(()) }).unwrap();
    /// ```
    pub fn encryption_key(mut self, key: [u8; 32]) -> Options {
        self.encryption.current = Some(key);
        self
    }

    /// A key that the store was encrypted with before, to read what still is; may be given several times.
    ///
    /// [`Db::compact`](crate::Db::compact) encrypts everything with the newest key, and so does compaction of its
    /// own accord, file by file. Once [`PartitionStats::files_other_key`](crate::PartitionStats::files_other_key)
    /// is zero in all partitions, no old key is needed any more.
    pub fn encryption_key_old(mut self, key: [u8; 32]) -> Options {
        self.encryption.old.push(key);
        self
    }
}
