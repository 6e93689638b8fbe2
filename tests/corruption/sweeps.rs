//! Which changes there are to a layout.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use crate::layout::Layout;
use crate::log::{FILE_HEADER_LEN, GROUP_HEADER_LEN};
use crate::mutation::{Filling, Image, Mutation, SECTOR_SIZE, Source};
use crate::run::is_long;
use crate::support::is_hint;

/// In a long key or value every so many bytes are changed, unless the run is long.
const STEP_WITHIN: usize = 61;
/// And in a file of which another layout has the like.
const STEP_OF_OTHERS: usize = 7;
/// Longer than this is long.
pub(crate) const PLAIN_LEN_MAX: usize = 8 << 10;

/// One bit of every byte, and every bit of what is not a key or a value.
pub(crate) fn flips(layout: &Layout, random: &mut fastrand::Rng) -> Vec<Mutation> {
    let mut flips = Vec::new();
    for (file, bytes) in files(layout) {
        let structures = structures(layout, file, bytes.len());
        for at in places(layout, file, bytes.len()) {
            let is_structure = structures.iter().any(|range| range.contains(&at));
            if is_structure || is_long() {
                let masks = (0..8).map(|bit| 1 << bit);
                flips.extend(masks.map(|mask| Mutation::Flip { file: file.clone(), at, mask }));
            } else {
                flips.push(Mutation::Flip { file: file.clone(), at, mask: 1 << random.u8(..8) });
            }
        }
    }
    flips
}

/// Every length that a file can be cut to, and some that it never had.
pub(crate) fn lengths(layout: &Layout, random: &mut fastrand::Rng) -> Vec<Mutation> {
    let mut lengths = Vec::new();
    for (file, bytes) in files(layout) {
        let cuts = places(layout, file, bytes.len());
        lengths.extend(cuts.map(|len| Mutation::Cut { file: file.clone(), len }));
        if layout.logs.get(file).is_some_and(|logs| !logs[0].is_closed) {
            // A log that was killed: the end was never written, and zeros are there instead.
            let ends = (0..bytes.len()).map(|from| Mutation::ZeroEnd { file: file.clone(), from });
            lengths.extend(ends);
        }
        for by in [1, 4, 7, 8, 16, 47, 48, 128, 512, 4096] {
            let mut extend = |with| lengths.push(Mutation::Extend { file: file.clone(), by, with });
            extend(Filling::Zeros);
            extend(Filling::Garbage(random.u64(..)));
            let starts = layout
                .logs
                .get(file)
                .map_or(Vec::new(), |logs| logs[0].groups.iter().map(|group| group.at).collect());
            for from in starts.into_iter().chain([0]).filter(|from| *from < bytes.len()) {
                extend(Filling::Stale(from));
            }
        }
    }
    lengths
}

/// Sectors that are lost, that are where others should be, or that were not written.
pub(crate) fn sectors(layout: &Layout, random: &mut fastrand::Rng) -> Vec<Mutation> {
    let mut changes = Vec::new();
    let all: Vec<(String, usize)> = files(layout)
        .flat_map(|(file, bytes)| {
            let sectors = 0..bytes.len().div_ceil(SECTOR_SIZE);
            sectors.map(|sector| (file.clone(), sector))
        })
        .filter(|(file, sector)| !is_reserve(file) || sector % 4 == 0)
        .collect();
    for (file, sector) in &all {
        changes.push(Mutation::ZeroSector { file: file.clone(), sector: *sector });
        changes.extend(stale(layout, file, *sector));
    }
    for (index, one) in all.iter().enumerate() {
        for (other_index, other) in all.iter().enumerate() {
            // All of the same file, some of the others.
            let is_taken = one.0 == other.0 || is_long() || random.u8(..12) == 0;
            if index == other_index || !is_taken || is_far(one, other, random) {
                continue;
            }
            changes.push(Mutation::CopySector { from: one.clone(), to: other.clone() });
            if index < other_index {
                changes.push(Mutation::SwapSectors { one: one.clone(), other: other.clone() });
            }
        }
    }
    changes
}

/// In files of many sectors some pairs are enough.
fn is_far(one: &(String, usize), other: &(String, usize), random: &mut fastrand::Rng) -> bool {
    one.1.max(other.1) * SECTOR_SIZE > PLAIN_LEN_MAX && random.u8(..100) > 0
}

/// Older versions of a sector that differ from it and from each other.
fn stale(layout: &Layout, file: &str, sector: usize) -> Vec<Mutation> {
    let range = sector * SECTOR_SIZE..(sector + 1) * SECTOR_SIZE;
    let part = |image: &Image| {
        let bytes = image.get(file).map(|bytes| bytes.to_vec()).unwrap_or_default();
        let end = range.end.min(bytes.len());
        bytes.get(range.start..end).unwrap_or_default().to_vec()
    };
    let mut seen = BTreeSet::from([part(&layout.image)]);
    let ages = layout.ages.iter().enumerate().filter(|(_, image)| seen.insert(part(image)));
    ages.map(|(age, _)| Mutation::StaleSector { file: file.to_owned(), sector, age }).collect()
}

