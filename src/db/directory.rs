//! The directory of a store: judged before it is touched, locked, created or read.

use std::path::{Path, PathBuf};

use super::examine::is_read_only;
use super::lifecycle::{IsAwaited, StoreLock};
use super::repartition::{check_newest, clear_away};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Fs, Sharing};
use crate::limits::{FILES_LEN_MAX, MANIFEST_LEN_MAX};
use crate::log::codec::Codecs;
use crate::log::data_file::StoreIdentity;
use crate::log::files::FilesList;
use crate::log::format::FormatError;
use crate::log::layout;
use crate::log::manifest::{MANIFEST_VERSION, Manifest};
use crate::options::Options;
use crate::partition::recovery::empty_files;
use crate::planted::{Bug, is_planted};
use crate::types::{FileId, KeyId, KeyspaceId, PartitionId, StoreId};
use crate::upkeep::backup::settle_lists;
use crate::worker;

/// Finds or creates the store at `path`, and takes its lock.
pub(super) fn open_directory(
    fs: &Fs,
    options: &Options,
    path: &Path,
    is_awaited: IsAwaited<'_>,
) -> Result<(PathBuf, Manifest, StoreLock)> {
    let codecs = options.codecs();
    let missing = missing_count(fs, path);
    let found = look(fs, path)?;
    match found {
        Found::Store => drop(check_key(path, &read_manifest(fs, path)?, &codecs)?),
        Found::Foreign(what) => return Err(foreign(path, &what)),
        Found::Room if !options.create_if_missing => {
            return Err(Error::new(
                ErrorKind::NotAStore,
                format!("{}: there is no store, and none is to be created", path.display()),
            ));
        }
        Found::Room => {
            fs.create_dir(path).map_err(|source| Error::io("create", path, source))?;
        }
    }
    let root = fs.canonical(path).map_err(|source| Error::io("find", path, source))?;
    let lock = StoreLock::take(fs, &root, options.lock_wait, Sharing::Exclusive, is_awaited)?;
    // Again, under the lock: another process may have been creating the same store.
    match look(fs, &root)? {
        // Whoever created it may have been killed before MANIFEST's name was durable.
        Found::Store => fs.sync_dir(&root).map_err(|source| Error::io("sync", &root, source))?,
        Found::Foreign(what) => return Err(foreign(&root, &what)),
        Found::Room => {
            sync_new_ancestors(fs, &root, missing)?;
            create(fs, &root, options, codecs.key_id())?;
        }
    }
    let mut manifest = read_manifest(fs, &root)?;
    let is_key_new = check_key(&root, &manifest, &codecs)?;
    check_count(options, &root, &manifest)?;
    settle_lists(fs, &root, &mut manifest)?;
    clear_away(fs, &root, &mut manifest)?;
    check_newest(fs, &root, &manifest)?;
    let is_backup = manifest.backup_of.is_some() && !is_planted(Bug::BackupStaysOne);
    if is_backup {
        // F5: from here on it is a store of its own. Its files keep the id that they repeat.
        manifest.instance = StoreId(random()?);
        manifest.backup_of = None;
    }
    manifest.key = codecs.key_id();
    if is_key_new || is_backup {
        manifest.replace(fs, &root)?;
    }
    if is_backup {
        tracing::info!(path = %root.display(), "the backup is a store of its own from now on");
    }
    if is_key_new {
        tracing::info!(path = %root.display(), "the encryption key is a new one from now on");
    }
    Ok((root, manifest, lock))
}

