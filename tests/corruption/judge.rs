//! Holds one changed store against what is expected of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::contents::{check_accounts, check_afterwards, check_contents, check_hints};
use crate::expect::expect;
use crate::layout::{Layout, image_of, is_list, options};
use crate::mutation::{Image, Mutation};
use crate::repaired::check_repair;
use crate::support::{Store, wait};
use crate::told::{check_place, check_refusal, check_refused_place, check_report};

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The store does not open, and says which file is damaged.
    Refused,
    /// It opens; what was hit is an error when it is read, the rest is right.
    ErrorAtRead,
    /// It opens, and everything is right.
    Harmless,
    /// The same, and a batch that was settled long ago was settled once more.
    SettledAgain,
    /// The last group of a killed store, for which no later one vouches, is gone (F4).
    TailCut,
    /// The end of a killed store's log is gone with everything that said how long it was.
    TailLost,
    /// It is what it once was, or what its twin is, in every byte that counts.
    OtherHistory,
}

impl Outcome {
    pub(crate) const ALL: [Outcome; 7] = [
        Outcome::Refused,
        Outcome::ErrorAtRead,
        Outcome::Harmless,
        Outcome::SettledAgain,
        Outcome::TailCut,
        Outcome::TailLost,
        Outcome::OtherHistory,
    ];

    pub(crate) fn shown(self) -> &'static str {
        match self {
            Outcome::Refused => "refused at open",
            Outcome::ErrorAtRead => "error at read",
            Outcome::Harmless => "harmless",
            Outcome::SettledAgain => "harmless, a batch settled again",
            Outcome::TailCut => "last group cut",
            Outcome::TailLost => "end of the log lost",
            Outcome::OtherHistory => "rolled back as a whole",
        }
    }
}

/// Ends the judgement with a reason.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}
pub(crate) use ensure;

/// Everything about one change; `deep` goes on with the store, and repairs it.
pub(crate) fn judge(layout: &Layout, mutation: &Mutation, deep: bool) -> Result<Outcome, String> {
    let mut image = layout.image.clone();
    mutation.apply(layout, &mut image);
    let expected = expect(layout, &image);
    let store = layout.with(&image);
    let altered = Altered::of(layout, &image, &store);
    let report = wait(store.options().verify(store.path()));
    let report = report.map_err(|error| format!("verify: {error}"))?;
    check_report(&report, &expected, &altered)?;
    check_place(&report, &expected, &altered, mutation)?;
    let outcome = match store.try_open(options(&store)) {
        Err(error) => {
            ensure!(!expected.refuse.is_empty(), "refused for no reason: {error}");
            check_refusal(&error, &altered, &image)?;
            check_refused_place(&error, layout, mutation)?;
            let left = image_of(&store);
            // A sound partition beside the damaged one may have noted that an id is taken.
            let mut kept = image.iter().filter(|(file, _)| !is_list(file));
            let is_kept = kept.all(|(file, bytes)| left.get(file) == Some(bytes));
            ensure!(is_kept, "a refused open has changed or removed a file: {error}");
            Outcome::Refused
        }
        Ok(db) => {
            ensure!(expected.refuse.is_empty(), "opened, in spite of {:?}", expected.refuse);
            check_accounts(&db, layout, &expected)?;
            let outcome = check_contents(&db, layout, &expected, &altered)?;
            if deep {
                check_afterwards(&db, layout, &expected, &altered, &store)?;
            } else {
                wait(db.close()).map_err(|error| format!("close: {error}"))?;
                check_hints(layout, &expected, &altered, &store)?;
            }
            outcome
        }
    };
    if deep {
        check_repair(layout, &image, &expected, &report)?;
    }
    Ok(outcome)
}

/// Files that are not what they were.
pub(crate) struct Altered<'a> {
    store: &'a Store,
    pub(crate) files: BTreeSet<&'a String>,
}

impl<'a> Altered<'a> {
    fn of(layout: &'a Layout, image: &'a Image, store: &'a Store) -> Altered<'a> {
        let names = layout.image.keys().chain(image.keys());
        let is_altered = |name: &&String| layout.image.get(*name) != image.get(*name);
        Altered { store, files: names.filter(is_altered).collect() }
    }

    /// Whether it is one of these, or is what one of them says something about.
    pub(crate) fn accounts_for(&self, path: &Path) -> bool {
        self.files.iter().any(|file| match file.strip_suffix("FILES") {
            _ if *file == "MANIFEST" => true,
            Some(dir) => path.starts_with(self.path_of(dir)),
            None => path == self.path_of(file),
        })
    }

    pub(crate) fn path_of(&self, file: &str) -> PathBuf {
        self.store.path().join(file)
    }
}
