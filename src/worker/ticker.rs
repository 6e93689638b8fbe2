//! A clock for workers: rings their doorbells when time alone is a reason to look at something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender};

use crate::mailbox::{Doorbell, Ticks};

/// Ticks until it is dropped.
pub(crate) struct Ticker {
    _stop: Sender<()>,
}

impl Ticker {
    /// Rings for each of `schedules` at its interval.
    pub(crate) fn start(
        schedules: &[(Ticks, Duration)],
        doorbells: Vec<Arc<Doorbell>>,
    ) -> std::io::Result<Ticker> {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let now = Instant::now();
        let mut due: Vec<(Instant, Ticks, Duration)> = schedules
            .iter()
            .map(|(ticks, interval)| (now + *interval, *ticks, *interval))
            .collect();
        let tick = move || {
            while let Some(next) = due.iter_mut().min_by_key(|(at, ..)| *at) {
                let wait = next.0.saturating_duration_since(Instant::now());
                if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                for doorbell in &doorbells {
                    doorbell.tick(next.1);
                }
                next.0 = Instant::now() + next.2;
            }
        };
        std::thread::Builder::new().name("ringcask-tick".into()).spawn(tick)?;
        Ok(Ticker { _stop: stop })
    }
}
