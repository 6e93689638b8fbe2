//! A clock for workers: rings their doorbells at an interval (`Durability::Interval`).

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender};

use crate::mailbox::Doorbell;

/// Ticks until it is dropped.
pub(crate) struct Ticker {
    _stop: Sender<()>,
}

impl Ticker {
    pub(crate) fn start(
        interval: Duration,
        doorbells: Vec<Arc<Doorbell>>,
    ) -> std::io::Result<Ticker> {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        std::thread::Builder::new().name("ringcask-tick".into()).spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                for doorbell in &doorbells {
                    doorbell.tick();
                }
            }
        })?;
        Ok(Ticker { _stop: stop })
    }
}
