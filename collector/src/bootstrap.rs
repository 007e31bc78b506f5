//! Sets an instance up: tables, CA, and the first admin key in a file. Safe to repeat and to interrupt anywhere:
//! what exists is kept. Never replaces a key file, and never shows the key.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sonde_proto::model::id::KeyId;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::authz::{KeyRow, Scopes, Task, Workspace};
use crate::clock::Clock;
use crate::config::Config;
use crate::pki::{self, PkiError};
use crate::seal::{ApiKey, new_id};
use crate::store::{Actor, NewKey, Store, StoreError};

/// Name of the key that the first bootstrap makes.
const ADMIN_KEY_NAME: &str = "admin";
/// Largest key file that is read, in bytes; a key has 55.
const KEY_FILE_BYTES_MAX: u64 = 1024;
/// How often a key file is looked for again when another bootstrap made one at the same moment. Once is enough:
/// nobody removes it meanwhile.
const KEY_FILE_TRIES: u32 = 2;

/// Why an instance could not be set up.
#[derive(Debug, Error)]
pub enum BootstrapError {
    /// Postgres cannot be used at all.
    #[error("Postgres cannot be used as `postgres.url` in the configuration says; start it, or correct the URL")]
    Connect(#[source] StoreError),
    /// Postgres failed later on.
    #[error("the instance cannot be set up")]
    Store(#[from] StoreError),
    /// The CA could not be made or read.
    #[error("the CA cannot be set up")]
    Pki(#[from] PkiError),
    /// The key file could not be read or written.
    #[error("the admin key file `{path}` cannot be used")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The key file holds something that must not be replaced and cannot be used.
    #[error("the admin key file `{path}` {reason}")]
    KeyFileUnusable {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: &'static str,
    },
}

/// What a bootstrap found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The admin key, without its secret.
    pub key: KeyRow,
    /// Whether the key file was made now.
    pub key_file_created: bool,
    /// Whether the key was registered now, which an earlier bootstrap on the same store had done otherwise.
    pub key_registered: bool,
}

/// Sets the instance up, as far as it is not.
///
/// # Errors
/// See [`BootstrapError`]. Nothing that was there before is changed.
pub async fn run(config: &Config, key_file: &Path, clock: Clock) -> Result<Report, BootstrapError> {
    let store = Store::connect(&config.postgres).await.map_err(BootstrapError::Connect)?;
    let outcome = set_up(&store, config, key_file, clock).await;
    store.close().await;
    outcome
}

async fn set_up(store: &Store, config: &Config, key_file: &Path, clock: Clock) -> Result<Report, BootstrapError> {
    store.migrate().await?;
    pki::ensure_ca(&config.ca_dir, &config.trust_domain, clock.wall())?;
    // The file comes first: a key that is registered but known to nobody would be of no use, whereas a file whose
    // key is not registered yet is completed by the next run.
    let (secret, key_file_created) = ensure_key_file(key_file)?;
    let (key, key_registered) = register(store, key_file, &secret, clock).await?;
    Ok(Report { key, key_file_created, key_registered })
}

/// Makes sure that the key in the file is an admin key of the instance; also says whether it had to be registered.
async fn register(store: &Store, path: &Path, secret: &ApiKey, clock: Clock) -> Result<(KeyRow, bool), BootstrapError> {
    let workspace = Workspace::system(Task::Bootstrap);
    if let Some(row) = store.key_by_digest(&workspace, secret.digest()).await? {
        return Ok((usable(row, path)?, false));
    }
    let new = NewKey {
        id: KeyId(new_id(clock.wall())),
        name: ADMIN_KEY_NAME.to_owned(),
        prefix: secret.prefix().to_owned(),
        digest: secret.digest(),
        scopes: Scopes::All,
        ttl: None,
    };
    match store.create_key(&workspace, Actor::system(Task::Bootstrap), new).await {
        Ok(row) => Ok((row, true)),
        // Either another bootstrap was faster by a moment, or the key is somebody else's.
        Err(StoreError::Conflict { .. }) => match store.key_by_digest(&workspace, secret.digest()).await? {
            Some(row) => Ok((usable(row, path)?, false)),
            None => Err(unusable(path, "holds a key of another workspace; name another file")),
        },
        Err(error) => Err(error.into()),
    }
}

fn usable(row: KeyRow, path: &Path) -> Result<KeyRow, BootstrapError> {
    if row.revoked_at.is_some() {
        return Err(unusable(path, "holds a key that was revoked; remove the file, and a new key will be made"));
    }
    if row.scopes != Scopes::All {
        return Err(unusable(path, "holds a key that may not do everything; name another file"));
    }
    Ok(row)
}

/// The key in the file, which is made when it is absent; also says whether it was.
fn ensure_key_file(path: &Path) -> Result<(ApiKey, bool), BootstrapError> {
    let failed = |source| BootstrapError::KeyFile { path: path.to_owned(), source };
    for _ in 0..KEY_FILE_TRIES {
        if let Some(key) = read_key(path)? {
            return Ok((key, false));
        }
        let key = ApiKey::mint();
        match write_new(path, key.reveal()) {
            Ok(()) => return Ok((key, true)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(io::Error::from(io::ErrorKind::AlreadyExists)))
}

/// Reads the key file; `None` when there is none.
fn read_key(path: &Path) -> Result<Option<ApiKey>, BootstrapError> {
    let failed = |source| BootstrapError::KeyFile { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(unusable(path, "can be read by others; make it private with `chmod 600`"));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let key = ApiKey::parse(text.trim_end());
    key.map(Some).ok_or_else(|| unusable(path, "holds no Sonde API key; move it away, and a new key will be made"))
}

/// Writes a new private file that appears whole or not at all, and never takes the place of another one.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension(format!("new-{}", tag()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")).and_then(|()| file.sync_all());
    // A link, unlike a rename, fails when the name is taken.
    let linked = written.and_then(|()| std::fs::hard_link(&beside, path));
    std::fs::remove_file(&beside)?;
    linked?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Distinguishes the unfinished files of two bootstraps that run at once.
fn tag() -> String {
    crate::seal::random::<8>().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unusable(path: &Path, reason: &'static str) -> BootstrapError {
    BootstrapError::KeyFileUnusable { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.key");
        let (made, created) = ensure_key_file(&path).unwrap();
        let (kept, again) = ensure_key_file(&path).unwrap();
        assert!(created && !again);
        assert_eq!(made.digest(), kept.digest());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no unfinished file is left");
    }

    #[test]
    fn a_file_that_is_no_private_key_file_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.key");
        std::fs::write(&path, "something else\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let error = ensure_key_file(&path).unwrap_err().to_string();
        assert!(error.contains("holds no Sonde API key"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = ensure_key_file(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "something else\n");
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let error = ensure_key_file(Path::new("/nonexistent/admin.key")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/admin.key"), "{error}");
    }

    #[test]
    fn a_new_file_never_takes_the_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.key");
        write_new(&path, "first").unwrap();
        assert_eq!(write_new(&path, "second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first\n");
    }
}
