//! The data folder: where identity survives a restart. Never holds anything about a target.
//!
//! Every file is written aside, synced and renamed. The order of the renames makes each crash point readable:
//! a join ends with `cert.pem`, so a folder without it has not joined, and its key is used again for the next try.
//! A renewal stages `key.next.pem`, then `cert.next.pem`, then renames key before certificate; loading finishes
//! what a crash has left between the two.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use sonde_proto::model::InvalidField;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Address, Identity, Key, Leaf, Membership};
use crate::config::read_bounded;

const KEY: &str = "key.pem";
const KEY_NEXT: &str = "key.next.pem";
const CERT: &str = "cert.pem";
const CERT_NEXT: &str = "cert.next.pem";
const CA: &str = "ca.pem";
const STATE: &str = "state.json";
const LOCK: &str = "lock";

/// Why the data folder is of no use.
#[derive(Debug, Error)]
pub enum FilesError {
    /// It cannot be made, read or written.
    #[error("data_dir: `{path}` cannot be used ({source}); {}", remedy(source))]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Two processes would fight over one identity.
    #[error("data_dir: `{0}` is in use by another sonde-probe; give each probe a folder of its own")]
    Busy(PathBuf),
    /// A file says something impossible.
    #[error("data_dir: `{path}` {reason}; remove the folder and join again with a new join string")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// A clause.
        reason: String,
    },
    /// Someone else may read the key.
    #[error("data_dir: `{path}` has mode {mode:04o}; make it readable by its owner only (chmod 600)")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No randomness.
    #[error("a private key could not be made ({0})")]
    Key(#[from] rcgen::Error),
}

/// What to do about a file that cannot be used.
fn remedy(error: &io::Error) -> &'static str {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        "make room on its disk"
    } else {
        "give a folder that this user may write"
    }
}

/// `state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct StateFile {
    probe_id: String,
    region: String,
    name: String,
    mesh_address: String,
    enrol_address: String,
    trust_domain: String,
    bundle_version: u64,
}

