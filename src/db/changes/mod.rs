//! Following what is committed, from a position on.
//!
//! Whoever begins at the beginning is told what the store holds, key by key as a scan finds it, and after that the log from
//! where it was when that began. So it makes no difference what compaction has made of the log before; and what was told too
//! early or too late in the walk is told again by the log.
//!
//! ```text
//! position   how far somebody has come: where the log goes on, and what is told of the walk
//! feed       what comes next: a page of the walk, or a stretch of the log of one partition
//! ```
//!
//! ## Invariants
//! - **CF1** Nothing is told that a power cut could take back: of the log only what is known to be durable, and a page of the
//!   walk after a sync of what it was read from.
//! - **CF2** Files of the log are read in the order of their ids, and compaction's copies are not. Of a file that is gone before
//!   it was read the follower is told: the id of the newest such file is shown before it leaves the table of files.
//! - **CF3** A follower that waits is woken: it asks for that before it looks for more.
//! - **CF4** The log says of a key what it says in the order of sequence numbers, with one exception: a batch that a killed
//!   store had decided is completed by the next open, with the numbers it had, and once more by one that has lost a
//!   hint. Such a record counts only if it is the newest of its key, for who began behind it too.

mod feed;
mod position;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};

use self::feed::{End, Feed, Found, Page, Queued, Then};
pub use self::position::ChangePosition;
use self::position::{WalkAt, foreign};
use super::watch::DeletedRange;
use super::{Db, Shared};
use crate::error::{Error, Result};
use crate::types::{ExpiresAt, KeyspaceId};

/// A stream of what was committed; made by [`Db::changes`].
///
/// An error ends the stream.
#[must_use = "changes are read when the stream is polled"]
pub struct Changes {
    shared: Arc<Shared>,
    position: ChangePosition,
    /// What is read and not told, and what its end means for the position.
    page: Page,
    state: State,
    is_following: bool,
    /// Whom the partitions wake when there is more than what was looked for last.
    waiting: Option<Waker>,
    names: HashMap<KeyspaceId, Arc<str>>,
}

enum State {
    /// Not begun, or why it cannot.
    Refused(Error),
    Idle(Box<Feed>),
    Filling(BoxFuture<'static, (Box<Feed>, Result<Page>)>),
    Ended,
}

/// One committed change of one key, or of a range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The name of the keyspace; `None` for the default one, and for one that was dropped since.
    pub keyspace: Option<Arc<str>>,
    /// The number of the keyspace, 0 for the default one; a number is never given twice.
    pub keyspace_id: u32,
    /// The partition, from zero.
    pub partition: usize,
    /// Order of the change in its partition.
    pub seqno: u64,
    /// What was changed.
    pub kind: ChangeKind,
}

/// What a [`Change`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// The key has this value.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// When it expires; `None` if never. That it has is not told again.
        expires_at: Option<SystemTime>,
    },
    /// The key was deleted, or evicted.
    Del {
        /// The key.
        key: Bytes,
    },
    /// Every key of a range was deleted, of this partition.
    DelRange(DeletedRange),
}

/// Where [`Db::changes`] begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangesSince {
    /// With everything that the store holds.
    #[default]
    Beginning,
    /// With what is committed from now on.
    Now,
    /// Behind a position that an earlier stream had come to.
    Position(ChangePosition),
}

impl From<ChangePosition> for ChangesSince {
    fn from(position: ChangePosition) -> ChangesSince {
        ChangesSince::Position(position)
    }
}

