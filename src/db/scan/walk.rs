//! Every key that is there, in order: cursors over the files of all partitions, merged.
//!
//! Hints and logs only *name* keys; which of them are there says the keydir. So it does not matter that a
//! file names keys that were deleted since, or what compaction does meanwhile, and a key is judged by its
//! newest state, wherever that is:
//!
//! - **SN1** A key that is there from the beginning of a walk to its end is passed exactly once. The keydir
//!   pointed to its record when the table of files was loaded, and the table has every file that the keydir
//!   points into; that file, which the walk holds on to, names the key; cursors with equal keys come one
//!   after the other, and only the first is looked at. Where a key run stands for the file, the run names the key:
//!   it was written when the file was sealed, so the key, which was there then or came later, is in it or in a
//!   newer file.
//! - **SN2** A key that was absent all the time is never passed: the keydir does not have it.
//! - **SN4** A walk over a snapshot passes the keys of its moment, by the same argument: its files are those of the
//!   moment, and so are its key runs, and instead of the keydir it is asked what that said then.
//! - **SN3** A walk ends: its files are those that there were when it began, up to where they ended then.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;

use super::file::{FileCursor, Reader, Source, Trouble, run_broken};
use super::span::Span;
use super::take_a_turn;
use crate::db::snapshot::{AsOf, Located};
use crate::error::{Error, Result};
use crate::log::data_file::{CoveringRun, DataFile};
use crate::log::hint_file::KeyAt;
use crate::planted::{Bug, is_planted};
use crate::types::{ExpiresAt, FileId, Seqno};

/// More cursors of one partition than this are a reason to have a key run instead.
const WIDE_FILES: usize = 8;
/// Files that are opened, or whose first block is read, at the same time.
const OPENING_MAX: usize = 8;
/// Keys that are held against the keydir together.
const NAMED_MAX: usize = 128;
/// Keys looked at before others of the caller's thread get a turn.
const TURN_KEYS: usize = 4096;

pub(super) struct Walk {
    as_of: AsOf,
    span: Span,
    /// `None` where one is at its end, or with whoever loads its next block.
    cursors: Vec<Option<FileCursor>>,
    /// Indexes of cursors, a binary heap: the one at the smallest key, in its direction, comes first.
    heap: Vec<u32>,
    /// The last key that was passed; no key is empty.
    passed: Vec<u8>,
    named: Named,
    since_turn: usize,
}

/// Keys one after the other.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) bytes: Vec<u8>,
    /// Where each ends.
    pub(super) ends: Vec<u32>,
}

impl Keys {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len() as u32);
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..self.ends[index] as usize]
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Keys that files name, and which of them are there.
#[derive(Default)]
struct Named {
    keys: Keys,
    candidates: Vec<Candidate>,
    verdicts: Vec<Verdict>,
    /// The first one that nobody has taken.
    next: usize,
}

/// Where the newest record of a key that a file names is, as far as files say.
struct Candidate {
    shard: usize,
    /// `None` if nobody said.
    file: Option<FileId>,
    at: KeyAt,
}

/// Why no further key is named.
enum Stop {
    /// This cursor needs its next block.
    Load(usize),
    End,
}

#[derive(Clone)]
enum Verdict {
    Shown,
    Hidden,
    /// Its newest record has to say.
    Ask,
}

impl Walk {
    pub(super) async fn begin(as_of: AsOf, span: Span) -> Result<Walk> {
        let sources = sources_of(&as_of)?;
        let cursors = {
            let openings = sources.into_iter().map(|(shard, source)| {
                let reader = Reader { shared: as_of.shared(), shard };
                let span = &span;
                async move {
                    match source {
                        WalkSource::File(data) => reader.open(&data, span).await,
                        WalkSource::Run(covering) => open_run(&reader, &covering, span).await,
                    }
                }
            });
            let mut opening = stream::iter(openings).buffer_unordered(OPENING_MAX);
            let mut cursors = Vec::new();
            while let Some(opened) = opening.next().await {
                cursors.extend(opened?);
            }
            cursors
        };
        let mut walk = Walk {
            as_of,
            span,
            cursors: Vec::new(),
            heap: Vec::new(),
            passed: Vec::new(),
            named: Named::default(),
            since_turn: 0,
        };
        for cursor in cursors {
            walk.add(cursor);
        }
        Ok(walk)
    }

