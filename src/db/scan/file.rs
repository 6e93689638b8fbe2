//! The keys of one data file in order: by its hint, or by runs made from its log where it has none (H1); or those
//! of many by the key run that covers them.
//!
//! Whatever is in the page cache is read on the caller's thread, the rest by the worker.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::span::Span;
use crate::db::Shared;
use crate::db::call::Call;
use crate::error::{Error, ErrorKind, Result};
use crate::log::data_file::{CoveringRun, DataFile};
use crate::log::format::FormatError;
use crate::log::format::data_header::DATA_HEADER_LEN;
use crate::log::format::hint::index::Index;
use crate::log::format::hint::{KeyRange, Section};
use crate::log::format::record::{RecordHeader, RecordKind};
use crate::log::hint_file::{
    Hint, HintBuilder, KeyAt, KeyCursor, NO_HASH, Parsed, RUN_RECORDS_MAX, Run, RunSet, Shape,
};
use crate::log::key_run;
use crate::log::scanner::RecordAt;
use crate::log::stretch::{STRETCH_LEN, StretchRead, read_stretch};
use crate::mailbox::{PageOf, Request, reply_slot};
use crate::types::{FileId, KeyspaceId};

/// What the worker reads along with a block, so that the next ones are in the page cache.
const READ_AHEAD_LEN: u64 = 128 << 10;

/// Why a file gives no more keys.
pub(super) enum Trouble {
    /// Its hint is not to be used.
    HintBroken,
    Failed(Error),
}

impl From<FormatError> for Trouble {
    fn from(_: FormatError) -> Trouble {
        Trouble::HintBroken
    }
}

/// A position in the keys of a file.
pub(super) struct FileCursor {
    pub(super) shard: usize,
    source: Source,
    keys: KeyCursor,
    state: State,
    ahead: Ahead,
}

/// The data file comes last, so that upkeep is the last to let go of it (G3).
#[derive(Clone)]
pub(super) enum Source {
    Hint(Arc<Hint>, Arc<DataFile>),
    /// Some records of a file that has no hint.
    Run(Arc<Run>, Arc<DataFile>),
    Keys(CoveringRun),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No block was read yet; the hint says what its first key is.
    Unstarted,
    AtKey,
    /// The block is at its end.
    Passed,
    /// The block cannot be understood to its end.
    Broken,
}

/// Which blocks are still to come.
enum Ahead {
    /// Those of the hint from this offset on.
    From(u64),
    /// Those of the hint between these offsets, the last one first.
    Between(Vec<u64>),
    /// Of the index this one, and those that follow in the direction of the scan.
    Numbered(Option<usize>),
}

impl FileCursor {
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// The data file that the entry's record is in, if that is known.
    #[inline]
    pub(super) fn file_id(&self) -> Option<FileId> {
        match &self.source {
            Source::Hint(_, data) | Source::Run(_, data) => Some(data.id),
            Source::Keys(_) => key_run::file_of(&self.keys.at()),
        }
    }

