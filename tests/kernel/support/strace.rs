//! System calls that fail because a tracer says so.

use std::path::Path;
use std::process::Command;

use ringcask::Io;

use super::{has_tool, skip};
use crate::child::{Child, command};

/// What a child says that runs with an injection, as `io_uring_setup:error=EPERM`; `None` (and a skip)
/// where nothing can be traced.
pub(crate) fn said_with(injection: &str, role: &str, store: &Path, io: &Io) -> Option<Vec<String>> {
    if !has_tool("strace") {
        return None;
    }
    let inject = format!("inject={injection}");
    let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
    // A sandbox may forbid tracing, which is not what is tested here.
    let tried = Command::new("strace").args(&wrapper[1..]).arg("true").output().unwrap();
    if !tried.status.success() {
        skip(&format!("strace cannot trace: {}", String::from_utf8_lossy(&tried.stderr).trim()));
        return None;
    }
    Some(Child::start(command(&wrapper, role, store, io)).finish())
}
