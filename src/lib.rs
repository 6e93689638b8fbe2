//! Ringcask (module docs come with the first slice).
mod clock;
mod db;
mod error;
mod io;
mod keydir;
mod len_code;
pub mod limits;
mod log;
mod mailbox;
mod options;
mod partition;
mod route;
mod stats;
mod types;
mod worker;

#[cfg(any(test, feature = "sim"))]
pub use io::sim;

pub use db::{Db, IntoValue, Put, Scan, ScanKeys};
pub use error::{Error, ErrorKind, Result};
pub use options::{Durability, Io, Options};
pub use stats::{Histogram, PartitionStats, Stats};