/// Files that are gone, that have another's place or name, or that are there twice.
pub(crate) fn names(layout: &Layout) -> Vec<Mutation> {
    let names: Vec<&String> = layout.image.keys().collect();
    let mut changes = Vec::new();
    for (index, name) in names.iter().enumerate() {
        changes.push(Mutation::Remove { file: (*name).clone() });
        for other in &names[index + 1..] {
            let (one, other) = ((*name).clone(), (*other).clone());
            changes.push(Mutation::SwapFiles { one, other });
        }
        for other in &names {
            let (from, to) = ((*name).clone(), (*other).clone());
            if from != to {
                changes.push(Mutation::Duplicate { from, to });
            }
        }
        for to in strange_names(layout, name) {
            changes.push(Mutation::Rename { from: (*name).clone(), to: to.clone() });
            changes.push(Mutation::Duplicate { from: (*name).clone(), to });
        }
    }
    changes
}

/// Names that nothing in the store has.
fn strange_names(layout: &Layout, name: &str) -> Vec<String> {
    let mut strange = vec![format!("{name}.bak"), format!("{name}.tmp"), format!("{name}.damaged")];
    for dir in &layout.partitions {
        for id in [1_u64, 77, 1 << 40] {
            strange.push(format!("{dir}/{id:09}.data"));
            strange.push(format!("{dir}/{id:09}.hint"));
        }
        strange.push(format!("{dir}/MANIFEST"));
    }
    strange.retain(|name| !layout.image.contains_key(name));
    strange
}

/// Whole files of other stores, of the store's twin, and of its own past.
pub(crate) fn replacements(layout: &Layout) -> Vec<Mutation> {
    let ages = (0..layout.ages.len()).rev().map(Source::Age);
    let sources: Vec<Source> = ages.chain([Source::Foreign, Source::Twin]).collect();
    let mut changes = Vec::new();
    for (file, bytes) in &layout.image {
        let mut seen: BTreeSet<Option<Arc<Vec<u8>>>> = BTreeSet::from([Some(bytes.clone())]);
        for with in &sources {
            if seen.insert(layout.source(*with).get(file).cloned()) {
                changes.push(Mutation::Replace { file: file.clone(), with: *with });
            }
        }
    }
    changes
}

/// Two changes of any kind, of which neither undoes the other.
pub(crate) fn pairs(pool: &[Mutation], count: usize, random: &mut fastrand::Rng) -> Vec<Mutation> {
    let draw = |random: &mut fastrand::Rng| Box::new(pool[random.usize(..pool.len())].clone());
    (0..count).map(|_| Mutation::Both(draw(random), draw(random))).collect()
}

/// What has bytes; nothing is ever read of the reserve, so little of it is changed.
fn files(layout: &Layout) -> impl Iterator<Item = (&String, &Arc<Vec<u8>>)> {
    layout.image.iter().filter(|(_, bytes)| !bytes.is_empty())
}

fn is_reserve(file: &str) -> bool {
    file.ends_with("RESERVE")
}

/// The offsets in a file that are changed.
fn places(layout: &Layout, file: &str, len: usize) -> Box<dyn Iterator<Item = usize>> {
    if is_reserve(file) {
        return Box::new((0..len).step_by(SECTOR_SIZE));
    }
    if is_long() {
        return Box::new(0..len);
    }
    let within = PLAIN_LEN_MAX..len.saturating_sub(1 << 10);
    let step = if layout.is_own(file) { 1 } else { STEP_OF_OTHERS };
    Box::new(
        (0..len).filter(
            move |at| {
                if within.contains(at) { at % STEP_WITHIN == 0 } else { at % step == 0 }
            },
        ),
    )
}

/// Where a file has something else than keys and values.
fn structures(layout: &Layout, file: &str, len: usize) -> Vec<Range<usize>> {
    if is_reserve(file) {
        return Vec::new();
    }
    let Some(logs) = layout.logs.get(file) else {
        let all = 0..len;
        // The keys of a hint are long where those of the store are.
        return if is_hint(file) && len > PLAIN_LEN_MAX {
            vec![0..1 << 10, len - (1 << 10)..len]
        } else {
            vec![all]
        };
    };
    let groups = &logs[0].groups;
    let of_groups = groups.iter().map(|group| group.at..group.at + GROUP_HEADER_LEN);
    let records = groups.iter().flat_map(|group| &group.records);
    let of_records = records.map(|record| record.at..record.at + 32);
    std::iter::once(0..FILE_HEADER_LEN).chain(of_groups).chain(of_records).collect()
}
