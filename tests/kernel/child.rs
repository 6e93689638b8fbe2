//! Processes to kill, to limit and to sandbox: this binary, started again as one of the roles below.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use ringcask::Io;
use rustix::process::{Pid, Signal, kill_process_group};

/// What a child process does; empty when the test is run as a test.
#[test]
fn entry() {
    match std::env::var("RINGCASK_CHILD").as_deref() {
        Ok("writer") => crate::kill::writer(),
        Ok("hungry-writer") => crate::out_of_memory::hungry_writer(),
        Ok("patient") => crate::slow_disk::patient(),
        Ok("refused") => crate::lock::refused(),
        Ok("holder") => crate::lock::holder(),
        Ok("open-with-few-descriptors") => crate::limits::open_with_few_descriptors(),
        Ok("rotate-without-descriptors") => crate::limits::rotate_without_descriptors(),
        Ok("limited-file-length") => crate::limits::limited_file_length(),
        Ok("first-steps") => crate::uring_denied::first_steps(),
        Ok("nobody") => crate::path::nobody(),
        Ok(role) => panic!("no role is called {role}"),
        Err(_) => {}
    }
}

/// What the parent gave a child.
pub(crate) struct Task {
    pub(crate) store: PathBuf,
    pub(crate) io: Io,
    pub(crate) argument: String,
}

pub(crate) fn task() -> Task {
    let io = match std::env::var("RINGCASK_CHILD_IO").as_deref() {
        Ok("uring") => Io::Uring,
        Ok("blocking") => Io::Blocking,
        _ => Io::Auto,
    };
    Task {
        store: std::env::var_os("RINGCASK_CHILD_STORE").unwrap().into(),
        io,
        argument: std::env::var("RINGCASK_CHILD_ARGUMENT").unwrap_or_default(),
    }
}

/// Tells the parent something, in one write that is whole or not there.
pub(crate) fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // The harness begins a line that it does not end.
    stdout.write_all(format!("\n: {line}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}

/// How to start a child, as arguments of a tool that starts it (`strace …`), or by itself.
pub(crate) fn command(wrapper: &[&str], role: &str, store: &Path, io: &Io) -> Command {
    let binary = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(&binary),
        [tool, arguments @ ..] => {
            let mut command = Command::new(tool);
            command.args(arguments).arg(&binary);
            command
        }
    };
    let io = match io {
        Io::Uring => "uring",
        Io::Blocking => "blocking",
        _ => "auto",
    };
    command
        .args(["--exact", "child::entry", "--nocapture", "--test-threads=1"])
        .env("RINGCASK_CHILD", role)
        .env("RINGCASK_CHILD_STORE", store)
        .env("RINGCASK_CHILD_IO", io)
        .env_remove("RUST_BACKTRACE")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// A running child; killed when dropped.
pub(crate) struct Child {
    process: std::process::Child,
    said: Option<JoinHandle<Vec<String>>>,
    words: std::sync::mpsc::Receiver<String>,
}

impl Child {
    pub(crate) fn start(mut command: Command) -> Child {
        let mut process = command.spawn().unwrap();
        let stdout = process.stdout.take().unwrap();
        let (sender, words) = std::sync::mpsc::channel();
        let said = std::thread::spawn(move || {
            let mut said = Vec::new();
            for line in BufReader::new(stdout).split(b'\n') {
                let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
                if let Some(line) = line.strip_prefix(": ") {
                    said.push(line.to_owned());
                    let _nobody_waits = sender.send(line.to_owned());
                }
            }
            said
        });
        Child { process, said: Some(said), words }
    }

    /// Waits until the child has said something more.
    pub(crate) fn wait_for_word(&self) -> String {
        self.words.recv_timeout(super::support::PATIENCE).expect("the child says something")
    }

    /// Waits until the child has said this.
    pub(crate) fn wait_for(&self, word: &str) {
        while self.wait_for_word() != word {}
    }

    /// Ends the child's standard input, which some roles wait for.
    pub(crate) fn release(&mut self) {
        self.process.stdin = None;
    }

    /// `kill -9`; returns what the child had said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.kill_group().unwrap();
        self.process.wait().unwrap();
        self.said.take().unwrap().join().unwrap()
    }

    /// With whatever started it: a tracer that is killed alone leaves its child running.
    fn kill_group(&self) -> rustix::io::Result<()> {
        let group = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        kill_process_group(group, Signal::KILL)
    }

    /// Waits for the end of a child that something else ends.
    pub(crate) fn wait(mut self) -> std::process::ExitStatus {
        let said = self.said.take().unwrap();
        super::support::in_time("the child", move || said.join().unwrap());
        self.process.wait().unwrap()
    }

    /// Waits for the end of a child that must succeed.
    pub(crate) fn finish(mut self) -> Vec<String> {
        self.release();
        let said = self.said.take().unwrap();
        let said = super::support::in_time("the child", move || said.join().unwrap());
        let status = self.process.wait().unwrap();
        assert!(status.success(), "the child failed ({status}) after it had said {said:#?}");
        said
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _it_has_ended = self.kill_group();
        let _it_was_waited_for = self.process.wait();
    }
}