/// The data folder of one probe, held under a lock for as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the folder, making it when it does not exist (mode 0700).
    ///
    /// # Errors
    /// When it cannot be used, or another process holds it.
    pub fn open(path: &Path) -> Result<Self, FilesError> {
        let unusable = |source| FilesError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FilesError::Busy(path.to_owned())),
            Err(errno) => Err(unusable(errno.into())),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity in the folder, or `None` when the probe has not joined yet.
    ///
    /// # Errors
    /// When files are there, but do not make an identity.
    pub fn load(&self) -> Result<Option<Identity>, FilesError> {
        self.finish_renewal()?;
        if !self.path.join(CERT).exists() {
            return Ok(None);
        }
        let membership = self.read_state()?;
        let key = self.read_key(KEY)?;
        let (chain, ca) = (self.read_certificates(CERT)?, self.read_certificates(CA)?);
        Identity::assemble(membership, key, chain, ca).map(Some).map_err(|fault| self.damaged(CERT, fault.to_string()))
    }

    /// The key to join with: that of an earlier try whose answer was lost, else a new one, on disk before it is used.
    ///
    /// # Errors
    /// When it can be neither read nor written.
    pub fn key_to_join(&self) -> Result<Key, FilesError> {
        self.stage_key(KEY)
    }

    /// The key to renew with, on disk before it is used; the same one until [`Self::store_renewed`].
    ///
    /// # Errors
    /// When it can be neither read nor written.
    pub fn key_to_renew(&self) -> Result<Key, FilesError> {
        self.stage_key(KEY_NEXT)
    }

    /// Makes the answer to a join durable. The key is there already.
    ///
    /// # Errors
    /// When a file cannot be written; the folder has not joined then.
    pub fn store_joined(&self, identity: &Identity) -> Result<(), FilesError> {
        self.write(CA, &pem("CERTIFICATE", &identity.ca))?;
        self.write_state(&identity.membership)?;
        self.write(CERT, &pem("CERTIFICATE", &identity.chain))
    }

    /// Makes a renewed certificate durable, and its staged key the key.
    ///
    /// # Errors
    /// When a file cannot be written; the next start uses the old or the new pair, never a mixed one.
    pub fn store_renewed(&self, identity: &Identity) -> Result<(), FilesError> {
        self.write(CA, &pem("CERTIFICATE", &identity.ca))?;
        self.write_state(&identity.membership)?;
        self.write(CERT_NEXT, &pem("CERTIFICATE", &identity.chain))?;
        self.rename(KEY_NEXT, KEY)?;
        self.rename(CERT_NEXT, CERT)
    }

    fn finish_renewal(&self) -> Result<(), FilesError> {
        if !self.path.join(CERT_NEXT).exists() {
            return Ok(());
        }
        let chain = self.read_certificates(CERT_NEXT)?;
        let leaf = chain.first().and_then(|leaf| Leaf::parse(leaf).ok());
        let belongs_to = |key: Result<Key, FilesError>| -> bool {
            key.is_ok_and(|key| leaf.as_ref().is_some_and(|leaf| leaf.public_key == key.public_key()))
        };
        if belongs_to(self.read_key(KEY_NEXT)) {
            self.rename(KEY_NEXT, KEY)?;
            self.rename(CERT_NEXT, CERT)
        } else if belongs_to(self.read_key(KEY)) {
            self.rename(CERT_NEXT, CERT)
        } else {
            let path = self.path.join(CERT_NEXT);
            fs::remove_file(&path).map_err(|source| FilesError::Unusable { path, source })
        }
    }

    fn stage_key(&self, name: &str) -> Result<Key, FilesError> {
        if self.path.join(name).exists() {
            return self.read_key(name);
        }
        let key = Key::generate()?;
        self.write(name, &key.to_pem())?;
        Ok(key)
    }

    fn read_key(&self, name: &str) -> Result<Key, FilesError> {
        let path = self.path.join(name);
        let pem = Zeroizing::new(self.read(name)?);
        let mode = fs::metadata(&path).map(|meta| meta.mode() & 0o777);
        let mode = mode.map_err(|source| FilesError::Unusable { path: path.clone(), source })?;
        if mode & 0o077 != 0 {
            return Err(FilesError::Exposed { path, mode });
        }
        Key::from_pem(&pem).map_err(|_| self.damaged(name, "is not a P-256 private key in PEM"))
    }

    fn read_certificates(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, FilesError> {
        let pem = self.read(name)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        found.map_err(|_| self.damaged(name, "is not a list of certificates in PEM"))
    }

    fn read_state(&self) -> Result<Membership, FilesError> {
        let state: StateFile =
            serde_json::from_str(&self.read(STATE)?).map_err(|_| self.damaged(STATE, "is not what a probe writes"))?;
        membership(state).map_err(|fault| self.damaged(STATE, format!("is wrong ({fault})")))
    }

    fn write_state(&self, membership: &Membership) -> Result<(), FilesError> {
        let state = StateFile {
            probe_id: membership.probe.to_string(),
            region: membership.region.to_string(),
            name: membership.name.clone(),
            mesh_address: membership.mesh_address.to_string(),
            enrol_address: membership.enrol_address.to_string(),
            trust_domain: membership.trust_domain.clone(),
            bundle_version: membership.bundle_version,
        };
        let text = serde_json::to_string_pretty(&state).map_err(|source| self.unusable(STATE, source.into()))?;
        self.write(STATE, &format!("{text}\n"))
    }

    fn read(&self, name: &str) -> Result<String, FilesError> {
        read_bounded(&self.path.join(name)).map_err(|reason| self.damaged(name, reason))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), FilesError> {
        let aside = self.path.join(format!(".{name}.new"));
        let written = || -> io::Result<()> {
            let _ = fs::remove_file(&aside);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        written().map_err(|source| self.unusable(name, source))?;
        self.rename(&format!(".{name}.new"), name)
    }

    /// Renames and syncs the folder, so that the order of two renames survives a power cut.
    fn rename(&self, from: &str, to: &str) -> Result<(), FilesError> {
        fs::rename(self.path.join(from), self.path.join(to))
            .and_then(|()| File::open(&self.path)?.sync_all())
            .map_err(|source| self.unusable(to, source))
    }

    fn unusable(&self, name: &str, source: io::Error) -> FilesError {
        FilesError::Unusable { path: self.path.join(name), source }
    }

    fn damaged(&self, name: &str, reason: impl Into<String>) -> FilesError {
        FilesError::Damaged { path: self.path.join(name), reason: reason.into() }
    }
}

fn membership(state: StateFile) -> Result<Membership, InvalidField> {
    Ok(Membership {
        probe: state.probe_id.parse()?,
        region: state.region.parse()?,
        name: state.name,
        mesh_address: Address::parse("mesh_address", &state.mesh_address)?,
        enrol_address: Address::parse("enrol_address", &state.enrol_address)?,
        trust_domain: state.trust_domain,
        bundle_version: state.bundle_version,
    })
}

pub(crate) fn pem(label: &str, certificates: &[CertificateDer<'_>]) -> String {
    use base64::Engine as _;
    const LINE: usize = 64;
    let mut text = String::new();
    for der in certificates {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        text.push_str(&format!("-----BEGIN {label}-----\n"));
        for line in body.as_bytes().chunks(LINE) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str(&format!("-----END {label}-----\n"));
    }
    text
}
