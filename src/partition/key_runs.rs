//! Key runs of the partition: when scans find many files, upkeep puts their keys into one order.
//!
//! A store that is never scanned has none. Hints become a run as soon as there are [`HINTS_MIN`] that no run covers,
//! and with them the smaller runs, as long as each is no larger than all that is merged before it: so a key is
//! written again only when its run has about doubled, and there are at most [`RUNS_MAX`] runs.

use std::sync::Arc;

use super::upkeep::UpkeepEvent;
use super::{Ops, Partition};
use crate::error::ErrorKind;
use crate::log::key_run::KeyRun;
use crate::planted::{Bug, is_planted};
use crate::types::KeyId;
use crate::upkeep::key_runs::{Input, KeyRunJob, Surroundings, Trouble};

/// Hints that are worth a run.
const HINTS_MIN: usize = 8;
/// Runs of a partition, at most.
const RUNS_MAX: usize = 8;

/// A step that ended.
pub(crate) type Stepped = (Box<KeyRunJob>, Result<Option<KeyRun>, Trouble>);

#[derive(Default)]
pub(super) struct KeyRuns {
    /// In order of size, the smallest first.
    runs: Vec<Arc<KeyRun>>,
    job: Option<Box<KeyRunJob>>,
    /// Scans have found many files since the last job began.
    is_wanted: bool,
    /// Compaction had the last turn.
    is_next: bool,
}

impl KeyRuns {
    /// Whether it is before compaction this time: they take turns.
    pub(super) fn take_turn(&mut self) -> bool {
        self.is_next = !self.is_next;
        !self.is_next
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<KeyRun>> {
        self.runs.iter()
    }
}

impl Partition {
    /// Readers see the files and the runs that there are now.
    pub(super) fn files_show(&self) {
        self.view.show_files(&self.files, &self.upkeep.key_runs.runs);
    }

    /// Takes the next step towards a run, if one is due; true if it does.
    pub(super) fn key_runs_advance(&mut self, ops: &mut Ops) -> bool {
        self.upkeep.key_runs.is_wanted |= self.view.take_wide_scan();
        if self.poisoned.is_some() || self.sealing {
            self.key_run_give_up();
            return false;
        }
        let job = self.upkeep.key_runs.job.take().or_else(|| self.next_key_run());
        let Some(mut job) = job else { return false };
        let step = move || {
            let stepped = job.step();
            (job, stepped)
        };
        self.upkeep_step(ops, step, UpkeepEvent::KeyRun);
        true
    }

    fn next_key_run(&mut self) -> Option<Box<KeyRunJob>> {
        // Scans of a store that has a key read no hints.
        if !self.upkeep.key_runs.is_wanted || self.config.codecs.key_id() != KeyId::NONE {
            return None;
        }
        self.key_runs_drop(|run| run.is_broken());
        let inputs = self.key_run_inputs()?;
        self.upkeep.key_runs.is_wanted = false;
        let surroundings = Surroundings {
            fs: self.fs.clone(),
            dir: self.dir.clone(),
            owner: self.owner.clone(),
            hasher: self.hasher.clone(),
            keydir: self.view.keydir.clone(),
        };
        let id = self.groups.ids().take();
        Some(Box::new(KeyRunJob::new(surroundings, id, inputs)))
    }

    /// What is to be merged next; `None` if there is too little.
    fn key_run_inputs(&mut self) -> Option<Vec<Input>> {
        // Most of what such a run names is gone, or has moved to files that it does not cover.
        let listed = &self.listed.sealed;
        let is_stale = |run: &KeyRun| {
            let covered = listed.iter().filter(|sealed| run.covers(sealed.id));
            covered.map(|sealed| sealed.records).sum::<u64>() < run.entries / 2
        };
        let stale: Vec<_> =
            self.upkeep.key_runs.iter().filter(|run| is_stale(run)).cloned().collect();
        self.key_runs_drop(|run| stale.iter().any(|stale| Arc::ptr_eq(stale, run)));

        let runs = &self.upkeep.key_runs.runs;
        let hints = self.files.iter().filter_map(|(_, data)| {
            let sealed = self.listed.find_sealed(data.id)?;
            let hint = data.hint()?;
            let is_covered = runs.iter().any(|run| run.covers(data.id));
            (!is_covered).then(|| (sealed.records, Input::Hint(hint, data.clone())))
        });
        let (sizes, mut inputs): (Vec<u64>, Vec<Input>) = hints.unzip();
        if inputs.len() < HINTS_MIN {
            return None;
        }
        let mut total: u64 = sizes.iter().sum();
        for (index, run) in runs.iter().enumerate() {
            let would_be_left = runs.len() - index + 1;
            if run.entries > total && would_be_left <= RUNS_MAX {
                break;
            }
            total += run.entries;
            inputs.push(Input::Run(run.clone()));
        }
        Some(inputs)
    }

    pub(super) fn key_run_stepped(&mut self, stepped: Option<Stepped>) {
        let Some((job, stepped)) = stepped else { return };
        match stepped {
            Ok(None) => self.upkeep.key_runs.job = Some(job),
            Ok(Some(run)) => self.key_run_done(&job, run),
            Err(trouble) => {
                self.upkeep.release_names([job.path()]);
                match trouble {
                    Trouble::Broken(Input::Hint(hint, data)) => self.hint_broken(&data, &hint),
                    Trouble::Broken(Input::Run(run)) => run.set_broken(),
                    // Without a run scans are slow and right; the next one asks again.
                    Trouble::Failed(error) if error.kind() == ErrorKind::NoSpace => {}
                    Trouble::Failed(error) => {
                        tracing::warn!(partition = self.id.0, %error, "no key run was written");
                    }
                }
            }
        }
    }

    fn key_run_done(&mut self, job: &KeyRunJob, mut run: KeyRun) {
        if is_planted(Bug::CoversTheUnmerged) {
            run.cover(self.listed.sealed.iter().map(|sealed| sealed.id));
        }
        let run = Arc::new(run);
        let is_input = |other: &Arc<KeyRun>| {
            let mut inputs = job.inputs().iter();
            inputs.any(|input| matches!(input, Input::Run(run) if Arc::ptr_eq(run, other)))
        };
        self.key_runs_drop(is_input);
        let runs = &mut self.upkeep.key_runs.runs;
        let at = runs.partition_point(|other| other.entries <= run.entries);
        runs.insert(at, run);
        self.key_runs_changed();
    }

    /// The job that is under way ends here, without a run.
    fn key_run_give_up(&mut self) {
        if let Some(job) = self.upkeep.key_runs.job.take() {
            self.upkeep.release_names([job.path()]);
        }
    }

    /// Lets go of some runs; scans that are under way read on in them.
    fn key_runs_drop(&mut self, is_dropped: impl Fn(&Arc<KeyRun>) -> bool) {
        let runs = &mut self.upkeep.key_runs.runs;
        let dropped: Vec<_> = runs.extract_if(.., |run| is_dropped(run)).collect();
        if !dropped.is_empty() {
            self.upkeep.release_runs(dropped);
            self.key_runs_changed();
        }
    }

    /// At the end nothing is left of them; true if there was anything.
    pub(super) fn key_runs_leave(&mut self) -> bool {
        let had_runs = !self.upkeep.key_runs.runs.is_empty();
        self.key_runs_drop(|_| true);
        had_runs
    }

    fn key_runs_changed(&mut self) {
        self.files_show();
        let runs = &self.upkeep.key_runs.runs;
        self.view.counters.key_runs.set(runs.len() as u64);
        self.view.counters.key_run_bytes.set(runs.iter().map(|run| run.len).sum());
    }
}
