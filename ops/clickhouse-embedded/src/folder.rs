//! The data folder: ours or refused, and held by one process at a time. Never looks into the engine's own files.

use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::profile::{self, Places};

/// Marks a folder as ours; its lock says that a process is using it.
const MARKER_FILE: &str = "sonde-clickhouse.folder";
const MARKER_TEXT: &[u8] = b"This folder belongs to sonde-clickhouse; do not change anything in it.\n";

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// It holds something that this program did not put there.
    #[error("the data folder {0} holds other files; name an empty folder or one that sonde-clickhouse made")]
    Foreign(PathBuf),
    /// Another process holds it.
    #[error("the data folder {0} is in use by another process; stop that one or name another folder")]
    Busy(PathBuf),
    /// The engine refused it although nobody holds our lock.
    #[error(
        "the engine refused the data folder {0}; another process may use its files, or it was written by a newer engine"
    )]
    Refused(PathBuf),
    /// The path cannot be given to the engine.
    #[error("the data folder {0} has a name that is not UTF-8 or holds a zero byte")]
    Name(PathBuf),
    /// The file system said no.
    #[error("the data folder {path} cannot be used")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A data folder that this process holds until it ends.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Its lock goes with the process, also when the process is killed.
    _marker: File,
}

impl Folder {
    /// Takes a folder: makes it if it is absent, refuses what is not ours, and locks it.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub(crate) fn claim(path: &Path) -> Result<Self, FolderError> {
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))?;
        let path = path.canonicalize().map_err(io_error(path))?;
        let marker_path = path.join(MARKER_FILE);
        let is_ours = marker_path.exists();
        let is_empty = path.read_dir().map_err(io_error(&path))?.next().is_none();
        if !is_ours && !is_empty {
            return Err(FolderError::Foreign(path));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut marker = options.open(&marker_path).map_err(io_error(&marker_path))?;
        match rustix::fs::flock(&marker, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(FolderError::Busy(path)),
            Err(errno) => return Err(io_error(&marker_path)(errno.into())),
        }
        let mut text = Vec::new();
        marker.read_to_end(&mut text).map_err(io_error(&marker_path))?;
        if text.is_empty() {
            marker.write_all(MARKER_TEXT).and_then(|()| marker.sync_all()).map_err(io_error(&marker_path))?;
        } else if text != MARKER_TEXT {
            return Err(FolderError::Foreign(path));
        }
        Ok(Self { path, _marker: marker })
    }

    /// The folder's absolute path.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the engine's configuration and gives the arguments to connect with.
    ///
    /// # Errors
    /// When a file cannot be written or the path cannot be given to the engine.
    pub(crate) fn prepare(
        &self,
        display_name: &str,
        temporary: Option<&Path>,
        memory_bytes_max: Option<u64>,
    ) -> Result<Vec<CString>, FolderError> {
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| FolderError::Name(path.to_owned()));
        let (engine, config) = (self.path.join("engine"), self.path.join("config"));
        let temporary = temporary.map_or_else(|| self.path.join("temporary"), Path::to_owned);
        for path in [&engine, &config, &temporary] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|source| FolderError::Io { path: path.clone(), source })?;
        }
        let places = Places {
            users_file: text(&config.join("users.xml"))?,
            temporary: text(&temporary)?,
            nowhere: text(&self.path.join("nowhere"))?,
        };
        let config_file = config.join("config.xml");
        let files = [
            (config.join("users.xml"), profile::users_xml()),
            (config_file.clone(), profile::config_xml(&places, display_name, memory_bytes_max)),
        ];
        for (path, content) in files {
            std::fs::write(&path, content).map_err(|source| FolderError::Io { path, source })?;
        }
        let arguments = [format!("--path={}", text(&engine)?), format!("--config-file={}", text(&config_file)?)];
        arguments
            .into_iter()
            .map(|argument| CString::new(argument).map_err(|_| FolderError::Name(self.path.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data");
        let held = Folder::claim(&path).unwrap();
        assert!(matches!(Folder::claim(&path), Err(FolderError::Busy(_))));
        drop(held);
        Folder::claim(&path).unwrap();
    }

    #[test]
    fn foreign_folders_are_left_alone() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("letter.txt"), "mine").unwrap();
        assert!(matches!(Folder::claim(home.path()), Err(FolderError::Foreign(_))));
        assert_eq!(home.path().read_dir().unwrap().count(), 1);
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join(MARKER_FILE), "something else").unwrap();
        assert!(matches!(Folder::claim(other.path()), Err(FolderError::Foreign(_))));
    }

    #[test]
    fn a_file_is_no_folder() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(Folder::claim(&file), Err(FolderError::Io { .. })));
    }
}