    /// Whether [`load`](Self::load) is due before it has a key that was not passed yet.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        self.state != State::AtKey
    }

    /// Whether it has come to the end of a block: it comes before all others then, because nothing is known of
    /// what it has.
    #[inline]
    pub(super) fn is_passed(&self) -> bool {
        matches!(self.state, State::Passed | State::Broken)
    }

    /// The key that it is at, or that it begins with.
    #[inline]
    pub(super) fn key(&self) -> (KeyspaceId, &[u8]) {
        if self.state == State::Unstarted
            && let Some(key) = self.first_key()
        {
            return key;
        }
        self.keys.key()
    }

    #[inline]
    pub(super) fn at(&self) -> KeyAt {
        self.keys.at()
    }

    /// Goes on by one key, if the block has more.
    #[inline]
    pub(super) fn advance(&mut self) -> Result<(), FormatError> {
        if !self.keys.advance()? {
            self.state = State::Passed;
        }
        Ok(())
    }

    /// The block turned out damaged: loading says so.
    pub(super) fn give_up(&mut self) {
        self.state = State::Broken;
    }

    /// The first key in its direction, if that is known.
    fn first_key(&self) -> Option<(KeyspaceId, &[u8])> {
        let KeyRange { first, last } = match &self.source {
            Source::Hint(hint, _) => hint.shape()?.keys.as_ref()?,
            Source::Keys(covering) => covering.run.keys.as_ref()?,
            Source::Run(..) => return None,
        };
        let key = if self.keys.is_reverse() { last } else { first };
        Some((key.keyspace, &key.key))
    }

    /// Reads blocks until it is at a key of `span`; false if none is left.
    pub(super) async fn load(&mut self, reader: &Reader<'_>, span: &Span) -> Result<bool, Trouble> {
        if self.state == State::Broken {
            return Err(Trouble::HintBroken);
        }
        let is_start = self.state == State::Unstarted;
        let mut is_first = is_start;
        while self.load_block(reader, !is_first).await? {
            let is_there = if is_start {
                self.keys.seek(&|keyspace, key| span.is_before(keyspace, key))?
            } else {
                self.keys.advance()?
            };
            is_first = false;
            if is_there {
                self.state = State::AtKey;
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn load_block(&mut self, reader: &Reader<'_>, is_next: bool) -> Result<bool, Trouble> {
        let mut buf = self.keys.take_buf();
        match (&self.source, &mut self.ahead) {
            (Source::Run(run, _), Ahead::Numbered(next)) => {
                let Some(place) = next_place(run.index(), next, self.keys.is_reverse()) else {
                    return Ok(false);
                };
                run.read(place, &mut buf);
            }
            (Source::Keys(CoveringRun { run, .. }), Ahead::Numbered(next)) => {
                let is_reverse = self.keys.is_reverse();
                let Some(place) = next_place(run.index(), next, is_reverse) else {
                    return Ok(false);
                };
                let ahead = if is_reverse { 0 } else { READ_AHEAD_LEN.min(run.len - place.offset) };
                reader.checked_page(&PageOf::Keys(run.clone()), place, ahead, &mut buf).await?;
            }
            (Source::Hint(hint, data), Ahead::From(offset)) => {
                let shape = reader.shape(data, hint).await?;
                if *offset >= shape.blocks_end {
                    return Ok(false);
                }
                let mut place = shape.block(*offset, None);
                reader.hint_page(data, hint, place, READ_AHEAD_LEN, &mut buf).await?;
                let len = Shape::block_len(&buf)?;
                if len > place.len {
                    place = shape.block(*offset, Some(len));
                    reader.hint_page(data, hint, place, 0, &mut buf).await?;
                }
                buf.truncate(len as usize);
                *offset += len;
            }
            (Source::Hint(hint, data), Ahead::Between(bounds)) => {
                let (Some(end), Some(start)) = (bounds.pop(), bounds.last()) else {
                    return Ok(false);
                };
                let place = Section { offset: *start, len: end - start };
                reader.hint_page(data, hint, place, 0, &mut buf).await?;
            }
            _ => return Ok(false),
        }
        self.keys.enter(buf, is_next)?;
        Ok(true)
    }
}

/// Reads files of one partition for a scan.
#[derive(Clone, Copy)]
pub(in crate::db) struct Reader<'s> {
    pub(in crate::db) shared: &'s Shared,
    pub(in crate::db) shard: usize,
}

impl Reader<'_> {
    /// Cursors that together pass every key of the file in `span`.
    pub(super) async fn open(&self, data: &Arc<DataFile>, span: &Span) -> Result<Vec<FileCursor>> {
        if let Some(hint) = data.hint() {
            match self.open_hint(data, &hint, span).await {
                Ok(cursor) => return Ok(cursor.into_iter().collect()),
                Err(Trouble::HintBroken) => self.tell_broken(data, &hint).await?,
                Err(Trouble::Failed(error)) => return Err(error),
            }
        }
        self.open_log(data, span).await
    }

    /// Cursors over what the log itself says, for want of a hint.
    pub(super) async fn open_log(
        &self,
        data: &Arc<DataFile>,
        span: &Span,
    ) -> Result<Vec<FileCursor>> {
        let set = self.extend_runs(data).await?;
        let mut cursors = Vec::new();
        for run in &set.runs {
            let keys = run.cursor(span.is_reverse);
            let first = first_block(run.index(), span);
            let mut cursor = FileCursor {
                shard: self.shard,
                source: Source::Run(run.clone(), data.clone()),
                keys,
                state: State::Unstarted,
                ahead: Ahead::Numbered(first),
            };
            match cursor.load(self, span).await {
                Ok(true) => cursors.push(cursor),
                Ok(false) => {}
                Err(trouble) => return Err(run_broken(data, trouble)),
            }
        }
        Ok(cursors)
    }

    /// The cursor over a key run; `None` if it has no key in `span`.
    pub(super) async fn open_run(
        &self,
        covering: &CoveringRun,
        span: &Span,
    ) -> Result<Option<FileCursor>, Trouble> {
        let run = &covering.run;
        let Some(reach) = run.keys.as_ref().map(|keys| Reach::of(keys, span)) else {
            return Ok(None);
        };
        if reach == Reach::Outside {
            return Ok(None);
        }
        let first = if span.is_reverse || reach != Reach::Whole {
            first_block(run.index(), span)
        } else {
            Some(0)
        };
        let mut cursor = FileCursor {
            shard: self.shard,
            source: Source::Keys(covering.clone()),
            keys: run.cursor(span.is_reverse),
            state: State::Unstarted,
            ahead: Ahead::Numbered(first),
        };
        let is_there = reach == Reach::Whole || cursor.load(self, span).await?;
        Ok(is_there.then_some(cursor))
    }

    /// A hint is ignored from here on, and made anew.
    pub(super) async fn tell_broken(&self, data: &Arc<DataFile>, hint: &Arc<Hint>) -> Result<()> {
        let (reply, receiver) = reply_slot();
        let (data, hint) = (data.clone(), hint.clone());
        Call::new(self.shared, self.shard, Request::HintBroken { data, hint, reply }, receiver)
            .await
    }

    async fn open_hint(
        &self,
        data: &Arc<DataFile>,
        hint: &Arc<Hint>,
        span: &Span,
    ) -> Result<Option<FileCursor>, Trouble> {
        let shape = self.shape(data, hint).await?;
        if shape.is_empty {
            return Ok(None);
        }
        let reach = shape.keys.as_ref().map_or(Reach::Part, |keys| Reach::of(keys, span));
        if reach == Reach::Outside {
            return Ok(None);
        }
        let is_all = reach == Reach::Whole;
        let start = DATA_HEADER_LEN as u64;
        let ahead = if span.is_reverse {
            let index = self.index(data, hint, shape).await?;
            let left = first_block(&index, span).map_or(0, |last| last + 1);
            let ends = (0..left).filter_map(|block| index.get(block)).map(|block| block.place);
            let ends = ends.map(|place| place.offset + place.len);
            Ahead::Between(std::iter::once(start).chain(ends).collect())
        } else if is_all {
            Ahead::From(start)
        } else {
            let index = self.index(data, hint, shape).await?;
            let block = first_block(&index, span).and_then(|block| index.get(block));
            Ahead::From(block.map_or(start, |block| block.place.offset))
        };
        let mut cursor = FileCursor {
            shard: self.shard,
            source: Source::Hint(hint.clone(), data.clone()),
            keys: hint.cursor(span.is_reverse),
            state: State::Unstarted,
            ahead,
        };
        // What is known to begin far away may wait until the scan comes there.
        if is_all || cursor.load(self, span).await? { Ok(Some(cursor)) } else { Ok(None) }
    }

    async fn shape<'h>(
        &self,
        data: &Arc<DataFile>,
        hint: &'h Arc<Hint>,
    ) -> Result<&'h Shape, Trouble> {
        if let Some(shape) = hint.shape() {
            return Ok(shape);
        }
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        self.hint_page(data, hint, hint.head(), 0, &mut head).await?;
        let mut tail_len = None;
        loop {
            self.hint_page(data, hint, hint.tail(tail_len), 0, &mut tail).await?;
            match hint.parse_shape(&head, &tail)? {
                Parsed::Done(shape) => return Ok(shape),
                Parsed::More(_) if tail_len.is_some() => return Err(Trouble::HintBroken),
                Parsed::More(len) => tail_len = Some(len),
            }
        }
    }

    async fn index(
        &self,
        data: &Arc<DataFile>,
        hint: &Arc<Hint>,
        shape: &Shape,
    ) -> Result<Arc<Index>, Trouble> {
        if let Some(index) = hint.kept_index() {
            return Ok(index);
        }
        let mut section = Vec::new();
        self.hint_page(data, hint, shape.index, 0, &mut section).await?;
        Ok(hint.parse_index(section, shape.blocks_end)?)
    }

    async fn hint_page(
        &self,
        data: &Arc<DataFile>,
        hint: &Arc<Hint>,
        place: Section,
        ahead: u64,
        buf: &mut Vec<u8>,
    ) -> Result<(), Trouble> {
        self.checked_page(&PageOf::Hint(data.clone(), hint.clone()), place, ahead, buf).await
    }

    /// Fills `buf` with what is at a place of a hint, or of a key run.
    async fn checked_page(
        &self,
        of: &PageOf,
        place: Section,
        ahead: u64,
        buf: &mut Vec<u8>,
    ) -> Result<(), Trouble> {
        match self.page(of, place, ahead, buf).await {
            Ok(()) if buf.len() as u64 == place.len => Ok(()),
            Ok(()) => Err(Trouble::HintBroken),
            // Whatever keeps it from being read: the log says the same (H1).
            Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace) => {
                Err(Trouble::HintBroken)
            }
            Err(error) => Err(Trouble::Failed(error)),
        }
    }

    /// Fills `buf` with what is at a place of a file, and no more than is there; what the worker reads along is
    /// left in the page cache.
    pub(in crate::db) async fn page(
        &self,
        of: &PageOf,
        place: Section,
        ahead: u64,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        let len = usize::try_from(place.len).unwrap_or(usize::MAX);
        let stored = of.stored();
        stored.note_used(self.shared.partitions[self.shard].view.clock.load(Ordering::Relaxed));
        buf.clear();
        let no_memory = |error: std::collections::TryReserveError| {
            Error::io("read a page of", &stored.path, error.into())
        };
        buf.try_reserve_exact(len).map_err(no_memory)?;
        buf.resize(len, 0);
        if stored.fill_now(buf, place.offset).is_some() {
            return Ok(());
        }
        let (reply, receiver) = reply_slot();
        let (of, offset) = (of.clone(), place.offset);
        let request = Request::Page { of, offset, len: len + ahead as usize, reply };
        let bytes = Call::new(self.shared, self.shard, request, receiver).await?;
        // Copied, because a cursor keeps its buffer, and what was read along is not wanted in it.
        let count = bytes.len().min(len);
        buf.truncate(count);
        buf.copy_from_slice(&bytes[..count]);
        Ok(())
    }

    /// The runs of a file up to where its records end now.
    async fn extend_runs(&self, data: &Arc<DataFile>) -> Result<Arc<RunSet>> {
        let end = data.records_end();
        let set = data.runs.get();
        if set.upto >= end {
            return Ok(set);
        }
        let _alone = data.runs.extending.lock().await;
        let mut set = data.runs.get();
        while set.upto < end {
            let (builder, upto) = self.read_log(data, set.upto, end).await?;
            let mut longer = RunSet::clone(&set);
            if builder.len() == 0 {
                longer.upto = upto;
            } else {
                let pushed = builder.into_run(data.identity);
                pushed
                    .and_then(|run| longer.push(run, upto))
                    .map_err(|why| Error::corrupt(&data.path, set.upto, why))?;
            }
            set = Arc::new(longer);
            data.runs.keep(&set, || data.hint().is_none());
            if set.upto < end {
                super::take_a_turn().await;
            }
        }
        Ok(set)
    }

    /// Some of the records between two places of a log, and up to where.
    async fn read_log(
        &self,
        data: &Arc<DataFile>,
        from: u64,
        end: u64,
    ) -> Result<(HintBuilder, u64)> {
        let of = PageOf::Data(data.clone());
        let view = &self.shared.partitions[self.shard].view;
        let mut builder = HintBuilder::new();
        let (mut from, mut len) = (from, STRETCH_LEN);
        let mut bytes = Vec::new();
        while from < end && builder.len() < RUN_RECORDS_MAX {
            let place = Section { offset: from, len: len.min(end - from) };
            self.page(&of, place, 0, &mut bytes).await?;
            if (bytes.len() as u64) < place.len {
                let offset = from + bytes.len() as u64;
                return Err(Error::corrupt(&data.path, offset, "the file was cut short"));
            }
            let mut is_known = |header: &RecordHeader, key: &[u8]| {
                let hash = self.shared.hash(header.keyspace, key);
                view.keydir.lookup(hash, |_| ()).is_some()
            };
            let mut take = |record: RecordAt<'_>| {
                // A range tombstone is no record of the key that it begins with.
                let is_range = record.header.kind == RecordKind::RangeDel;
                if is_range || record.key.is_empty() {
                    return;
                }
                let mut header = *record.header;
                if header.batch.take().is_some() && header.kind != RecordKind::Put {
                    return; // Of a batch that did not happen it would stand for a record that is there.
                }
                // The intent of a batch only names its key here; it may be all there is of it (BA5).
                builder.push(NO_HASH, &header, record.key, record.offset, record.len);
            };
            match read_stretch(
                &self.shared.codecs,
                data,
                &bytes,
                from,
                end,
                &mut is_known,
                &mut take,
            )? {
                StretchRead::Upto(upto) => (from, len) = (upto, STRETCH_LEN),
                StretchRead::Longer(longer) => len = longer,
            }
        }
        Ok((builder, from))
    }
}

