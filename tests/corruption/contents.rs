//! Holds an open store against what it must contain, and goes on with it.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringcask::{Db, Error, Result as Done};

use crate::expect::{Broken, Expected};
use crate::judge::{Altered, Outcome, ensure};
use crate::layout::{Layout, options};
use crate::log::{Again, FILE_HEADER_LEN, full_key, split_key};
use crate::support::{Store, accounts, is_hint, wait};

/// The kind of file, in its header.
const ENCRYPTED_HINT: u8 = 3;

/// Every key has its value, or an error that names its file; a walk finds all of them, or ends in an error.
pub(crate) fn check_contents(
    db: &Db,
    layout: &Layout,
    expected: &Expected<'_>,
    altered: &Altered<'_>,
) -> Result<Outcome, String> {
    let mut errors = 0;
    let mut check_error = |error: &Error| {
        errors += 1;
        let is_placed = error.location().is_some_and(|(path, _)| altered.accounts_for(path));
        ensure!(error.is_corrupt() && is_placed, "{error:?}");
        Ok(())
    };
    for key in &layout.keys {
        let shown = key[..key.len().min(20)].escape_ascii();
        let broken = expected.broken.get(&key[..]);
        match get(db, key) {
            Ok(found) => {
                let right = expected.values.get(&key[..]);
                let is_right = found.as_deref() == right.copied();
                ensure!(
                    is_right,
                    "key {shown}: {:?} instead of {:?}, {broken:?}",
                    found.map(|value| value.slice(..value.len().min(20))),
                    right.map(|value| value[..value.len().min(20)].escape_ascii().to_string())
                );
                ensure!(
                    broken != Some(&Broken::Record),
                    "key {shown}: it cannot be known any more"
                );
            }
            Err(error) => {
                ensure!(broken.is_some(), "key {shown} is whole: {error}");
                check_error(&error)?;
            }
        }
    }
    let mut found = BTreeMap::new();
    let mut is_whole = true;
    for (in_space, db) in handles(db) {
        let mut scan = db.scan();
        while let Some(entry) = wait(scan.next()) {
            match entry {
                Ok((key, value)) => drop(found.insert(full_key(in_space, &key), value)),
                Err(error) => {
                    is_whole = false;
                    ensure!(!expected.half_read.is_empty(), "a walk: {error}");
                    check_error(&error)?;
                }
            }
        }
    }
    for (key, value) in &found {
        let right = expected.values.get(&key[..]);
        ensure!(right == Some(&&value[..]), "a walk: {key:?} is {value:?}");
    }
    let is_all = found.len() == expected.values.len();
    ensure!(
        !is_whole || is_all,
        "a walk ends early: {} keys of {}",
        found.len(),
        expected.values.len()
    );
    if let Some(why) = &db.stats().total().poisoned {
        return Err(format!("poisoned: {why}"));
    }
    let groups_cut: usize =
        expected.cut.iter().map(|(file, count)| layout.logs[file][0].groups.len() - count).sum();
    Ok(match groups_cut {
        _ if errors > 0 => Outcome::ErrorAtRead,
        _ if expected.is_other_history => Outcome::OtherHistory,
        0 if expected.again != Again::default() => Outcome::SettledAgain,
        0 => Outcome::Harmless,
        1 => Outcome::TailCut,
        _ => Outcome::TailLost,
    })
}

/// The books are those of the store that was not changed, and what was settled once more.
pub(crate) fn check_accounts(
    db: &Db,
    layout: &Layout,
    expected: &Expected<'_>,
) -> Result<(), String> {
    let found = accounts(db);
    let again = expected.again.accounts();
    let right: [u64; 6] = std::array::from_fn(|at| layout.accounts[at] + again[at]);
    let is_other = !expected.cut.is_empty() || expected.is_other_history;
    ensure!(
        found == right || is_other,
        "accounts: {found:?} instead of {right:?}, {again:?} again"
    );
    Ok(())
}

/// Hints that were changed are what they were, but for the header that says when.
pub(crate) fn check_hints(
    layout: &Layout,
    expected: &Expected<'_>,
    altered: &Altered<'_>,
    store: &Store,
) -> Result<(), String> {
    if !expected.half_read.is_empty() || expected.is_other_history {
        return Ok(());
    }
    for hint in altered.files.iter().filter(|file| is_hint(file)) {
        let Some(before) = layout.image.get(*hint) else { continue };
        let after = store.image().remove(*hint).unwrap_or_default();
        // Nonces differ: of one that is encrypted only the length is the same.
        let is_same = if before.get(10) == Some(&ENCRYPTED_HINT) {
            after.len() == before.len() && after.get(10) == Some(&ENCRYPTED_HINT)
        } else {
            after.get(FILE_HEADER_LEN..) == before.get(FILE_HEADER_LEN..)
        };
        ensure!(is_same, "{hint} was not made anew");
    }
    Ok(())
}

/// Compacts, writes, closes, opens and reads again: what was right stays right, and damage stays damage.
pub(crate) fn check_afterwards(
    db: &Db,
    layout: &Layout,
    expected: &Expected<'_>,
    altered: &Altered<'_>,
    store: &Store,
) -> Result<(), String> {
    match wait(db.compact()) {
        Ok(_) => {}
        Err(error) => {
            let is_placed = error.location().is_some_and(|(path, _)| altered.accounts_for(path));
            let is_expected = !expected.half_read.is_empty() && is_placed;
            ensure!(error.is_corrupt() && is_expected, "compaction: {error}");
        }
    }
    check_contents(db, layout, expected, altered).map_err(|why| format!("compacted: {why}"))?;
    wait(db.put("afterwards", "v")).map_err(|error| format!("put: {error}"))?;
    wait(db.close()).map_err(|error| format!("close: {error}"))?;
    let db = store.try_open(options(store)).map_err(|error| format!("opened again: {error}"))?;
    let found = wait(db.get("afterwards")).map_err(|error| format!("opened again: {error}"))?;
    ensure!(found.as_deref() == Some(b"v"), "a key that was put: {found:?}");
    wait(db.del("afterwards")).map_err(|error| format!("del: {error}"))?;
    check_contents(&db, layout, expected, altered).map_err(|why| format!("opened again: {why}"))?;
    wait(db.close()).map_err(|error| format!("close: {error}"))
}

/// The store's keyspaces, of which there are one or two, and whether each is not the default one.
pub(crate) fn handles(db: &Db) -> Vec<(bool, Db)> {
    let others = db.keyspaces().into_iter().map(|name| {
        let space = wait(db.keyspace(name)).expect("a keyspace that there is");
        (true, (*space).clone())
    });
    [(false, db.clone())].into_iter().chain(others).collect()
}

/// The key of its keyspace; none is there without it.
pub(crate) fn get(db: &Db, key: &[u8]) -> Done<Option<Bytes>> {
    let (in_space, key) = split_key(key);
    let handle = handles(db).into_iter().find(|(of, _)| *of == in_space);
    handle.map_or(Ok(None), |(_, db)| wait(db.get(key)))
}
