//! A crash at every operation, and at every operation of the recovery from it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use ringcask::sim::{Cut, Moment, OpKind, SimDisk};

use crate::check::{Counters, Expected, Image, Recovered, Then, add};
use crate::cores::on_all_cores;
use crate::cuts::{Seen, cuts};
use crate::history::{Bounds, Crash, Found, History};
use crate::run::record;
use crate::script::{self, KEY, Session, Settings};
use crate::support::{Store, is_long, seed};

/// How much is done with each crash point.
#[derive(Clone, Copy)]
struct Effort {
    /// Random power cuts of each kind.
    random_cuts: usize,
    /// Of so many images of power cuts one is recovered with a crash at every operation.
    double_every: u64,
    /// The same of kills: what recovery builds on is not durable yet.
    double_of_kills_every: u64,
    /// Of so many images of a crash in a recovery one is crashed in recovery once more.
    triple_every: u64,
    /// Of so many images one is opened without hints, with files that are not listed, and after a
    /// compaction as well.
    variants_every: u64,
}

/// A file as it was when it was removed.
struct Removed {
    /// By which operation of the session; 0 if in an earlier one.
    at: u64,
    path: PathBuf,
    bytes: Vec<u8>,
}

/// What all images of a session are held against.
struct Sweep<'a> {
    store: &'a Store,
    history: &'a History,
    effort: Effort,
    seed: u64,
    counters: &'a Counters,
    /// Data and hint files that may come back.
    removed: &'a [Removed],
    seen: Seen<(Bounds, bool)>,
    seen_again: Seen<(Found, RangeInclusive<u8>, bool)>,
}

