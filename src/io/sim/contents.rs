//! The bytes of one file: what readers see, what is durable, and what lies between.
//!
//! ## Invariants
//! - **Q7** `visible` is `durable` with `pending` applied in order, except after a failed sync:
//!   the writes it lost are in `visible` only (Q5).
//! - **Q8** No pending write overlaps a range that was made durable after it (Q2), and none reaches
//!   beyond a length that was made durable after it: applying it late cannot undo what is durable.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::OnceLock;

use rustix::io::Errno;

use super::fingerprint::Fingerprint;
use super::random::Random;

const SECTOR_SIZE: usize = 512;

/// Counts the changes of all files, so that "first" has a meaning across them.
pub(super) type ChangeId = u64;

#[derive(Clone, Default)]
pub(super) struct Contents {
    visible: Vec<u8>,
    durable: Vec<u8>,
    /// In order of `id`.
    pending: Vec<Change>,
    /// Of `visible`, once somebody has asked: most files are what they are in thousands of images.
    fingerprint: OnceLock<u64>,
}

#[derive(Clone)]
struct Change {
    id: ChangeId,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Contents {
    pub(super) fn of(bytes: Vec<u8>) -> Contents {
        Contents { visible: bytes.clone(), durable: bytes, ..Contents::default() }
    }

    pub(super) fn visible(&self) -> &[u8] {
        &self.visible
    }

    fn visible_mut(&mut self) -> &mut Vec<u8> {
        self.fingerprint.take();
        &mut self.visible
    }

    /// A number for what is seen.
    pub(super) fn fingerprint(&self) -> u64 {
        *self.fingerprint.get_or_init(|| {
            let mut fingerprint = Fingerprint::default();
            fingerprint.add(&self.visible);
            fingerprint.finish()
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.visible.len() as u64
    }

    pub(super) fn write(&mut self, id: ChangeId, offset: usize, bytes: &[u8]) {
        overlay(self.visible_mut(), offset, bytes);
        self.pending.push(Change { id, kind: Kind::Write { offset, bytes: bytes.to_vec() } });
    }

    /// A DSYNC write (Q2). Length changes before it become durable with it: they are in the same
    /// journal as the length this write may need.
    pub(super) fn write_durable(&mut self, offset: usize, bytes: &[u8]) {
        overlay(self.visible_mut(), offset, bytes);
        self.commit_lengths(self.pending.len());
        let range = offset..offset + bytes.len();
        self.pending = self.pending.drain(..).flat_map(|change| change.without(&range)).collect();
        overlay(&mut self.durable, offset, bytes);
    }

    /// A DSYNC write whose sync half failed: seen, and lost (Q5).
    pub(super) fn write_lost(&mut self, offset: usize, bytes: &[u8]) {
        overlay(self.visible_mut(), offset, bytes);
    }

    pub(super) fn set_len(&mut self, id: ChangeId, len: usize) {
        self.visible_mut().resize(len, 0);
        self.pending.push(Change { id, kind: Kind::SetLen(len) });
    }

    /// Makes every change up to and including `mark` durable (Q1).
    pub(super) fn sync(&mut self, mark: ChangeId) {
        let covered = self.pending.partition_point(|change| change.id <= mark);
        for change in self.pending.drain(..covered) {
            change.apply(&mut self.durable);
        }
    }

    /// Forgets every change up to and including `mark`, which a failed sync should have written (Q5).
    pub(super) fn lose(&mut self, mark: ChangeId) {
        self.pending.retain(|change| change.id > mark);
    }

    /// Drops clean pages: what a failed sync lost is no longer visible either.
    pub(super) fn drop_pages(&mut self) {
        let len = self.visible.len();
        let mut visible = self.durable.clone();
        for change in &self.pending {
            change.apply(&mut visible);
        }
        visible.resize(len, 0);
        *self.visible_mut() = visible;
    }

    pub(super) fn flip(&mut self, offset: u64, mask: u8) -> io::Result<()> {
        let offset = offset as usize;
        let byte = self.visible_mut().get_mut(offset).ok_or(Errno::INVAL)?;
        *byte ^= mask;
        if let Some(byte) = self.durable.get_mut(offset) {
            *byte ^= mask;
        }
        for change in &mut self.pending {
            if let Kind::Write { offset: start, bytes } = &mut change.kind
                && let Some(byte) = offset.checked_sub(*start).and_then(|at| bytes.get_mut(at))
            {
                *byte ^= mask;
            }
        }
        Ok(())
    }

    pub(super) fn pending_ids(&self) -> impl Iterator<Item = ChangeId> {
        self.pending.iter().map(|change| change.id)
    }

    /// A power cut leaves what is seen, whatever its policy.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.visible == self.durable
    }

    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// What is left if exactly the changes with an id less than `end` reached the disk.
    pub(super) fn survivors_before(&self, end: ChangeId) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in self.pending.iter().take_while(|change| change.id < end) {
            change.apply(&mut bytes);
        }
        bytes
    }

    /// As [`survivors_before`](Self::survivors_before), and a beginning of the write that `end` is.
    pub(super) fn survivors_torn(&self, end: ChangeId, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.survivors_before(end);
        for change in self.pending.iter().filter(|change| change.id == end) {
            if let Kind::Write { offset, bytes: written } = &change.kind {
                let torn = random.below(written.len().max(1));
                overlay(&mut bytes, *offset, &written[..torn]);
            }
        }
        bytes
    }

    /// What is left if every length reached the disk and not one byte of what was written.
    pub(super) fn survivors_zeroed(&self) -> Vec<u8> {
        let mut rest = self.clone();
        rest.commit_lengths(rest.pending.len());
        rest.durable.resize(self.visible.len(), 0);
        rest.durable
    }

    /// What is left if any subset of sectors reached the disk (Q4).
    ///
    /// ```text
    /// lengths: the length after some prefix of the changes survives, as a journal keeps it
    /// sectors: each one touched has its content after some prefix of the writes touching it;
    ///          those behind a length change that did not survive did not survive either
    /// ```
    pub(super) fn survivors_random(&self, random: &mut Random) -> Vec<u8> {
        let mut rest = self.clone();
        let committed = random.below(rest.pending.len() + 1);
        let len = rest.length_after(committed);
        let is_len = |change: &Change| matches!(change.kind, Kind::SetLen(_));
        if let Some(lost) = rest.pending[committed..].iter().position(is_len) {
            rest.pending.truncate(committed + lost);
        }
        rest.commit_lengths(committed);
        rest.commit_sectors(random);
        rest.durable.resize(len, 0);
        rest.durable
    }

    fn length_after(&self, count: usize) -> usize {
        self.pending[..count].iter().fold(self.durable.len(), |len, change| match &change.kind {
            Kind::Write { offset, bytes } => len.max(offset + bytes.len()),
            Kind::SetLen(len) => *len,
        })
    }

    /// Makes the length changes among the first `count` changes durable, and no bytes.
    fn commit_lengths(&mut self, count: usize) {
        for index in 0..count {
            if let Kind::SetLen(len) = self.pending[index].kind {
                self.durable.resize(len, 0);
                for earlier in &mut self.pending[..index] {
                    earlier.clip(len);
                }
            }
        }
        let mut index = 0;
        self.pending.retain(|change| {
            index += 1;
            match &change.kind {
                Kind::Write { bytes, .. } => !bytes.is_empty(),
                Kind::SetLen(_) => index > count,
            }
        });
    }

    fn commit_sectors(&mut self, random: &mut Random) {
        let mut touched: BTreeMap<usize, Vec<Range<usize>>> = BTreeMap::new();
        let mut writers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, change) in self.pending.iter().enumerate() {
            let Kind::Write { offset, bytes } = &change.kind else { continue };
            let end = offset + bytes.len();
            for sector in offset / SECTOR_SIZE..end.div_ceil(SECTOR_SIZE) {
                let start = sector * SECTOR_SIZE;
                let part = start.max(*offset)..(start + SECTOR_SIZE).min(end);
                touched.entry(sector).or_default().push(part);
                writers.entry(sector).or_default().push(index);
            }
        }
        let mut last = None;
        for (sector, parts) in &touched {
            let kept = random.below(parts.len() + 1);
            for (part, &writer) in parts.iter().zip(&writers[sector]).take(kept) {
                let Kind::Write { offset, bytes } = &self.pending[writer].kind else { continue };
                let bytes = &bytes[part.start - offset..part.end - offset];
                last = Some((part.clone(), self.durable.get(part.clone()).map(<[u8]>::to_vec)));
                overlay(&mut self.durable, part.start, bytes);
            }
        }
        if let Some((part, before)) = last
            && random.chance(0.5)
        {
            // Torn: from some byte on, the sector holds what was there before.
            let torn = random.below(part.len());
            let before = before.unwrap_or_else(|| vec![0; part.len()]);
            self.durable[part][torn..].copy_from_slice(&before[torn..]);
        }
    }
}

