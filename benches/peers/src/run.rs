//! Turns: every store has one, then every store has the next.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::keys::Values;
use crate::peer::{Class, Job, Peer};
use crate::peers;
use crate::rows::{Row, Work};

pub struct Plan<'a> {
    pub dir: &'a Path,
    pub turns: u32,
    pub seconds: u64,
    pub records: u64,
    pub peers: &'a [String],
}

impl Plan<'_> {
    fn takes(&self, name: &str) -> bool {
        peers::OURS.contains(&name)
            || self.peers.is_empty()
            || self.peers.iter().any(|asked| asked == name)
    }
}

/// One store's turns of one row.
#[derive(Serialize)]
pub struct Measured {
    pub name: &'static str,
    /// Threads, or tasks.
    pub callers: usize,
    pub settings: String,
    /// Operations a second, one for each turn.
    pub per_second: Vec<f64>,
    /// Why there are none.
    pub left_out: Option<String>,
}

impl Measured {
    pub fn median(&self) -> f64 {
        let mut sorted = self.per_second.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    pub fn spread(&self) -> (f64, f64) {
        let all = self.per_second.iter();
        (all.clone().copied().fold(f64::MAX, f64::min), all.copied().fold(0.0, f64::max))
    }
}

/// A store that takes part in a row, and what it has done so far.
struct Entrant {
    measured: Measured,
    /// Numbers of threads that are tried; after the first turn the best one.
    candidates: Vec<usize>,
    /// Kept open between turns if the row only reads.
    open: Option<(tempfile::TempDir, Box<dyn Peer>)>,
}

pub fn row(row: &Row, plan: &Plan<'_>) -> Result<Vec<Measured>> {
    let records = (plan.records * row.records_percent / 100).max(1000);
    let values = Values::new(row.value_len);
    let mut entrants: Vec<Entrant> = peers::NAMES
        .into_iter()
        .filter(|name| plan.takes(name) && peers::takes_part(name, row))
        .map(|name| Entrant {
            measured: Measured {
                name,
                callers: 0,
                settings: String::new(),
                per_second: Vec::new(),
                left_out: peers::left_out(name, records).map(str::to_owned),
            },
            candidates: row.peer_threads.to_vec(),
            open: None,
        })
        .collect();
    for turn in 0..plan.turns {
        for entrant in entrants.iter_mut().filter(|entrant| entrant.measured.left_out.is_none()) {
            let name = entrant.measured.name;
            eprintln!("{}: {}, turn {} of {}", row.title, name, turn + 1, plan.turns);
            // A store that fails is told of, and the others go on.
            if let Err(error) = take_turn(entrant, row, plan, records, &values, turn) {
                eprintln!("{name}: {error:#}");
                entrant.measured.left_out = Some(format!("{error:#}"));
                entrant.open = None;
            }
        }
    }
    Ok(entrants.into_iter().map(|entrant| entrant.measured).collect())
}

fn take_turn(
    entrant: &mut Entrant,
    row: &Row,
    plan: &Plan<'_>,
    records: u64,
    values: &Values,
    turn: u32,
) -> Result<()> {
    let (dir, peer) = match entrant.open.take() {
        Some(open) => open,
        None => {
            let dir = tempfile::Builder::new().prefix("peers-").tempdir_in(plan.dir)?;
            let peer = peers::open_of(entrant.measured.name)(dir.path(), row.class)
                .with_context(|| format!("open {}", entrant.measured.name))?;
            (dir, peer)
        }
    };
    entrant.measured.settings = peer.settings();
    let Work::Mix(mix) = row.work else {
        let started = Instant::now();
        peer.load(0..records, values)?;
        let rate = records as f64 / started.elapsed().as_secs_f64();
        entrant.measured.per_second.push(rate);
        entrant.measured.callers = 1;
        return Ok(());
    };
    if mix.scans > 0 && !peer.is_ordered() {
        entrant.measured.left_out = Some("it has no ordered scans".to_owned());
        return Ok(());
    }
    let reads_only = mix.reads == 100;
    if turn == 0 || !reads_only {
        peer.load(0..records, values)?;
    }
    if turn == 0 {
        if peer.is_async() {
            entrant.candidates = vec![row.callers];
        }
        entrant.candidates = vec![best_of(&entrant.candidates, |callers| {
            measure(&*peer, row, callers, records, values, Duration::from_secs(1), turn)
        })?];
    }
    let callers = entrant.candidates[0];
    let time = Duration::from_secs(plan.seconds);
    let rate = measure(&*peer, row, callers, records, values, time, turn + 1)?;
    entrant.measured.per_second.push(rate);
    entrant.measured.callers = callers;
    if reads_only {
        entrant.open = Some((dir, peer));
    }
    Ok(())
}

fn best_of(candidates: &[usize], mut rate: impl FnMut(usize) -> Result<f64>) -> Result<usize> {
    if let [only] = candidates {
        return Ok(*only);
    }
    let mut best = (0, -1.0);
    for callers in candidates {
        let rate = rate(*callers)?;
        if rate > best.1 {
            best = (*callers, rate);
        }
    }
    Ok(best.0)
}

/// Operations a second.
fn measure(
    peer: &dyn Peer,
    row: &Row,
    callers: usize,
    records: u64,
    values: &Values,
    time: Duration,
    turn: u32,
) -> Result<f64> {
    let Work::Mix(mix) = row.work else { unreachable!("a load is not a mix") };
    let (stop, next) = (AtomicBool::new(false), AtomicU64::new(records));
    let job = Job {
        mix,
        callers,
        threads: row.threads,
        records,
        values,
        seed: u64::from(turn) + 1,
        stop: &stop,
        next: &next,
    };
    let started = Instant::now();
    let count = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
        });
        peer.run(&job)
    })?;
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// For the report.
pub fn class_name(class: Class) -> &'static str {
    match class {
        Class::Durable => "durable",
        Class::Buffered => "buffered",
    }
}
