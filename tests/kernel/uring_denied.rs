//! Where `io_uring` is denied, as in most containers.
//!
//! Without these tests the engine would work on the machine it was written on.

use std::process::Command;

use ringcask::{Db, Error, ErrorKind, Io};

use crate::child::{Child, command, say, task};
use crate::support::{block_on, close, drivers, has_tool, skip};

/// The child: opens a store, uses it, and says how that went.
pub(crate) fn first_steps() {
    let task = task();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_ansi(false)
        .without_time()
        .with_writer(std::io::stdout)
        .event_format(Said)
        .init();
    let outcome: Result<Db, Error> = block_on(async {
        let db = ringcask::Options::new().partitions(2).io(task.io).open(&task.store).await?;
        for number in 0..50 {
            db.put(number.to_string(), "value").await?;
        }
        assert_eq!(db.get("7").await?.as_deref(), Some(&b"value"[..]));
        Ok(db)
    });
    match outcome {
        Ok(db) => {
            say(&format!("works with {}", db.stats().io));
            close(&db).unwrap();
        }
        Err(error) => say(&format!("{:?} {error}", error.kind())),
    }
}

/// Writes an event as something the child says.
struct Said;

impl<S, N> tracing_subscriber::fmt::FormatEvent<S, N> for Said
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    N: for<'a> tracing_subscriber::fmt::FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &tracing_subscriber::fmt::FmtContext<'_, S, N>,
        mut writer: tracing_subscriber::fmt::format::Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        write!(writer, "\n: {} ", event.metadata().level())?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

fn said_when_denied(errno: &str, io: &Io) -> Option<Vec<String>> {
    if !has_tool("strace") {
        return None;
    }
    let inject = format!("inject=io_uring_setup:error={errno}");
    let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
    // A sandbox may forbid tracing, which is not what is tested here.
    let tried = Command::new("strace").args(&wrapper[1..]).arg("true").output().unwrap();
    if !tried.status.success() {
        skip(&format!("strace cannot trace: {}", String::from_utf8_lossy(&tried.stderr).trim()));
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    Some(Child::start(command(&wrapper, "first-steps", &dir.path().join("store"), io)).finish())
}

/// Without it a service that moves into a container might not start, or be slower and nobody told.
#[test]
fn auto_falls_back_and_warns_once() {
    for (errno, cure) in [("EPERM", "seccomp"), ("ENOSYS", "CONFIG_IO_URING")] {
        let Some(said) = said_when_denied(errno, &Io::Auto) else { return };
        assert_eq!(said.last().map(String::as_str), Some("works with blocking"), "{said:#?}");
        let warnings: Vec<_> = said.iter().filter(|line| line.starts_with("WARN")).collect();
        assert_eq!(warnings.len(), 1, "{said:#?}");
        assert!(warnings[0].contains("io_uring is denied"), "no reason is named: {warnings:?}");
        assert!(warnings[0].contains(cure), "no cure is named: {warnings:?}");
        assert_eq!(said.len(), 2, "{said:#?}");
    }
}

/// Without it who asked for `io_uring` could silently get something else.
#[test]
fn uring_is_refused_with_a_cure() {
    for (errno, cure) in [("EPERM", "seccomp"), ("ENOSYS", "CONFIG_IO_URING")] {
        let Some(said) = said_when_denied(errno, &Io::Uring) else { return };
        assert_eq!(said.len(), 1, "{said:#?}");
        let kind = format!("{:?} ", ErrorKind::IoUringUnavailable);
        assert!(said[0].starts_with(&kind), "{said:#?}");
        assert!(said[0].contains(cure) && said[0].contains("Io::Blocking"), "{said:#?}");
    }
}

/// Without it a process that may lock no memory, the default of old kernels, could fail to open.
#[test]
fn no_locked_memory_is_no_obstacle() {
    if !has_tool("setpriv") || !has_tool("prlimit") {
        return;
    }
    let mut wrapper = vec!["prlimit", "--memlock=0:0"];
    if rustix::process::geteuid().is_root() {
        // Root would not be limited.
        wrapper.extend(["setpriv", "--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"]);
    }
    for io in drivers().into_iter().chain([Io::Auto]) {
        let dir = tempfile::tempdir().unwrap();
        let command = command(&wrapper, "first-steps", &dir.path().join("store"), &io);
        let said = Child::start(command).finish();
        let last = said.last().unwrap();
        let refused = matches!(io, Io::Uring) && last.contains("ulimit -l");
        assert!(last.starts_with("works with") || refused, "{said:#?}");
    }
}