impl Db {
    /// Streams what was committed in all keyspaces, from a position on: for replicas, indexes, caches and increments of a backup.
    ///
    /// The stream ends at what is committed when it comes there, and goes on when it is polled again later; with
    /// [`follow`](Changes::follow) it waits for more instead. [`position`](Changes::position) says how far it has come, and
    /// a later stream goes on there, also after the store was closed, or killed.
    ///
    /// **What it yields.** Only what is durable: nothing that a power cut takes back is ever told. Of each partition in the order in which
    /// it was committed, and of different partitions in any order. Of a batch only what was decided, and all of it, each
    /// partition's part when its turn comes. Deleted ranges once for each partition, as what they are. An eviction is a
    /// deletion; an expiry is nothing, because nothing is written for it. What was superseded may be told or not.
    ///
    /// **From the beginning** it yields what the store holds, each key once as a scan finds it, and then everything that was committed
    /// since that began: a copy that applies all of it is in the end what the store is. While the first part is under way the copy
    /// is of no single moment.
    ///
    /// **At least once.** After a restart from a position, changes of the same commit group may be told again, and applying them again
    /// leads to the same.
    ///
    /// **How long the log is kept.** Compaction gives back what was superseded, and moves the rest out of order. What
    /// [`Options::changes_retention_bytes`](crate::Options::changes_retention_bytes) and
    /// [`Options::changes_retention_age`](crate::Options::changes_retention_age) say is kept for those who come back later;
    /// a stream keeps by itself what there is for it to read, from when it is made, and what comes while it is polled often enough. If something was lost the stream says so, with
    /// [`PositionGone`](crate::ErrorKind::PositionGone), and never leaves anything out silently.
    ///
    /// Everything is read on the caller's side, in pages of about 1 MiB, or one value if it is longer.
    ///
    /// # Errors
    /// As items of the stream: `ForeignPosition` for a position of another store, `PositionGone`, and those of [`Db::get`].
    ///
    /// # Example: a copy in memory that goes on where it was
    /// ```
    /// # futures::executor::block_on(async {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use ringcask::{ChangeKind, ChangesSince, Db};
    /// let db = Db::open(dir.path()).await?;
    /// db.put("a", "1").await?;
    /// let mut changes = db.changes(ChangesSince::Beginning);
    /// assert!(matches!(changes.next().await.transpose()?.unwrap().kind, ChangeKind::Put { .. }));
    /// assert!(changes.next().await.is_none());
    /// let position = changes.position().to_string(); // to be kept with the copy
    /// drop(changes);
    ///
    /// db.del("a").await?;
    /// let mut changes = db.changes(position.parse::<ringcask::ChangePosition>()?);
    /// let change = changes.next().await.transpose()?.unwrap();
    /// assert_eq!(change.kind, ChangeKind::Del { key: "a".into() });
    /// # drop(changes);
    /// # db.close().await }).unwrap();
    /// ```
    pub fn changes(&self, since: impl Into<ChangesSince>) -> Changes {
        let shared = self.shared.clone();
        let from_now = |walk: Option<WalkAt>| loop {
            let position = ChangePosition {
                store: shared.instance,
                map_epoch: shared.map_epoch,
                walk: walk.clone(),
                places: feed::places_now(&shared),
            };
            // Compaction may be so fast that what is now is gone at once.
            if let Ok(feed) = Feed::begin(shared.clone(), &position) {
                break (position, Ok(feed));
            }
        };
        let (position, feed) = match since.into() {
            ChangesSince::Now => from_now(None),
            ChangesSince::Beginning => {
                from_now(Some(WalkAt { keyspace: KeyspaceId(0), key: Bytes::new() }))
            }
            ChangesSince::Position(position) => {
                let is_known = shared.check_position(&position);
                let feed = is_known.and_then(|()| Feed::begin(shared.clone(), &position));
                (position, feed)
            }
        };
        let state = match feed {
            Err(error) => State::Refused(error),
            Ok(feed) => State::Idle(Box::new(feed)),
        };
        shared.watchers.stream(true);
        Changes {
            shared,
            position,
            page: Page::default(),
            state,
            is_following: false,
            waiting: None,
            names: HashMap::new(),
        }
    }
}

impl Shared {
    fn check_position(&self, position: &ChangePosition) -> Result<()> {
        if position.store != self.instance {
            return Err(foreign("another store"));
        }
        if (position.map_epoch, position.places.len()) != (self.map_epoch, self.partitions.len()) {
            return Err(foreign("a state of the store with other partitions"));
        }
        Ok(())
    }
}

impl Changes {
    /// At the end waits for more, until the store is closed.
    pub fn follow(mut self) -> Changes {
        if !self.is_following {
            self.is_following = true;
            self.shared.watchers.follow(true);
        }
        self
    }