/// How much of the keys of a file or a run a scan comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Outside,
    /// Those behind some key.
    Part,
    /// All from the first one on, in the scan's direction.
    Whole,
}

impl Reach {
    fn of(KeyRange { first, last }: &KeyRange, span: &Span) -> Reach {
        let (first, last) = if span.is_reverse { (last, first) } else { (first, last) };
        if span.is_before(last.keyspace, &last.key) || span.is_behind(first.keyspace, &first.key) {
            Reach::Outside
        } else if span.is_before(first.keyspace, &first.key) {
            Reach::Part
        } else {
            Reach::Whole
        }
    }
}

/// Where the next block is, after which comes the one behind it, or in front of it.
fn next_place(index: &Index, next: &mut Option<usize>, is_reverse: bool) -> Option<Section> {
    let number = (*next)?;
    let place = index.get(number)?.place;
    *next = if is_reverse { number.checked_sub(1) } else { Some(number + 1) };
    Some(place)
}

/// What is in memory was checked when it was made.
#[cold]
pub(super) fn run_broken(data: &DataFile, trouble: Trouble) -> Error {
    match trouble {
        Trouble::Failed(error) => error,
        Trouble::HintBroken => Error::corrupt(
            &data.path,
            0,
            "its keys, as they were kept in memory, are not what was put there",
        ),
    }
}

/// The block in which a scan of `span` begins; forwards there may be nothing in it.
fn first_block(index: &Index, span: &Span) -> Option<usize> {
    match span.edge() {
        Some((keyspace, key)) if span.is_reverse => index.find(keyspace, key),
        Some((keyspace, key)) => Some(index.find(keyspace, key).unwrap_or(0)),
        None => index.len().checked_sub(1),
    }
}