impl Sweep<'_> {
    /// Every crash right before one operation.
    fn crash_at(&self, at: u64, moment: &Moment) {
        add(&self.counters.points, 1);
        let random = &mut fastrand::Rng::with_seed(self.seed ^ at);
        let what = format!(
            "seed {}, crashed at {at}, {:?} {}",
            self.seed,
            moment.kind,
            moment.path.display()
        );
        let cuts = cuts(&moment.disk, random, self.effort.random_cuts);
        add(&self.counters.made, cuts.len() as u64 + 1);
        let cut = |cut| (format!("{what}, {cut:?}"), Crash::PowerCut, moment.disk.power_cut(cut));
        let killed = (format!("{what}, killed"), Crash::Kill, moment.disk.kill());
        for (what, crash, disk) in cuts.into_iter().map(cut).chain([killed]) {
            let bounds = self.history.bounds(at, crash);
            if self.seen.is_new((bounds.clone(), crash == Crash::Kill), &disk) {
                let expected = Expected::Beginning { history: self.history, bounds, crash };
                let image = Image { store: self.store.on(disk), expected, after: 0..=0, what };
                self.check(&image, crash, at, random);
            }
        }
    }

    fn check(&self, image: &Image, crash: Crash, at: u64, random: &mut fastrand::Rng) {
        let Effort { double_every, double_of_kills_every, variants_every, .. } = self.effort;
        if crash == Crash::Kill {
            add(&self.counters.killed, 1);
        }
        let varied =
            random.u64(..).is_multiple_of(variants_every).then(|| image.store.disk().kill());
        let every = if crash == Crash::Kill { double_of_kills_every } else { double_every };
        let recovered = if random.u64(..).is_multiple_of(every) {
            self.crash_in_recovery(image, crash, at, random)
        } else {
            image.recover(settings(random), Then::Leave, self.counters)
        };
        if let Some(disk) = varied {
            self.check_variants(image, &disk, &recovered.found, at, random);
        }
    }

    /// Recovers the image with a crash before each operation of recovery, of a write after it, and of
    /// closing.
    fn crash_in_recovery(
        &self,
        image: &Image,
        crash: Crash,
        at: u64,
        random: &mut fastrand::Rng,
    ) -> Recovered {
        let disk = image.store.disk();
        disk.record();
        let recovered = image.recover(settings(random), Then::Close, self.counters);
        for (again_at, moment) in (0..).zip(disk.moments()) {
            let after = if again_at >= recovered.acknowledged_at {
                recovered.after..=recovered.after
            } else if again_at <= recovered.sent_at {
                image.after.clone()
            } else {
                *image.after.start()..=recovered.after
            };
            // What a killed process had not synced is still not durable: until recovery is through, a power
            // cut may take it.
            let is_settled = crash == Crash::PowerCut || again_at >= recovered.opened_at;
            let what = format!(
                "{}, again at {again_at} of recovery, {:?} {}",
                image.what,
                moment.kind,
                moment.path.display()
            );
            let cuts = cuts(&moment.disk, random, 1);
            add(&self.counters.made, cuts.len() as u64 + 1);
            let cut = |cut| (format!("{what}, {cut:?}"), moment.disk.power_cut(cut));
            let killed = (format!("{what}, killed"), moment.disk.kill());
            for (index, (what, disk)) in
                [killed].into_iter().chain(cuts.into_iter().map(cut)).enumerate()
            {
                let is_killed = index == 0;
                let is_same = is_settled || is_killed;
                if !self.seen_again.is_new((recovered.found.clone(), after.clone(), is_same), &disk)
                {
                    continue;
                }
                let expected = if is_same {
                    Expected::Same { found: &recovered.found, why: "I16" }
                } else {
                    let bounds = self.history.bounds(at, Crash::PowerCut);
                    Expected::Beginning { history: self.history, bounds, crash: Crash::PowerCut }
                };
                let store = self.store.on(disk);
                let again = Image { store, expected, after: after.clone(), what };
                add(&self.counters.double, 1);
                self.recover_again(&again, is_settled && !is_killed, random);
            }
        }
        recovered
    }

    /// The third crash, at a random moment of the second recovery.
    fn recover_again(&self, image: &Image, is_durable: bool, random: &mut fastrand::Rng) {
        if !is_durable || !random.u64(..).is_multiple_of(self.effort.triple_every) {
            image.recover(settings(random), Then::Leave, self.counters);
            return;
        }
        let disk = image.store.disk();
        disk.record();
        let recovered = image.recover(settings(random), Then::Close, self.counters);
        let moments = disk.moments();
        let at = random.usize(..moments.len());
        let cuts = cuts(&moments[at].disk, random, 1);
        let cut = cuts[random.usize(..cuts.len())];
        let (start, end) = (*image.after.start(), recovered.after);
        let after = if at as u64 >= recovered.acknowledged_at { end..=end } else { start..=end };
        let left = moments[at].disk.power_cut(cut);
        let again = image.again(left, &recovered.found, after, "I16");
        add(&self.counters.triple, 1);
        again.recover(settings(random), Then::Leave, self.counters);
    }

    /// The same image in other clothes: whatever opens it finds the same.
    fn check_variants(
        &self,
        image: &Image,
        disk: &SimDisk,
        found: &Found,
        at: u64,
        random: &mut fastrand::Rng,
    ) {
        let mut recover =
            |image: &Image, then| image.recover(settings(random), then, self.counters);
        let variant = |why| image.again(disk.kill(), found, 0..=0, why);
        let without_hints = variant("I9");
        without_hints.store.spoil_hints();
        recover(&without_hints, Then::Leave);
        let with_strays = variant("I10");
        for Removed { path, bytes, .. } in self.removed.iter().filter(|removed| removed.at < at) {
            if with_strays.store.disk().read_file(path).is_none() {
                with_strays.store.disk().write_file(path, bytes).unwrap();
            }
        }
        recover(&with_strays, Then::Leave);
        let compacted = variant("I4");
        let now = recover(&compacted, Then::Compact);
        let left = compacted.store.disk().power_cut(Cut::DropUnsynced);
        let again = compacted.again(left, found, now.after..=now.after, "I4");
        recover(&again, Then::Leave);
    }
}

fn settings(random: &mut fastrand::Rng) -> Settings {
    let (prewrite, background) = (random.bool(), random.u8(..4) == 0);
    Settings { prewrite, background, rekeyed: random.u8(..4) == 0, ..Settings::PLAIN }
}