    /// Behind which change the stream is: give it to [`Db::changes`] to go on from there.
    ///
    /// Changes of one commit group, and so of a batch that fits into one, have one position, the one behind the last of them: a
    /// stream that goes on from between them tells the group again.
    pub fn position(&self) -> ChangePosition {
        self.position.clone()
    }

    /// The next change, or `None` if there is none for now.
    ///
    /// # Errors
    /// As [`Db::changes`].
    pub async fn next(&mut self) -> Option<Result<Change>> {
        StreamExt::next(self).await
    }

    fn tell(&mut self, queued: Queued) -> Result<Change> {
        let Queued { keyspace, shard, seqno, found, then } = queued;
        let kind = match found {
            Found::Put { key, value, expires_at } => {
                ChangeKind::Put { key, value, expires_at: expires_at.map(ExpiresAt::as_time) }
            }
            Found::Stored { key, header, stored } => {
                let expires_at = header.expires_at().map(ExpiresAt::as_time);
                let value = self.shared.watched_value(&header, stored)?;
                ChangeKind::Put { key, value, expires_at }
            }
            Found::Del { key } => ChangeKind::Del { key },
            Found::RangeDel(range) => {
                let partition = crate::types::PartitionId(shard as u32);
                ChangeKind::DelRange(DeletedRange::new(&self.shared, range, partition))
            }
        };
        let top = &mut self.position.places[shard].top;
        *top = seqno.max(*top);
        match then {
            Then::Nothing => {}
            Then::Offset(file, offset) => {
                let place = &mut self.position.places[shard];
                (place.file, place.offset) = (file, offset);
            }
            Then::Walked(walk) => self.position.walk = Some(walk),
        }
        let keyspace_name = self.name_of(keyspace);
        Ok(Change {
            keyspace: keyspace_name,
            keyspace_id: keyspace.0,
            partition: shard,
            seqno: seqno.0,
            kind,
        })
    }

    fn name_of(&mut self, keyspace: KeyspaceId) -> Option<Arc<str>> {
        if keyspace == KeyspaceId(0) {
            return None;
        }
        if let Some(name) = self.names.get(&keyspace) {
            return Some(name.clone());
        }
        let name: Arc<str> = self.shared.keyspaces.name_of(keyspace)?.into();
        self.names.insert(keyspace, name.clone());
        Some(name)
    }
}

impl Stream for Changes {
    type Item = Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(queued) = self.page.queued.pop_front() {
                let change = self.tell(queued);
                if change.is_err() {
                    self.state = State::Ended;
                    self.page = Page::default();
                }
                return Poll::Ready(Some(change));
            }
            match std::mem::take(&mut self.page.end) {
                End::Nothing => {}
                End::Place(shard, place) => self.position.places[shard] = place,
                End::WalkOver => self.position.walk = None,
            }
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Refused(error) => return Poll::Ready(Some(Err(error))),
                State::Idle(mut feed) => {
                    if self.is_following {
                        self.shared.watchers.wait_for_log(cx); // CF3
                        self.waiting = Some(cx.waker().clone());
                    }
                    self.state = State::Filling(Box::pin(async move {
                        let page = feed.fill().await;
                        (feed, page)
                    }));
                }
                State::Filling(mut filling) => {
                    let Poll::Ready((feed, page)) = filling.as_mut().poll(cx) else {
                        self.state = State::Filling(filling);
                        return Poll::Pending;
                    };
                    match page {
                        Ok(page) if page.is_nothing() => {
                            self.state = State::Idle(feed);
                            if !self.is_following {
                                return Poll::Ready(None);
                            }
                            if self.shared.watchers.is_over() {
                                self.state = State::Ended;
                                return Poll::Ready(None);
                            }
                            let waiting = self.waiting.as_ref();
                            if waiting.is_some_and(|waker| waker.will_wake(cx.waker())) {
                                return Poll::Pending;
                            }
                            // Somebody else polls by now: he asks to be woken, and looks once more.
                        }
                        Ok(page) => {
                            self.page = page;
                            self.state = State::Idle(feed);
                        }
                        // What is still to come is told when the store is open again.
                        Err(error) if error.is_closed() && self.is_following => {
                            return Poll::Ready(None);
                        }
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    }
                }
            }
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.shared.watchers.stream(false);
        if self.is_following {
            self.shared.watchers.follow(false);
        }
    }
}