/// Finds the store at `path`, and shares its lock with others who read.
pub(super) fn open_directory_to_read(
    fs: &Fs,
    options: &Options,
    path: &Path,
    is_awaited: IsAwaited<'_>,
) -> Result<(PathBuf, Manifest, StoreLock)> {
    check_is_there(fs, path)?;
    let root = fs.canonical(path).map_err(|source| Error::io("find", path, source))?;
    let lock = match StoreLock::take(fs, &root, options.lock_wait, Sharing::Shared, is_awaited) {
        // Nobody can write there, so nobody has to be kept from it.
        Err(error) if is_read_only(&error) => StoreLock::none(&root),
        taken => taken?,
    };
    // Again, under the lock: another process may have been creating it.
    check_is_there(fs, &root)?;
    let manifest = read_manifest(fs, &root)?;
    check_key(&root, &manifest, &options.codecs())?;
    check_count(options, &root, &manifest)?;
    check_newest(fs, &root, &manifest)?;
    if manifest.lists_next {
        return Err(Error::new(
            ErrorKind::ReadOnly,
            format!(
                "{}: making this backup was cut short behind its commit, and that has to be finished first; back up \
                 once more, or open it without Options::read_only",
                root.display()
            ),
        ));
    }
    Ok((root, manifest, lock))
}

fn check_is_there(fs: &Fs, path: &Path) -> Result<()> {
    match look(fs, path)? {
        Found::Store => Ok(()),
        Found::Foreign(what) => Err(foreign(path, &what)),
        Found::Room => Err(Error::new(
            ErrorKind::NotAStore,
            format!("{}: there is no store, and nothing to read", path.display()),
        )),
    }
}