/// Data and hint files that the recorded operations removed.
fn removed_in(moments: &[Moment]) -> impl Iterator<Item = Removed> {
    let removals = (0..).zip(moments).filter(|(_, moment)| moment.kind == OpKind::Remove);
    removals.filter_map(|(at, Moment { path, disk, .. })| {
        let is_file = path.extension().is_some_and(|end| end == "data" || end == "hint");
        let bytes = disk.read_file(path).filter(|_| is_file)?;
        Some(Removed { at, path: path.clone(), bytes })
    })
}

fn sweep(sessions: &[Session], seed: u64, effort: Effort, counters: &Counters) {
    sweep_until(&|| false, sessions, seed, effort, counters);
}

fn sweep_until(
    is_enough: &(dyn Fn() -> bool + Sync),
    sessions: &[Session],
    seed: u64,
    effort: Effort,
    counters: &Counters,
) {
    let store = Store::sim(seed);
    let is_rekeyed = sessions.iter().any(|session| session.settings.rekeyed);
    let mut store = if is_rekeyed || seed.is_multiple_of(3) { store.encrypted(KEY) } else { store };
    let mut history = History::default();
    let mut removed: Vec<Removed> = Vec::new();
    for session in sessions {
        if is_enough() {
            return;
        }
        let recorded = record(&store, session, &mut history);
        for removed in &mut removed {
            removed.at = 0;
        }
        removed.extend(removed_in(&recorded.moments));
        let sweep = Sweep {
            store: &store,
            history: &history,
            effort,
            seed,
            counters,
            removed: &removed,
            seen: Seen::new(),
            seen_again: Seen::new(),
        };
        on_all_cores(recorded.moments.len(), |at| {
            if !is_enough() {
                sweep.crash_at(at as u64, &recorded.moments[at]);
            }
        });
        store = store.on(recorded.end);
    }
}

/// Breaks if any crash at any operation, or any crash of the recovery from it, costs something.
#[test]
fn a_crash_at_every_operation_keeps_every_promise() {
    let seed = seed();
    let random = &mut fastrand::Rng::with_seed(seed);
    let counters = Counters::default();
    // Which are drawn, so that another run takes others.
    let effort = if is_long() {
        Effort {
            random_cuts: 8,
            double_every: 2,
            double_of_kills_every: 1,
            triple_every: 20,
            variants_every: 2,
        }
    } else {
        Effort {
            random_cuts: 2,
            double_every: 3584,
            double_of_kills_every: 896,
            triple_every: 50,
            variants_every: 8,
        }
    };
    for _ in 0..if is_long() { 20 } else { 1 } {
        sweep(&script::tour(), random.u64(..), effort, &counters);
        sweep(&script::evicting(), random.u64(..), effort, &counters);
        sweep(&script::together(), random.u64(..), effort, &counters);
    }
    // How many images a script comes to is chance; there are as many scripts as it takes.
    let opened = || counters.opened.load(Ordering::Relaxed);
    let scripts = if is_long() { 400 } else { 1 };
    let mut swept = 0;
    while swept < scripts || opened() < 200_000 {
        // One moment after the other, until there are enough.
        let is_last = swept + 1 >= scripts;
        let is_enough = || is_last && opened() >= 200_000;
        sweep_until(&is_enough, &script::random(random), random.u64(..), effort, &counters);
        swept += 1;
    }
    counters.tell();
    let opened = opened();
    assert!(opened >= 200_000, "{opened} images are fewer than what the documentation promises");
}

/// What evictions do depends on chance, so one run of a script shows little. Breaks if a key goes later than when it was
/// its turn, where it is taken for lost.
#[test]
fn what_has_to_go_goes_at_once() {
    let random = &mut fastrand::Rng::with_seed(seed());
    for round in 0..60 {
        let mut store = Store::sim(random.u64(..)).encrypted(KEY);
        let mut history = History::default();
        let sessions = if round % 3 == 0 { script::evicting() } else { script::together() };
        for session in &sessions {
            store = store.on(record(&store, session, &mut history).end);
        }
    }
}
