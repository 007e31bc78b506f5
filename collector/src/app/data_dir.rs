//! The data folder: ours alone while we run, and where others read which ports we have. Never holds samples.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use super::ports::Endpoints;

/// Held for as long as the collector runs.
const LOCK_FILE: &str = "collector.lock";
/// Where the bound addresses stand.
const ENDPOINTS_FILE: &str = "endpoints.json";
/// Which life of a collector had the folder last. Whoever holds the lock knows that it is over.
const LIFE_FILE: &str = "life";
/// A process id has at most 10 digits, a life 36 characters, each with a line end.
const PID_BYTES_MAX: u64 = 64;

/// The folder, locked.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder if need be and takes it.
    ///
    /// # Errors
    /// When it cannot be made or written, or another collector has it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let unusable = |error: io::Error| anyhow!("data_dir: `{}` cannot be used: {error}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK_FILE))
            .map_err(unusable)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // Without a readable id the sentence is still true.
            let _ = (&lock).take(PID_BYTES_MAX).read_to_string(&mut holder);
            return Err(anyhow!(
                "data_dir: `{}` is in use by another collector (process {}); stop it or use another folder",
                path.display(),
                holder.trim()
            ));
        }
        lock.set_len(0).map_err(unusable)?;
        writeln!(lock, "{}", std::process::id()).map_err(unusable)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Writes down which life has the folder now. Returns the one before; `None` when there was none, or nobody can tell.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn succeed(&self, life: Uuid) -> anyhow::Result<Option<Uuid>> {
        let (path, beside) = (self.path.join(LIFE_FILE), self.path.join("life.tmp"));
        let mut before = String::new();
        let read = File::open(&path).and_then(|file| file.take(PID_BYTES_MAX).read_to_string(&mut before));
        let before = read.ok().and_then(|_| before.trim().parse().ok());
        std::fs::write(&beside, format!("{life}\n"))
            .and_then(|()| std::fs::rename(&beside, &path))
            .map_err(|error| anyhow!("data_dir: `{}` cannot be written: {error}", path.display()))?;
        Ok(before)
    }

    /// Addresses of an earlier life must not be found while this one is starting.
    pub(super) fn remove_endpoints(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.path.join(ENDPOINTS_FILE)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(anyhow!("data_dir: `{}` cannot be used: {error}", self.path.display())),
        }
    }

    /// Says where the ports are, whole or not at all.
    pub(super) fn write_endpoints(&self, endpoints: &Endpoints) -> anyhow::Result<()> {
        let (path, beside) = (self.path.join(ENDPOINTS_FILE), self.path.join("endpoints.json.tmp"));
        let text = serde_json::to_string(endpoints)?;
        std::fs::write(&beside, text + "\n")
            .and_then(|()| std::fs::rename(&beside, &path))
            .map_err(|error| anyhow!("data_dir: `{}` cannot be written: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_collector_on_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        let message = DataDir::open(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains(&format!("in use by another collector (process {})", std::process::id())),
            "{message}"
        );
        drop(first);
        assert!(DataDir::open(folder.path()).is_ok());
    }

    #[test]
    fn each_life_knows_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(dir.succeed(first).unwrap(), None);
        assert_eq!(dir.succeed(second).unwrap(), Some(first));
        std::fs::write(folder.path().join(LIFE_FILE), "no life").unwrap();
        assert_eq!(dir.succeed(first).unwrap(), None);
    }
}
