//! What the figures were measured on.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

#[derive(Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory: String,
    pub kernel: String,
    /// File system and device of the directory.
    pub disk: String,
    pub date: String,
}

pub fn describe(dir: &Path) -> Machine {
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or("unknown", |(_, value)| value.trim())
            .to_owned()
    };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
    };
    Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name"),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory: field(&read("/proc/meminfo"), "MemTotal"),
        kernel: said("uname", &["-r"]),
        disk: said("findmnt", &["-n", "-o", "FSTYPE,OPTIONS", "-T", &dir.to_string_lossy()]),
        date: said("date", &["-u", "+%Y-%m-%d"]),
    }
}
