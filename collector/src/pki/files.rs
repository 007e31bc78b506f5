//! Writes the files of the CA whole or not at all, and private ones for the owner only. Never overwrites a key.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use super::authority::PkiError;

/// Largest key file in bytes; a P-256 key in PEM has about 240.
const KEY_BYTES_MAX: u64 = 16 * 1024;
/// Held while the CA is looked for or made.
const LOCK_FILE: &str = "ca.lock";

/// Makes the folder, for its owner only, with its parents.
pub(super) fn ensure_dir(path: &Path) -> Result<(), PkiError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| at(path, source))
}

/// Locks the folder against other processes until the value is dropped. Whoever holds the lock needs milliseconds.
pub(super) fn lock(folder: &Path) -> Result<File, PkiError> {
    let path = folder.join(LOCK_FILE);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| at(&path, source))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| at(&path, errno.into()))?;
    Ok(file)
}

/// Reads a private file; `None` when there is none.
///
/// # Errors
/// When others than the owner may read it, or it is no text.
pub(super) fn read_private(path: &Path) -> Result<Option<Zeroizing<String>>, PkiError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path, error)),
    };
    let mode = file.metadata().map_err(|source| at(path, source))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(PkiError::Unusable(format!(
            "`{}` can be read by others (mode {:o}); make it private with `chmod 600`",
            path.display(),
            mode & 0o777
        )));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(KEY_BYTES_MAX).read_to_string(&mut text).map_err(|source| at(path, source))?;
    Ok(Some(text))
}

/// Writes a new private file, mode 0600.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text, 0o600).map_err(|source| at(path, source))
}

/// Writes a new file that everybody may read, mode 0644.
pub(super) fn write_public(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text, 0o644).map_err(|source| at(path, source))
}

/// A half-written file is never seen under its name: written beside it, synced, then renamed.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = path.with_extension(format!("tmp-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder)?.sync_all()
}

fn at(path: &Path, source: io::Error) -> PkiError {
    PkiError::File { path: path.to_owned(), source }
}
