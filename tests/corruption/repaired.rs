//! Holds a repaired store against the records that were sound before.

use std::sync::Arc;

use ringcask::{ErrorKind, VerifyReport};

use crate::contents::get;
use crate::expect::Expected;
use crate::judge::ensure;
use crate::layout::{Layout, image_of, options};
use crate::log::{
    DATA_FILE_LEN_MAX, GROUP_HEADER_LEN, Group, Log, Newest, Record, newest, padded, unsettled,
};
use crate::mutation::{Image, Source};
use crate::support::{is_hint, wait};

/// Repaired, the store opens, verifies, and has of every key the newest record that is sound.
pub(crate) fn check_repair(
    layout: &Layout,
    image: &Image,
    expected: &Expected<'_>,
    found: &VerifyReport,
) -> Result<(), String> {
    let store = layout.with(image);
    let repair =
        || store.options().data_file_len_max(DATA_FILE_LEN_MAX as u64).repair(store.path());
    let report = match wait(repair()) {
        Ok(report) => report,
        Err(error) => {
            ensure!(!found.newer.is_empty(), "repair: {error}, {found:?}");
            ensure!(error.kind() == ErrorKind::NewerFormat, "repair: {error}");
            ensure!(image_of(&store) == *image, "a repair that was refused has changed something");
            return Ok(());
        }
    };
    ensure!(
        report.is_changed() == expected.is_damaged,
        "damaged: {}, and {report:?}",
        expected.is_damaged
    );
    let again = wait(store.options().verify(store.path())).map_err(|error| error.to_string())?;
    ensure!(again.is_sound(), "repaired, and {again:?}");
    let after = image_of(&store);
    // A list that was sound is replaced, hints are made anew, and a temporary file is nobody's.
    let is_kept = |file: &str, bytes: &Arc<Vec<u8>>| {
        is_hint(file)
            || file.ends_with("FILES.tmp")
            || file == "MANIFEST.tmp"
            || layout.lists.contains_key(&(file.to_owned(), bytes.to_vec()))
            || after.values().any(|kept| kept == bytes)
    };
    ensure!(image.iter().all(|(file, bytes)| is_kept(file, bytes)), "gone: {report:?}");
    let again = wait(repair()).map_err(|error| format!("repaired again: {error}"))?;
    ensure!(!again.is_changed(), "repaired again: {again:?}");
    let db = store.try_open(options(&store)).map_err(|error| format!("repaired: {error}"))?;
    // By a MANIFEST of another store it is that store, and has nothing of it.
    if image.get("MANIFEST") != layout.source(Source::Foreign).get("MANIFEST") {
        let sound = Sound::of(layout, image, expected);
        for key in &layout.keys {
            let found = get(&db, key).map_err(|error| format!("repaired: {error}"))?;
            let shown = key[..key.len().min(20)].escape_ascii();
            ensure!(
                sound.allows(key, found.as_deref()),
                "repaired, key {shown}: {:?}, {report:?}",
                found.map(|value| value.slice(..value.len().min(20)))
            );
        }
    }
    wait(db.close()).map_err(|error| format!("close: {error}"))
}

/// The sound records of a changed store.
struct Sound<'a> {
    /// Those that must be kept.
    in_place: Newest<'a>,
    /// Those that may be: whole, and not where they were, or where nobody vouches for them.
    anywhere: Vec<&'a Record>,
}

