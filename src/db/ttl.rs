//! When keys expire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::update::Update;
use super::{Db, Shared, Space};
use crate::error::{Error, Result};
use crate::mailbox::{Change, Expiry};
use crate::types::{ExpiresAt, Ttl};

impl Db {
    /// Makes `key` expire after `ttl` from now, whatever it did before; true if it is there.
    ///
    /// The record is written anew, with the durability of the store.
    ///
    /// # Errors
    /// `InvalidArgument` if `ttl` is zero or reaches beyond the year 292 million; as [`Db::put`] and
    /// [`Db::get`] otherwise.
    ///
    /// # Example: a session that is used stays
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    ///
    /// use ringcask::{Db, Ttl};
    ///
    /// let db = Db::open(dir.path()).await?;
    /// db.put("session", "Ada").ttl(Duration::from_secs(60)).await?;
    /// assert!(db.expire("session", Duration::from_secs(3600)).await?);
    /// assert!(matches!(db.ttl("session").await?, Ttl::Left(left) if left.as_secs() > 3000));
    /// assert!(db.persist("session").await?);
    /// assert_eq!(db.ttl("session").await?, Ttl::Forever);
    /// # db.close().await }).unwrap();
    /// ```
    pub fn expire<K: AsRef<[u8]>>(&self, key: K, ttl: Duration) -> Update<'_, bool> {
        let expires_at = self.shared.after(ttl);
        Update::new(&self.shared, self.space, key.as_ref(), |reply| {
            Ok((Change::Expire { reply }, Expiry::At(Some(expires_at?))))
        })
    }

    /// Makes `key` expire at a time; one that is past deletes it. True if it is there.
    ///
    /// # Errors
    /// As [`Db::expire`].
    pub fn expire_at<K: AsRef<[u8]>>(&self, key: K, at: SystemTime) -> Update<'_, bool> {
        Update::new(&self.shared, self.space, key.as_ref(), |reply| {
            Ok((Change::Expire { reply }, Expiry::At(Some(moment(at)?))))
        })
    }

    /// Makes `key` stay for ever; true if it is there and would have expired.
    ///
    /// # Errors
    /// As [`Db::expire`].
    pub fn persist<K: AsRef<[u8]>>(&self, key: K) -> Update<'_, bool> {
        Update::new(&self.shared, self.space, key.as_ref(), |reply| {
            Ok((Change::Expire { reply }, Expiry::At(None)))
        })
    }

    /// How long `key` is still there.
    ///
    /// # Errors
    /// As [`Db::get`].
    pub async fn ttl<K: AsRef<[u8]>>(&self, key: K) -> Result<Ttl> {
        let Some(entry) = self.shared.entry(self.space.id, key.as_ref()).await? else {
            return Ok(Ttl::Missing);
        };
        let left = |at: ExpiresAt| at.as_ms().saturating_sub(self.shared.expiry.now_ms());
        Ok(entry.expires_at.map_or(Ttl::Forever, |at| Ttl::Left(Duration::from_millis(left(at)))))
    }
}

impl Shared {
    /// So long from now.
    pub(super) fn after(&self, ttl: Duration) -> Result<ExpiresAt> {
        if ttl.is_zero() {
            return Err(Error::invalid("the time to live is zero; delete the key instead"));
        }
        // A part of a millisecond counts as a whole one: nothing expires early.
        let ttl_ms = ttl.as_nanos().div_ceil(1_000_000);
        let ms = u128::from(self.expiry.now_ms()) + ttl_ms;
        expires_at(ms).ok_or_else(|| {
            Error::invalid(format!(
                "the time to live is {} s, beyond any date; leave it out if the key is to stay for ever",
                ttl.as_secs()
            ))
        })
    }

    /// When a value that is written now expires, if nothing else is said.
    pub(super) fn default_expiry(&self, space: Space) -> Result<Option<ExpiresAt>> {
        space.default_ttl.map(|ttl| self.after(ttl)).transpose()
    }
}

pub(super) fn moment(at: SystemTime) -> Result<ExpiresAt> {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    // Zero is "never" in a record, and as past as one.
    let ms = since.as_millis().max(1);
    expires_at(ms).ok_or_else(|| Error::invalid("the time is beyond any date"))
}

/// No date that a `SystemTime` could not hold.
fn expires_at(ms: u128) -> Option<ExpiresAt> {
    let ms = i64::try_from(ms).ok()?;
    ExpiresAt::from_ms(ms.unsigned_abs())
}