    /// Adds keys to `keys` until it has so many, or so many bytes; false once there are no more.
    pub(super) async fn fill(
        &mut self,
        keys: &mut Keys,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<bool> {
        self.check_open()?;
        while keys.len() < count_max && keys.bytes.len() < bytes_max {
            let Some(next) = self.next_key(count_max - keys.len()).await? else {
                return Ok(false);
            };
            keys.push(self.named.keys.get(next));
        }
        Ok(true)
    }

    /// How many keys are left, up to `count_max`.
    pub(super) async fn count(&mut self, count_max: u64) -> Result<u64> {
        self.check_open()?;
        let mut count = 0;
        while count < count_max {
            let left = usize::try_from(count_max - count).unwrap_or(usize::MAX);
            if self.next_key(left).await?.is_none() {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// What is in memory could be read on for long after the store was closed.
    fn check_open(&self) -> Result<()> {
        self.as_of.check(self.span.keyspace)
    }

    /// Which of `named` is the next key that is there, of so many that are wanted; `None` at the end.
    async fn next_key(&mut self, wanted: usize) -> Result<Option<usize>> {
        loop {
            while let Some(verdict) = self.named.verdicts.get(self.named.next) {
                let index = self.named.next;
                self.named.next += 1;
                let is_shown = match verdict {
                    Verdict::Shown => true,
                    Verdict::Hidden => false,
                    Verdict::Ask => {
                        let key = self.named.keys.get(index);
                        self.as_of.read(self.span.keyspace, key).await?.is_some()
                    }
                };
                if is_shown {
                    return Ok(Some(index));
                }
            }
            if self.since_turn >= TURN_KEYS {
                self.since_turn = 0;
                take_a_turn().await;
                self.check_open()?;
            }
            match self.name(wanted.min(NAMED_MAX)) {
                Err(Stop::End) => return Ok(None),
                Err(Stop::Load(cursor)) => self.load(cursor).await?,
                Ok(()) => {
                    self.since_turn += self.named.keys.len();
                    self.judge_all()?;
                }
            }
        }
    }

    /// Has files name so many keys, or as many as they can before something must be loaded.
    fn name(&mut self, count: usize) -> std::result::Result<(), Stop> {
        self.named.keys.clear();
        self.named.candidates.clear();
        self.named.verdicts.clear();
        self.named.next = 0;
        while self.named.keys.len() < count {
            match self.step() {
                Ok(candidate) => {
                    self.named.keys.push(&self.passed);
                    self.named.candidates.push(candidate);
                }
                Err(stop) if self.named.candidates.is_empty() => return Err(stop),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Which of the keys are there.
    fn judge_all(&mut self) -> Result<()> {
        let Named { keys, candidates, verdicts, .. } = &mut self.named;
        verdicts.resize(candidates.len(), Verdict::Hidden);
        let mut by_shard: Vec<usize> = (0..candidates.len()).collect();
        by_shard.sort_unstable_by_key(|index| candidates[*index].shard);
        for of_shard in by_shard.chunk_by(|a, b| candidates[*a].shard == candidates[*b].shard) {
            let shard = candidates[of_shard[0]].shard;
            let keys = of_shard.iter().map(|index| keys.get(*index));
            self.as_of.locate_many(shard, self.span.keyspace, keys, |number, located| {
                let index = of_shard[number];
                verdicts[index] = judge(&self.as_of, &candidates[index], located);
            })?;
        }
        Ok(())
    }

    /// Passes the next key that any file names.
    fn step(&mut self) -> std::result::Result<Candidate, Stop> {
        loop {
            let Some(&top) = self.heap.first() else { return Err(Stop::End) };
            let index = top as usize;
            let Some(cursor) = &mut self.cursors[index] else { return Err(Stop::End) };
            if cursor.is_passed() {
                return Err(Stop::Load(index));
            }
            let (keyspace, key) = cursor.key();
            if self.span.is_behind(keyspace, key) {
                self.heap.clear();
                self.cursors.clear();
                return Err(Stop::End);
            }
            if cursor.is_due() {
                return Err(Stop::Load(index));
            }
            let is_new = key != self.passed;
            let mut candidate = None;
            if is_new {
                self.passed.clear();
                self.passed.extend_from_slice(key);
                candidate = Some(Candidate {
                    shard: cursor.shard,
                    file: cursor.file_id(),
                    at: cursor.at(),
                });
            }
            if cursor.advance().is_err() {
                cursor.give_up();
            }
            self.sift_down(0);
            if let Some(candidate) = candidate {
                return Ok(candidate);
            }
        }
    }

    /// Gets the next block of the cursor at the top, or takes it out.
    async fn load(&mut self, index: usize) -> Result<()> {
        let Some(mut cursor) = self.cursors[index].take() else { return Ok(()) };
        let as_of = self.as_of.clone();
        let reader = Reader { shared: as_of.shared(), shard: cursor.shard };
        match cursor.load(&reader, &self.span).await {
            Ok(true) => {
                self.cursors[index] = Some(cursor);
                self.sift_down(0);
                return Ok(());
            }
            Ok(false) => self.remove_top(),
            Err(Trouble::Failed(error)) => return Err(error),
            Err(Trouble::HintBroken) => {
                self.remove_top();
                if is_planted(Bug::DamagedHintPassedOver) {
                    return Ok(());
                }
                let left = if self.passed.is_empty() {
                    self.span.clone()
                } else {
                    self.span.behind(&self.passed)
                };
                let cursors = match cursor.source() {
                    Source::Run(_, data) => return Err(run_broken(data, Trouble::HintBroken)),
                    Source::Hint(hint, data) => {
                        reader.tell_broken(data, hint).await?;
                        reader.open_log(data, &left).await?
                    }
                    Source::Keys(covering) => open_covered(&reader, covering, &left).await?,
                };
                for cursor in cursors {
                    self.add(cursor);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, cursor: FileCursor) {
        let index = self.cursors.len() as u32;
        self.cursors.push(Some(cursor));
        self.heap.push(index);
        let mut at = self.heap.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.is_first(self.heap[at], self.heap[parent]) {
                break;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
    }

    fn remove_top(&mut self) {
        self.heap.swap_remove(0);
        self.sift_down(0);
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            if left >= self.heap.len() {
                return;
            }
            let is_right =
                right < self.heap.len() && self.is_first(self.heap[right], self.heap[left]);
            let child = if is_right { right } else { left };
            if !self.is_first(self.heap[child], self.heap[at]) {
                return;
            }
            self.heap.swap(at, child);
            at = child;
        }
    }

    /// Whether cursor `a` comes before `b`: by key, and of those with one key the newest record first. One
    /// that nothing is known of comes before all.
    fn is_first(&self, a: u32, b: u32) -> bool {
        let (Some(a), Some(b)) = (&self.cursors[a as usize], &self.cursors[b as usize]) else {
            return false;
        };
        if a.is_passed() || b.is_passed() {
            return a.is_passed() && !b.is_passed();
        }
        let order = a.key().cmp(&b.key());
        let order = if self.span.is_reverse { order.reverse() } else { order };
        order
            .then_with(|| b.is_due().cmp(&a.is_due()))
            .then_with(|| b.at().seqno.cmp(&a.at().seqno))
            .is_lt()
    }
}

/// Whether a key is there, and not hidden. This is the one place that decides; what else may hide a key,
/// by its keyspace, its bytes or the sequence number of its newest record, is asked here.
fn judge(as_of: &AsOf, candidate: &Candidate, located: Located) -> Verdict {
    let Located { found, cover } = located;
    let is_covered = cover > Seqno(0);
    match found {
        _ if is_planted(Bug::NamesBelieved) => Verdict::Shown,
        None => Verdict::Hidden,
        Some((location, _))
            if is_planted(Bug::RewrittenPassedOver) && location.offset != candidate.at.offset =>
        {
            Verdict::Hidden
        }
        Some((location, _)) if !location.has_expiry && !is_covered => Verdict::Shown,
        Some((location, file))
            if file.is_some()
                && file == candidate.file
                && location.offset == candidate.at.offset =>
        {
            let expires_at = candidate.at.expires_at_ms.and_then(ExpiresAt::from_ms);
            let is_hidden = candidate.at.seqno < cover || as_of.hides(expires_at);
            if is_hidden { Verdict::Hidden } else { Verdict::Shown }
        }
        // Written or moved since the walk began: the files of the walk do not know when it expires, or
        // whether it is older than a range that was deleted.
        Some(_) => Verdict::Ask,
    }
}

/// What a walk has cursors over.
enum WalkSource {
    File(Arc<DataFile>),
    Run(CoveringRun),
}

/// Every data file of the store, or a key run that stands for it.
fn sources_of(as_of: &AsOf) -> Result<Vec<(usize, WalkSource)>> {
    let shared = as_of.shared();
    let mut sources = Vec::new();
    for (shard, partition) in shared.partitions.iter().enumerate() {
        let table = as_of.table(shard)?;
        let files = &table.sources().files;
        sources.extend(files.iter().map(|data| (shard, WalkSource::File(data.clone()))));
        if files.len() > WIDE_FILES {
            partition.view.note_wide_scan();
        }
        let runs = &table.sources().runs;
        sources.extend(runs.iter().map(|covering| (shard, WalkSource::Run(covering.clone()))));
    }
    if shared.lifecycle.is_closing() {
        return Err(Error::closed());
    }
    Ok(sources)
}

async fn open_run(
    reader: &Reader<'_>,
    covering: &CoveringRun,
    span: &Span,
) -> Result<Vec<FileCursor>> {
    if covering.run.is_broken() {
        return open_covered(reader, covering, span).await;
    }
    match reader.open_run(covering, span).await {
        Ok(cursor) => Ok(cursor.into_iter().collect()),
        Err(Trouble::HintBroken) => open_covered(reader, covering, span).await,
        Err(Trouble::Failed(error)) => Err(error),
    }
}

/// Cursors over the files that a run stands for, because the run is broken.
async fn open_covered(
    reader: &Reader<'_>,
    covering: &CoveringRun,
    span: &Span,
) -> Result<Vec<FileCursor>> {
    if !covering.run.is_broken() {
        tracing::warn!(path = %covering.run.stored.path.display(), "a key run is ignored");
        covering.run.set_broken();
    }
    let mut cursors = Vec::new();
    for data in &*covering.files {
        cursors.extend(reader.open(data, span).await?);
    }
    Ok(cursors)
}