impl<'a> Sound<'a> {
    fn of(layout: &'a Layout, image: &Image, expected: &Expected<'_>) -> Sound<'a> {
        let mut in_place = Vec::new();
        let mut anywhere = Vec::new();
        // What the next open comes upon, in its order: what a damaged file had is in a new one behind the others.
        let mut read = [Vec::new(), Vec::new()];
        for (file, logs) in &layout.logs {
            let listed = is_listed(layout, image, file);
            // Of a file that is listed and not there, a repair that was cut short has left the other name.
            let aside = image.get(&format!("{file}.damaged")).filter(|_| listed == Some(true));
            let found = image.get(file).or(aside).filter(|_| listed != Some(false));
            let Some(bytes) = found else { continue };
            // It may be the twin's, which is as sound.
            let log = logs.iter().find(|log| log.bytes == **bytes).unwrap_or(&logs[0]);
            let is_damaged = log.bytes != **bytes;
            let has_hint = !is_damaged && layout.has_hint(image, file, log);
            // What open cuts, repair leaves to it.
            let count = expected.cut.get(file).copied().unwrap_or(log.groups.len());
            let whole = log.groups.iter().take_while(|group| {
                bytes.get(group.at..group.end) == log.bytes.get(group.at..group.end)
            });
            // Without a list, and without a closing mark, it is a log that was cut short there.
            let end = whole.last().map_or(0, |group| group.end);
            let is_log = listed.is_none() && !(log.is_closed && bytes.ends_with(mark(log)));
            // Behind damage in the last file, what no later group vouches for may be torn; one that is gone itself
            // vouches for nothing.
            let stands = |group: &&Group| {
                let header = group.at..group.at + GROUP_HEADER_LEN;
                bytes.get(header.clone()) == log.bytes.get(header)
            };
            let vouching = log.groups.iter().filter(stands);
            let vouched = vouching.map(|group| group.durable_through as usize).max();
            let is_tail = !log.is_closed && expected.refuse.contains(file);
            for record in log.groups.iter().take(count).flat_map(|group| &group.records) {
                let range = record.at..record.at + padded(record.len);
                let is_whole = bytes.get(range.clone()) == log.bytes.get(range);
                let is_cut =
                    (is_log && record.at >= end) || (is_tail && Some(record.at) >= vouched);
                if is_whole && !is_cut {
                    in_place.push(record);
                    if !has_hint {
                        read[usize::from(is_damaged)].push(record);
                    }
                }
                let whole = &log.bytes[record.at..record.at + record.len];
                if bytes.windows(record.len).step_by(8).any(|window| window == whole) {
                    anywhere.push(record);
                }
            }
        }
        // B1: an intent counts if there is a decision, and no resolve; without them it is as if it were not there.
        let unsettled = unsettled(read.iter().flatten().copied());
        let plain = in_place.into_iter().filter(|record| record.is_plain());
        let in_place = newest(plain.chain(unsettled.values().flatten().copied()));
        Sound { in_place, anywhere }
    }

    fn allows(&self, key: &[u8], found: Option<&[u8]>) -> bool {
        let least = self.in_place.get(key);
        let is_found = |record: &Record| record.value.as_deref() == found;
        // A file of the twin's brings numbers that the store's own files have too.
        let is_newer = |record: &Record| least.is_none_or(|least| record.seqno >= least.seqno);
        let may_count = |record: &Record| {
            record.is_plain()
                || (record.is_intent() && self.anywhere.iter().any(|other| other.decides(record)))
        };
        least.map_or(found.is_none(), |least| is_found(least))
            || self.anywhere.iter().any(|record| {
                record.concerns(key) && is_newer(record) && is_found(record) && may_count(record)
            })
    }
}

fn mark(log: &Log) -> &[u8] {
    let mark = log.groups.last().expect("a closed log has its mark");
    &log.bytes[mark.at..mark.end]
}

/// Whether the file counts, by its partition's `FILES`; without one, all count that are there.
fn is_listed(layout: &Layout, image: &Image, file: &str) -> Option<bool> {
    let path = format!("{}/FILES", file.split('/').next().unwrap_or_default());
    let bytes = image.get(&path)?.to_vec();
    let list = layout.lists.get(&(path, bytes))?;
    let mut ids = list.sealed.iter().map(|sealed| sealed.id).chain(list.active);
    Some(ids.any(|id| file.ends_with(&format!("/{id:09}.data"))))
}
