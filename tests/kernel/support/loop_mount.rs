//! A file system in a file: small, fast to create, and it can lose power.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{is_root, skip};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// Room for the tests that do not care; XFS refuses to be smaller.
    pub(crate) fn usual_len(self) -> u64 {
        match self {
            FileSystem::Ext4 => 64 << 20,
            FileSystem::Xfs => 320 << 20,
        }
    }

    fn make(self, image: &Path) -> Result<(), String> {
        match self {
            // No blocks reserved for root, who runs the tests; a small journal for a small disk.
            FileSystem::Ext4 => run("mkfs.ext4", &["-q", "-F", "-m", "0"], &[image]),
            FileSystem::Xfs => run("mkfs.xfs", &["-q", "-f", "-K", "-m", "reflink=1"], &[image]),
        }
    }

    /// How a copy is mounted beside its original.
    fn copy_options(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "loop",
            FileSystem::Xfs => "loop,nouuid",
        }
    }
}

/// A mounted image; unmounted and gone when dropped, also by a panic. Its loop device is the kernel's
/// to free when the mount is gone.
pub(crate) struct LoopMount {
    image: PathBuf,
    point: PathBuf,
    options: String,
    mounted: bool,
    /// Last, because it is removed when the mount is gone.
    _dir: tempfile::TempDir,
}

impl LoopMount {
    /// A new file system of `len` bytes, or `None` (and a skip) where that cannot be.
    pub(crate) fn new(kind: FileSystem, len: u64) -> Option<LoopMount> {
        LoopMount::with_options(kind, len, "loop")
    }

    pub(crate) fn with_options(kind: FileSystem, len: u64, options: &str) -> Option<LoopMount> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        LoopMount::make(kind, len, dir, image, options)
    }

    /// The image somewhere else than in the directory that the mount point is in.
    pub(crate) fn with_image(kind: FileSystem, len: u64, image: PathBuf) -> Option<LoopMount> {
        LoopMount::make(kind, len, tempfile::tempdir().unwrap(), image, "loop")
    }

    fn make(
        kind: FileSystem,
        len: u64,
        dir: tempfile::TempDir,
        image: PathBuf,
        options: &str,
    ) -> Option<LoopMount> {
        if !is_root() {
            return None;
        }
        File::create(&image).unwrap().set_len(len).unwrap();
        let mut mount = LoopMount::unmounted(dir, image, options);
        if let Err(why) = kind.make(&mount.image).and_then(|()| mount.mount()) {
            skip(&why);
            return None;
        }
        Some(mount)
    }

    /// A copy of the image of another mount, which may be mounted.
    pub(crate) fn of_copy(kind: FileSystem, image: PathBuf) -> LoopMount {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = LoopMount::unmounted(dir, image, kind.copy_options());
        mount.mount().unwrap();
        mount
    }

    fn unmounted(dir: tempfile::TempDir, image: PathBuf, options: &str) -> LoopMount {
        let point = dir.path().join("mnt");
        std::fs::create_dir(&point).unwrap();
        LoopMount { image, point, options: options.to_owned(), mounted: false, _dir: dir }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    /// Where the tests put their store.
    pub(crate) fn store(&self) -> PathBuf {
        self.point.join("store")
    }

    pub(crate) fn image(&self) -> &Path {
        &self.image
    }

    /// The loop device, as `7:3`.
    pub(crate) fn device(&self) -> String {
        let device = rustix::fs::stat(&self.point).unwrap().st_dev;
        format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
    }

    /// Cuts the power: what was not synced is gone, and open descriptors fail with EIO.
    pub(crate) fn shut_down(&self) {
        shut_down(&self.point);
    }

    /// Unmounts, waiting for the last descriptor to be closed, and mounts again.
    pub(crate) fn remount(&mut self) {
        self.unmount().unwrap();
        self.mount().unwrap();
    }

    pub(crate) fn remount_read_only(&self) {
        run("mount", &["-o", "remount,ro"], &[&self.point]).unwrap();
    }

    fn mount(&mut self) -> Result<(), String> {
        run("mount", &["-o", &self.options], &[&self.image, &self.point])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        unmount(&self.point)?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        if self.mounted {
            unmount_at_last(&self.point);
        }
    }
}

/// A file system without a device, as tmpfs; unmounted when dropped.
pub(crate) struct Mount {
    point: PathBuf,
}

impl Mount {
    /// Mounts it at a directory that it makes, or skips.
    pub(crate) fn new(kind: &str, options: &str, point: &Path) -> Option<Mount> {
        if !is_root() {
            return None;
        }
        std::fs::create_dir(point).unwrap();
        if let Err(why) = run("mount", &["-t", kind, "-o", options, "none"], &[point]) {
            skip(&why);
            return None;
        }
        Some(Mount { point: point.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    pub(crate) fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}")], &[&self.point]).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount_at_last(&self.point);
    }
}

/// `FS_IOC_SHUTDOWN` without flushing the journal.
fn shut_down(point: &Path) {
    const FS_IOC_SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587D;
    const NOLOGFLUSH: u32 = 2;
    let dir = File::open(point).unwrap();
    #[expect(unsafe_code, reason = "the ioctl has no safe wrapper")]
    // SAFETY: the opcode takes a pointer to one u32, which is what the setter passes.
    let cut = unsafe { rustix::ioctl::Setter::<FS_IOC_SHUTDOWN, u32>::new(NOLOGFLUSH) };
    #[expect(unsafe_code, reason = "the ioctl has no safe wrapper")]
    // SAFETY: the kernel only reads the u32; it changes no memory of this process.
    unsafe { rustix::ioctl::ioctl(&dir, cut) }.unwrap();
}

/// A ring and its files end shortly after the process or thread that had them.
fn unmount(point: &Path) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let outcome = run("umount", &[], &[point]);
        if outcome.is_ok() || started.elapsed() > Duration::from_secs(5) {
            return outcome;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A test that failed may have left files open; then the mount goes when its process does.
fn unmount_at_last(point: &Path) {
    if unmount(point).is_err() {
        let _best_effort = run("umount", &["-l"], &[point]);
    }
}

/// Runs a tool; the error is one sentence.
pub(crate) fn run(tool: &str, options: &[&str], paths: &[&Path]) -> Result<(), String> {
    let output = Command::new(tool)
        .args(options)
        .args(paths)
        .output()
        .map_err(|error| format!("{tool} cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{tool} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
