//! Progress bars: on a terminal only, because in a log they are noise.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};

const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
const BYTES_UNBOUNDED: &str = "{msg} {spinner} {bytes} {binary_bytes_per_sec}";
const WAITING: &str = "{spinner} {msg} {elapsed}";
const RECORDS: &str = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
const TIME: &str = "{prefix} {wide_bar} {msg}";

/// Redraws a spinner whose input pauses.
const SPIN: Duration = Duration::from_millis(200);

/// Counts bytes; without a length it spins.
pub(super) fn bytes(message: &'static str, len: Option<u64>) -> ProgressBar {
    if let Some(len) = len {
        return bar(len, BYTES, message);
    }
    let spinner = bar(0, BYTES_UNBOUNDED, message);
    spinner.unset_length();
    spinner.enable_steady_tick(SPIN);
    spinner
}

pub(super) fn records(message: &'static str, count: u64) -> ProgressBar {
    bar(count, RECORDS, message)
}

/// Turns while something of unknown length goes on.
pub(super) fn waiting(message: &'static str) -> ProgressBar {
    let spinner = bar(0, WAITING, message);
    spinner.enable_steady_tick(SPIN);
    spinner
}

/// Shows a part of `total` that has passed, and a rate.
pub(super) struct Timed(ProgressBar);

impl Timed {
    pub(super) fn new(message: &'static str, total: u64) -> Timed {
        Timed(bar(total, TIME, "").with_prefix(message))
    }

    pub(super) fn show(&self, position: u64, elapsed: Duration, operations: u64) {
        self.0.set_position(position);
        #[expect(clippy::cast_sign_loss, reason = "a count over a time is positive")]
        let rate = (operations as f64 / elapsed.as_secs_f64().max(1e-9)) as u64;
        self.0.set_message(format!("{} ops/s, {}", HumanCount(rate), HumanDuration(elapsed)));
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn bar(len: u64, template: &str, message: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template(template).expect("the templates above are well-formed");
    ProgressBar::new(len).with_style(style).with_message(message)
}