impl Change {
    fn apply(&self, target: &mut Vec<u8>) {
        match &self.kind {
            Kind::Write { offset, bytes } => overlay(target, *offset, bytes),
            Kind::SetLen(len) => target.resize(*len, 0),
        }
    }

    fn clip(&mut self, len: usize) {
        if let Kind::Write { offset, bytes } = &mut self.kind {
            bytes.truncate(len.saturating_sub(*offset));
        }
    }

    /// What is left of the change outside of `range`.
    fn without(self, range: &Range<usize>) -> Vec<Change> {
        let Kind::Write { offset, mut bytes } = self.kind else { return vec![self] };
        let end = offset + bytes.len();
        let mut parts = Vec::new();
        if range.end < end {
            let start = range.end.max(offset);
            parts.push((start, bytes.split_off(start - offset)));
        }
        bytes.truncate(range.start.saturating_sub(offset));
        parts.push((offset, bytes));
        parts.retain(|(_, bytes)| !bytes.is_empty());
        let change = |(offset, bytes)| Change { id: self.id, kind: Kind::Write { offset, bytes } };
        parts.into_iter().rev().map(change).collect()
    }
}

/// Puts `bytes` at `offset`, filling a hole before it with zeros.
fn overlay(target: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if target.len() < end {
        target.resize(end, 0);
    }
    target[offset..end].copy_from_slice(bytes);
}