fn check_count(options: &Options, root: &Path, manifest: &Manifest) -> Result<()> {
    match options.partitions {
        Some(asked) if asked != manifest.partition_count => Err(Error::new(
            ErrorKind::PartitionCount,
            format!(
                "{}: the store has {} partitions, {asked} were asked for; open it \
                 without a count",
                root.display(),
                manifest.partition_count
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether the key is another one than the store had, or its first; refuses a store whose key was not given.
fn check_key(root: &Path, manifest: &Manifest, codecs: &Codecs) -> Result<bool> {
    codecs.check_key(manifest.key).map_err(|why| why.at(root, 0))?;
    let key = codecs.key_id();
    if key == KeyId::NONE && manifest.key != KeyId::NONE {
        // It could be read, and what is written would not be encrypted.
        return Err(FormatError::KeyMissing(manifest.key).at(root, 0));
    }
    Ok(key != manifest.key)
}

/// What a directory is, judged without changing it.
pub(super) enum Found {
    Store,
    /// Nothing, or a creation that was cut short.
    Room,
    Foreign(String),
}

/// Names that a creation, or a repair of MANIFEST, leaves behind when it is cut short.
fn is_leftover(name: &str) -> bool {
    name == layout::LOCK
        || layout::is_aside_of(name, layout::MANIFEST)
        || name.strip_suffix(layout::TEMPORARY_SUFFIX).is_some_and(|name| name == layout::MANIFEST)
}

pub(super) fn look(fs: &Fs, root: &Path) -> Result<Found> {
    let io = |source| Error::io("look into", root, source);
    if !fs.exists(root).map_err(io)? {
        return Ok(Found::Room);
    }
    let entries = match fs.read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Ok(Found::Foreign("it is not a directory".to_owned()));
        }
        listed => listed.map_err(io)?,
    };
    if entries.iter().any(|entry| entry.name == layout::MANIFEST) {
        return Ok(Found::Store);
    }
    if entries.iter().any(|entry| entry.name == layout::BACKUP) {
        return Err(incomplete(root));
    }
    for entry in entries {
        let name = entry.name.to_string_lossy();
        if let Some(id) = layout::parse_partition_dir_name(&name).filter(|_| entry.is_dir) {
            let files = layout::partition_dir(root, id).join(layout::FILES);
            let begun = match fs.read_file(&files, FILES_LEN_MAX) {
                Ok(bytes) => FilesList::decode(&bytes)
                    .is_ok_and(|listed| listed.sealed.is_empty() && listed.active.is_none()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
                Err(error) => return Err(Error::io("read", &files, error)),
            };
            // Created anew, the partition would take data files that are not listed for leftovers.
            let holds_data = !begun || holds_data(fs, &layout::partition_dir(root, id))?;
            if holds_data && !is_planted(Bug::MissingManifestIgnored) {
                return Err(Error::corrupt(
                    &root.join(layout::MANIFEST),
                    0,
                    "the file is missing, though there are partitions with data",
                ));
            }
        } else if !is_leftover(&name) {
            return Ok(Found::Foreign(format!("it holds {name}")));
        }
    }
    Ok(Found::Room)
}

pub(super) fn holds_data(fs: &Fs, dir: &Path) -> Result<bool> {
    let entries = fs.read_dir(dir).map_err(|source| Error::io("look into", dir, source))?;
    Ok(entries.iter().any(|entry| layout::parse_file_name(&entry.name.to_string_lossy()).is_some()))
}

/// MANIFEST last: before it is there, the directory is not a store, and creating it starts over. Once
/// it is seen, everything but its own name is durable.
fn create(fs: &Fs, root: &Path, options: &Options, key: KeyId) -> Result<()> {
    let cores = worker::available_cores().len().max(1) as u32;
    let store = StoreId(random()?);
    let manifest = Manifest {
        format_version: MANIFEST_VERSION,
        store,
        instance: store,
        backup_of: None,
        lists_next: false,
        created_at_ms: options.clock.wall_ms(),
        map_epoch: 1,
        partition_count: options.partitions.unwrap_or(cores.min(crate::limits::PARTITIONS_MAX)),
        hash_key: random()?,
        keyspace_next: KeyspaceId(1),
        key,
        keyspaces: Vec::new(),
        is_repartitioning: false,
        wider_maps: Vec::new(),
        file_next: FileId(1),
    };
    let identity = StoreIdentity::of(&manifest);
    for id in (0..manifest.partition_count).map(PartitionId) {
        let dir = layout::partition_dir(root, id);
        fs.create_dir(&dir).map_err(|source| Error::io("create", &dir, source))?;
        fs.replace_file(&dir, layout::FILES, &empty_files(&identity, id).encode())
            .map_err(|source| Error::io("write", &dir.join(layout::FILES), source))?;
    }
    fs.sync_dir(root).map_err(|source| Error::io("sync", root, source))?;
    manifest.replace(fs, root)
}

/// How many directories down to `path`, itself included, are not there.
pub(super) fn missing_count(fs: &Fs, path: &Path) -> usize {
    let is_missing = |ancestor: &&Path| {
        !ancestor.as_os_str().is_empty() && matches!(fs.exists(ancestor), Ok(false))
    };
    path.ancestors().take_while(is_missing).count()
}

/// Makes the names of the directories that were created for the store durable.
pub(super) fn sync_new_ancestors(fs: &Fs, root: &Path, missing: usize) -> Result<()> {
    for parent in root.ancestors().skip(1).take(missing) {
        fs.sync_dir(parent).map_err(|source| Error::io("sync", parent, source))?;
    }
    if missing == 0
        && let Some(parent) = root.parent()
    {
        // A creation that was cut short may have made the directory and not its name durable. Where
        // the parent is not ours to read, somebody else made the directory.
        match fs.sync_dir(parent) {
            Err(source) if source.kind() != std::io::ErrorKind::PermissionDenied => {
                return Err(Error::io("sync", parent, source));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cold]
fn incomplete(path: &Path) -> Error {
    Error::new(
        ErrorKind::NotAStore,
        format!(
            "{}: an incomplete backup: making or restoring it was cut short; nothing was changed, do that again, \
             or remove the directory",
            path.display()
        ),
    )
}

#[cold]
pub(super) fn foreign(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::NotAStore,
        format!(
            "{}: not a Ringcask store: {what}; nothing was changed, choose an empty directory",
            path.display()
        ),
    )
}

pub(super) fn read_manifest(fs: &Fs, root: &Path) -> Result<Manifest> {
    let path = root.join(layout::MANIFEST);
    let bytes =
        fs.read_file(&path, MANIFEST_LEN_MAX).map_err(|source| Error::io("read", &path, source))?;
    Manifest::decode(&bytes).map_err(|why| why.at(&path, 0))
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(ErrorKind::Io, format!("cannot get random bytes from the system: {error}"))
    })?;
    Ok(bytes)
}
