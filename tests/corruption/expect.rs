//! What a store may answer after a change, worked out from its bytes before and after.

use std::collections::BTreeMap;

use crate::layout::Layout;
use crate::log::{
    Again, FILE_HEADER_LEN, GROUP_HEADER_LEN, Group, List, Log, Record, newest, padded,
    settled_again, u32_at, unsettled,
};
use crate::mutation::Image;

/// What is to be seen.
#[derive(Debug, Default)]
pub(crate) struct Expected<'a> {
    /// Why it must not open.
    pub(crate) refuse: Vec<String>,
    /// Verify must find something: a byte that counts is not what it was.
    pub(crate) is_damaged: bool,
    /// Files with damage behind which opening does not look, because they have a hint.
    pub(crate) half_read: Vec<String>,
    /// The value of every key there is.
    pub(crate) values: BTreeMap<&'a [u8], &'a [u8]>,
    /// Keys whose record is in damaged bytes.
    pub(crate) broken: BTreeMap<&'a [u8], Broken>,
    /// Logs whose last groups are cut off, because nobody vouches for them, and how many groups are left.
    pub(crate) cut: BTreeMap<String, usize>,
    /// What an open adds to the books because it comes upon batches that were settled, and does not see that.
    pub(crate) again: Again,
    /// What the store holds is a state that it, or its twin, once was in: nothing in it says otherwise.
    pub(crate) is_other_history: bool,
}

/// A record, how it was hit, and whether an open comes upon it, because its file has no hint.
struct Found<'a> {
    record: &'a Record,
    broken: Option<Broken>,
    is_read: bool,
}

/// How a record was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Record,
    /// Only the zeros behind it, which reads do not look at.
    Padding,
}

/// What `image`, a changed copy of the layout's, must do.
pub(crate) fn expect<'a>(layout: &'a Layout, image: &Image) -> Expected<'a> {
    let mut expected = Expected::default();
    if image.get("MANIFEST") != layout.image.get("MANIFEST") {
        expected.refuse("MANIFEST".to_owned());
    }
    let mut records: Vec<Found<'a>> = Vec::new();
    for dir in &layout.partitions {
        let path = format!("{dir}/FILES");
        let list = image.get(&path).and_then(|bytes| {
            expected.is_other_history |= layout.image.get(&path) != Some(bytes);
            layout.lists.get(&(path.clone(), bytes.to_vec()))
        });
        let Some(list) = list else {
            expected.refuse(path);
            continue;
        };
        expected.partition(layout, image, dir, list, &mut records);
    }
    let unsettled =
        unsettled(records.iter().filter(|found| found.is_read).map(|found| found.record));
    expected.again = settled_again(&unsettled);
    let plain = records.iter().map(|found| found.record).filter(|record| record.is_plain());
    let newest = newest(plain.chain(unsettled.values().flatten().copied()));
    let hit = records.iter().filter_map(|found| Some((found.record, found.broken?)));
    // A range tombstone need not be read where there is a hint, which has all of it; and what a hint stands for is
    // never asked for records of batches.
    for (record, broken) in hit.filter(|(record, _)| !record.is_range() && record.is_plain()) {
        let is_newest = newest[&record.key[..]].at == record.at
            && newest[&record.key[..]].seqno == record.seqno;
        if is_newest && record.value.is_some() {
            expected.broken.insert(&record.key, broken);
        }
    }
    expected.values = newest
        .into_iter()
        .filter_map(|(key, record)| Some((key, record.value.as_deref()?)))
        .collect();
    expected
}

impl<'a> Expected<'a> {
    fn refuse(&mut self, why: String) {
        self.is_damaged = true;
        self.refuse.push(why);
    }

    fn partition(
        &mut self,
        layout: &'a Layout,
        image: &Image,
        dir: &str,
        list: &List,
        records: &mut Vec<Found<'a>>,
    ) {
        for sealed in &list.sealed {
            let file = format!("{dir}/{:09}.data", sealed.id);
            let log = layout.logs[&file].iter().find(|log| {
                log.is_closed && log.bytes.len() == sealed.len && digest(log) == sealed.digest
            });
            let log = log.expect("a list names files that were there");
            let Some(bytes) = image.get(&file) else {
                self.refuse(file);
                continue;
            };
            let has_hint = layout.has_hint(image, &file, log);
            let found = log.records().map(|record| {
                let broken = broken(bytes, log, record);
                Found { record, broken, is_read: !has_hint }
            });
            if **bytes == log.bytes {
                records.extend(found);
                continue;
            }
            self.is_damaged = true;
            let has_ends = bytes.len() == log.bytes.len()
                && bytes[..FILE_HEADER_LEN] == log.bytes[..FILE_HEADER_LEN]
                && bytes[bytes.len() - GROUP_HEADER_LEN..]
                    == log.bytes[bytes.len() - GROUP_HEADER_LEN..];
            if has_hint && has_ends {
                records.extend(found);
                self.half_read.push(file);
            } else {
                self.refuse(file);
            }
        }
        if let Some(id) = list.active {
            let file = format!("{dir}/{id:09}.data");
            let (Some(bytes), Some(logs)) = (image.get(&file), layout.logs.get(&file)) else {
                self.refuse(file);
                return;
            };
            let same = logs.iter().position(|log| log.bytes == **bytes);
            let log = &logs[same.unwrap_or(0)];
            self.is_other_history |= same.is_some_and(|at| at > 0);
            match read_tail(bytes, log) {
                Some(count) => {
                    if count < log.groups.len() {
                        self.cut.insert(file, count);
                    }
                    let whole = log.groups.iter().take(count).flat_map(|group| &group.records);
                    records.extend(whole.map(|record| Found {
                        record,
                        broken: None,
                        is_read: true,
                    }));
                }
                None => self.refuse(file),
            }
        }
    }
}

fn digest(log: &Log) -> u32 {
    u32_at(&log.bytes, log.bytes.len() - GROUP_HEADER_LEN)
}

/// How a record of a damaged file was hit, if it was.
fn broken(bytes: &[u8], log: &Log, record: &Record) -> Option<Broken> {
    let range = record.at..record.at + record.len;
    let end = record.at + padded(record.len);
    let is_same = |range: std::ops::Range<usize>| bytes[range.clone()] == log.bytes[range];
    if !is_same(range) {
        Some(Broken::Record)
    } else if !is_same(record.at..end) {
        Some(Broken::Padding)
    } else {
        None
    }
}

/// How many groups of the log are whole, from the first; `None` if the store must be refused, because of the
/// file's header or because a later group says that a missing one was durable.
fn read_tail(bytes: &[u8], log: &Log) -> Option<usize> {
    if bytes.get(..FILE_HEADER_LEN) != log.bytes.get(..FILE_HEADER_LEN) {
        return None;
    }
    let is_whole =
        |group: &&Group| bytes.get(group.at..group.end) == log.bytes.get(group.at..group.end);
    let count = log.groups.iter().take_while(is_whole).count();
    let Some(missing) = log.groups.get(count) else { return Some(count) };
    for (at, header) in bytes.windows(GROUP_HEADER_LEN).enumerate().skip(missing.at).step_by(8) {
        if !matches!(&header[4..8], b"RGRP" | b"REND") {
            continue;
        }
        let original = log
            .groups
            .iter()
            .find(|group| log.bytes[group.at..group.at + GROUP_HEADER_LEN] == *header);
        let is_witness = |group: &Group| {
            let durable = group.durable_through as usize;
            group.number >= missing.number && durable <= at && durable > missing.at
        };
        if original.is_some_and(is_witness) {
            return None;
        }
    }
    Some(count)
}
