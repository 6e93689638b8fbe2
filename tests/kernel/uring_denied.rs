//! Where `io_uring` is denied, as in most containers.
//!
//! Without these tests the engine would work on the machine it was written on.

use ringcask::{Db, Error, ErrorKind, Io};

use crate::child::{Child, command, say, task};
use crate::support::strace::said_with;
use crate::support::{close, drivers, has_tool, wait};

/// The child: opens a store, uses it, and says how that went.
pub(crate) fn first_steps() {
    let task = task();
    if task.argument == "as in a container" {
        deny_uring();
    }
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_ansi(false)
        .without_time()
        .with_writer(std::io::stdout)
        .event_format(Said)
        .init();
    let outcome: Result<Db, Error> = wait(async {
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

/// What the default profiles of container runtimes do.
fn deny_uring() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    const SETUP_ENTER_REGISTER: [i64; 3] = [425, 426, 427];
    const EPERM: u32 = 1;
    let denied = SETUP_ENTER_REGISTER.map(|call| (call, Vec::new()));
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter =
        SeccompFilter::new(denied.into(), SeccompAction::Allow, SeccompAction::Errno(EPERM), arch);
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter_all_threads(&program).unwrap();
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
    let dir = tempfile::tempdir().unwrap();
    let injection = format!("io_uring_setup:error={errno}");
    said_with(&injection, "first-steps", &dir.path().join("store"), io)
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

/// Without it see above, as it is in a container and not under a tracer.
#[test]
fn auto_falls_back_under_a_seccomp_filter() {
    let dir = tempfile::tempdir().unwrap();
    let said = |io| {
        let mut command = command(&[], "first-steps", &dir.path().join("store"), &io);
        command.env("RINGCASK_CHILD_ARGUMENT", "as in a container");
        Child::start(command).finish()
    };
    let refused = said(Io::Uring);
    assert!(refused[0].starts_with("IoUringUnavailable "), "{refused:#?}");
    let auto = said(Io::Auto);
    assert_eq!(auto.len(), 2, "{auto:#?}");
    assert!(auto[0].starts_with("WARN") && auto[0].contains("seccomp"), "{auto:#?}");
    assert_eq!(auto[1], "works with blocking");
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
