//! Holds what verify and a refused open say against what was changed.

use std::path::PathBuf;

use ringcask::{Error, ErrorKind, VerifyReport};

use crate::expect::Expected;
use crate::judge::{Altered, ensure};
use crate::layout::Layout;
use crate::mutation::{Image, Mutation};
use crate::support::is_hint;

/// Verify finds what there is to find, and nothing else.
pub(crate) fn check_report(
    report: &VerifyReport,
    expected: &Expected<'_>,
    altered: &Altered<'_>,
) -> Result<(), String> {
    ensure!(report.is_sound() != expected.is_damaged, "{expected:?}, and verify says {report:?}");
    let damaged = report.damage.iter().map(|damage| &damage.path);
    let named: Vec<&PathBuf> =
        damaged.chain(report.newer.iter().map(|newer| &newer.path)).collect();
    ensure!(
        named.iter().all(|path| altered.accounts_for(path)),
        "verify names other files than {:?}: {report:?}",
        altered.files
    );
    Ok(())
}

/// One flipped byte is one finding, and lies within what it says.
pub(crate) fn check_place(
    report: &VerifyReport,
    expected: &Expected<'_>,
    altered: &Altered<'_>,
    mutation: &Mutation,
) -> Result<(), String> {
    let Mutation::Flip { file, at, .. } = mutation else { return Ok(()) };
    let (path, at) = (altered.path_of(file), *at as u64);
    if is_hint(file) {
        let [hint] = &report.hints_ignored[..] else { return Err(format!("a hint: {report:?}")) };
        ensure!(hint.path == path, "another hint: {hint}");
    } else if expected.is_damaged && report.newer.is_empty() {
        let [damage] = &report.damage[..] else { return Err(format!("one place: {report:?}")) };
        ensure!(damage.path == path, "another file: {damage}");
        let end = damage.offset + damage.len.unwrap_or(0);
        ensure!((damage.offset..end).contains(&at), "not at {at}: {damage}");
    }
    ensure!(expected.cut.is_empty() || report.torn_bytes > 0, "torn bytes: {report:?}");
    Ok(())
}

/// Where a flipped byte is said to be when it keeps the store shut: at the group that it is in, or before it
/// where only the file's two ends were looked at.
pub(crate) fn check_refused_place(
    error: &Error,
    layout: &Layout,
    mutation: &Mutation,
) -> Result<(), String> {
    let (Mutation::Flip { file, at, .. }, Some((_, offset))) = (mutation, error.location()) else {
        return Ok(());
    };
    ensure!(offset <= *at as u64, "{at} is behind it: {error}");
    if let Some(log) = layout.logs.get(file).map(|logs| &logs[0]).filter(|log| !log.is_closed) {
        let group = log.groups.iter().rfind(|group| group.at <= *at);
        let begins = group.map_or(0, |group| group.at as u64);
        ensure!(offset == begins, "its group begins at {begins}: {error}");
    }
    Ok(())
}

pub(crate) fn check_refusal(
    error: &Error,
    altered: &Altered<'_>,
    image: &Image,
) -> Result<(), String> {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corrupt => {
            let (path, offset) = error.location().ok_or_else(|| format!("no place: {error}"))?;
            ensure!(altered.accounts_for(path), "it names another file: {error}");
            let says = |what: &str| text.contains(what);
            ensure!(says(&path.to_string_lossy()), "its text names no file: {error}");
            ensure!(says(&format!("offset {offset}")), "its text names no offset: {error}");
        }
        ErrorKind::NewerFormat => {
            let is_named = |file: &&String| text.contains(file.as_str());
            ensure!(altered.files.iter().any(is_named), "it names another file: {error}");
        }
        ErrorKind::NotAStore => {
            ensure!(!image.contains_key("MANIFEST"), "it is a store: {error}");
        }
        kind => return Err(format!("{kind:?}: {error}")),
    }
    Ok(())
}
