//! A control group for one child: what a container gives a process, and no more.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{is_root, skip};

/// A group of one controller of cgroups v1; removed when dropped, after its processes have ended.
pub(crate) struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// A new group, or `None` (and a skip) where that cannot be.
    pub(crate) fn new(controller: &str) -> Option<Cgroup> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        if !is_root() {
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringcask-{}-{number}", std::process::id());
        let dir = PathBuf::from("/sys/fs/cgroup").join(controller).join(name);
        if let Err(error) = std::fs::create_dir(&dir) {
            skip(&format!("{} cannot be made: {error}", dir.display()));
            return None;
        }
        Some(Cgroup { dir })
    }

    pub(crate) fn set(&self, name: &str, value: &str) {
        std::fs::write(self.dir.join(name), value).unwrap();
    }

    pub(crate) fn get(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap()
    }

    /// Arguments of `sh` that start what follows in the group.
    pub(crate) fn wrapper(&self) -> [String; 3] {
        let procs = self.dir.join("cgroup.procs");
        let script = format!("echo $$ > {} && exec \"$0\" \"$@\"", procs.display());
        ["sh".to_owned(), "-c".to_owned(), script]
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir(&self.dir);
    }
}
