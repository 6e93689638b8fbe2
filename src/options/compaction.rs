//! Settings of compaction.

/// When dead records are given back; set with [`Options::compaction`](crate::Options::compaction).
///
/// Compaction runs in the background, in steps that neither reads nor writes wait for. It copies the
/// records of a file that still count into a new one, and then removes the old one.
///
/// # Example: at night, and never more than 20 MB/s
/// ```
/// # futures::executor::block_on(async {
/// # let dir = tempfile::tempdir().unwrap();
/// use ringcask::{Compaction, Options};
/// let compaction = Compaction::new().dead_ratio(0.3).hours_utc(1, 5).bytes_per_sec(20_000_000);
/// let db = Options::new().compaction(compaction).open(dir.path()).await?;
/// # db.close().await }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "settings do nothing until they are given to `Options::compaction`"]
pub struct Compaction {
    pub(crate) enabled: bool,
    pub(crate) dead_ratio: f64,
    pub(crate) dead_bytes: Option<u64>,
    pub(crate) merge_small: bool,
    pub(crate) hours_utc: Option<(u8, u8)>,
    pub(crate) bytes_per_sec: Option<u64>,
}

impl Default for Compaction {
    fn default() -> Compaction {
        Compaction {
            enabled: true,
            dead_ratio: 0.35,
            dead_bytes: None,
            merge_small: true,
            hours_utc: None,
            bytes_per_sec: None,
        }
    }
}

impl Compaction {
    /// The defaults.
    pub fn new() -> Compaction {
        Compaction::default()
    }

    /// Nothing happens by itself; [`Db::compact`](crate::Db::compact) still works.
    pub fn off() -> Compaction {
        Compaction { enabled: false, ..Compaction::default() }
    }

    /// Starts when this share of a partition's sealed files is dead, more than 0 to less than 1.
    /// Default: 0.35, which keeps the space used below about twice the live data. A smaller share saves
    /// space and costs writes.
    pub fn dead_ratio(mut self, ratio: f64) -> Compaction {
        self.dead_ratio = ratio;
        self
    }

    /// Starts also when this many bytes of a partition are dead, whatever share that is. Default: never.
    pub fn dead_bytes(mut self, bytes: u64) -> Compaction {
        self.dead_bytes = Some(bytes);
        self
    }

    /// Whether small files, as many short sessions leave behind, are merged into larger ones even if
    /// nothing in them is dead. Default: true.
    pub fn merge_small(mut self, merge: bool) -> Compaction {
        self.merge_small = merge;
        self
    }

    /// Starts only from the hour `from` of the day up to the hour `to`, in UTC; from 22 to 4 spans midnight.
    /// What has started is finished. Default: at any hour.
    pub fn hours_utc(mut self, from: u8, to: u8) -> Compaction {
        self.hours_utc = Some((from, to));
        self
    }

    /// Reads and writes at most this many bytes a second, all partitions together. Default: no limit.
    pub fn bytes_per_sec(mut self, bytes: u64) -> Compaction {
        self.bytes_per_sec = Some(bytes);
        self
    }

    /// What is wrong with the settings, if anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(self.dead_ratio > 0.0 && self.dead_ratio < 1.0) {
            let ratio = self.dead_ratio;
            return Err(format!("dead_ratio is {ratio}; it must be more than 0 and less than 1"));
        }
        if let Some((from, to)) = self.hours_utc
            && (from > 23 || to > 24 || from == to)
        {
            return Err(format!(
                "hours_utc is {from} to {to}; hours are 0 to 23, and at least one"
            ));
        }
        if self.bytes_per_sec == Some(0) {
            return Err("bytes_per_sec is 0; turn compaction off with Compaction::off".to_owned());
        }
        Ok(())
    }

    /// Whether it may start at this hour.
    pub(crate) fn allows(&self, hour: u8) -> bool {
        match self.hours_utc {
            None => true,
            Some((from, to)) if from < to => (from..to).contains(&hour),
            Some((from, to)) => hour >= from || hour < to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_span_midnight() {
        let settings = Compaction::new().hours_utc(22, 4);
        let within: Vec<u8> = (0..24).filter(|hour| settings.allows(*hour)).collect();
        assert_eq!(within, [0, 1, 2, 3, 22, 23]);
        let settings = Compaction::new().hours_utc(0, 24);
        assert!((0..24).all(|hour| settings.allows(hour)));
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        for bad in [
            Compaction::new().dead_ratio(0.0),
            Compaction::new().dead_ratio(1.0),
            Compaction::new().dead_ratio(f64::NAN),
            Compaction::new().hours_utc(3, 3),
            Compaction::new().hours_utc(24, 3),
            Compaction::new().hours_utc(3, 25),
            Compaction::new().bytes_per_sec(0),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert_eq!(Compaction::new().check(), Ok(()));
    }
}
