//! Where the local mesh keeps its files and which ports it uses. Ports are chosen once and remembered.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::{CliError, Kind, Result};

/// Ports are looked for here: below the range that Linux gives to outgoing connections (32768 and up).
const PORTS: std::ops::Range<u16> = 17_400..19_999;

/// Ports of the local mesh, all on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Streams of the probes.
    pub mesh: u16,
    /// Enrolment.
    pub enrol: u16,
    /// Admin API.
    pub admin: u16,
    /// Metrics and health.
    pub web: u16,
    /// ClickHouse's HTTP interface.
    pub clickhouse: u16,
    /// First of the demo target's ports; see [`crate::demo`].
    pub demo: u16,
}

/// What is remembered between two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Name of this mesh, drawn once: the folders that lie outside of `dir` carry it.
    pub id: uuid::Uuid,
    /// The ports.
    pub ports: Ports,
    /// Whether the demo checks were created once; a user who deletes them must not get them back.
    pub demo_created: bool,
}

/// Files of one local mesh.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The folder, absolute.
    pub dir: PathBuf,
    /// Folder of the programs.
    pub bin: PathBuf,
}

/// Holds the lock of the mesh while it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing the file releases the lock")] fs::File);

impl Layout {
    /// Opens the folder, creating it with mode 0700.
    ///
    /// # Errors
    /// When it cannot be created, or holds something that is not a mesh.
    pub fn open(dir: &Path) -> Result<Self> {
        let fail = |what: String| CliError::new(Kind::Config, format!("--dir {}: {what}", dir.display()));
        if !dir.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| fail(e.to_string()))?;
        }
        let dir = dir.canonicalize().map_err(|e| fail(e.to_string()))?;
        let marker = dir.join("mesh.json");
        let is_empty = fs::read_dir(&dir).map_err(|e| fail(e.to_string()))?.next().is_none();
        let only_lock = dir.join("lock").exists();
        if !marker.exists() && !is_empty && !only_lock {
            return Err(fail("holds files that are not a mesh's".into()).hint("name an empty or new folder"));
        }
        let exe = std::env::current_exe()?;
        let bin = exe.parent().unwrap_or(Path::new("/")).to_path_buf();
        Ok(Self { dir, bin })
    }

    /// Takes the lock, so that two `up`s or `down`s do not work against each other.
    ///
    /// # Errors
    /// When another one holds it.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.dir.join("lock");
        let open = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = open.map_err(|fault| CliError::file(&path, &fault))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            CliError::new(Kind::Conflict, "another `make up` or `make down` is at work on this mesh")
                .hint("wait until it has ended")
        })?;
        Ok(Lock(file))
    }

    /// What was remembered, or new ports that are free now. A lost memory finds its data again.
    ///
    /// # Errors
    /// When the memory cannot be read or no port is free.
    pub fn memory(&self) -> Result<Memory> {
        let path = self.dir.join("mesh.json");
        if path.exists() {
            let text = fs::read_to_string(&path).map_err(|fault| CliError::file(&path, &fault))?;
            return serde_json::from_str(&text).map_err(|fault| {
                CliError::new(Kind::Config, format!("{} is damaged: {fault}", path.display()))
                    .hint("mend it, or delete it: `make up` then chooses new ports and keeps the data")
            });
        }
        let owner = fs::read_to_string(self.path("postgres").join(super::postgres::OWNER_FILE)).ok();
        let known = owner.and_then(|id| id.trim().parse().ok());
        let id = known.unwrap_or_else(uuid::Uuid::new_v4);
        let memory = Memory { id, ports: free_ports()?, demo_created: known.is_some() };
        self.remember(&memory)?;
        Ok(memory)
    }

    /// Whether ports were chosen before.
    pub fn has_memory(&self) -> bool {
        self.dir.join("mesh.json").exists()
    }

    /// Chooses other ports and remembers them.
    ///
    /// # Errors
    /// When the memory cannot be read or written, or no port is free.
    pub fn choose_ports_anew(&self) -> Result<()> {
        let memory = self.memory()?;
        self.remember(&Memory { ports: free_ports()?, ..memory })
    }

    /// Writes what is to be remembered.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remember(&self, memory: &Memory) -> Result<()> {
        let text = serde_json::to_string_pretty(memory).map_err(anyhow::Error::from)?;
        write_private(&self.dir.join("mesh.json"), text.as_bytes())
    }

    /// A file or folder of the mesh.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A program of the project.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Creates a folder with mode 0700.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|fault| CliError::file(&path, &fault))?;
        Ok(path)
    }
}

/// Writes a file of mode 0600 so that it is either the old or the new one, never half of it.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = path.with_extension("tmp");
    write_draft(&draft, bytes).and_then(|()| fs::rename(&draft, path)).map_err(|fault| CliError::file(path, &fault))
}

fn write_draft(draft: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(draft)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Ports that are free now, looked for from a random place on: two meshes that begin at one moment should not choose alike.
fn free_ports() -> Result<Ports> {
    let (_, draw) = uuid::Uuid::new_v4().as_u64_pair();
    let begin = PORTS.start + u16::try_from(draw % u64::from(PORTS.end - PORTS.start)).unwrap_or(0);
    let around = (begin..PORTS.end).chain(PORTS.start..begin);
    let mut free = around.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    let mut next = || {
        free.next().ok_or_else(|| {
            CliError::new(Kind::Unavailable, format!("no port between {} and {} is free", PORTS.start, PORTS.end))
        })
    };
    let (mesh, enrol, admin, web, clickhouse) = (next()?, next()?, next()?, next()?, next()?);
    // The demo target takes a run of neighbouring ports.
    let mut demo = next()?;
    let mut length = 1;
    while length < crate::demo::PORTS {
        let port = next()?;
        if port == demo + length {
            length += 1;
        } else {
            demo = port;
            length = 1;
        }
    }
    Ok(Ports { mesh, enrol, admin, web, clickhouse, demo })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn ports_are_chosen_once() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(&dir.path().join("mesh")).unwrap();
        let first = layout.memory().unwrap();
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first.ports.web)).unwrap();
        assert_eq!(layout.memory().unwrap(), first);
    }

    #[test]
    fn a_lost_memory_finds_its_data_again() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(&dir.path().join("mesh")).unwrap();
        let first = layout.memory().unwrap();
        assert!(!first.demo_created);
        let data = layout.folder("postgres").unwrap();
        fs::write(data.join(super::super::postgres::OWNER_FILE), first.id.to_string()).unwrap();
        fs::remove_file(layout.path("mesh.json")).unwrap();
        let again = layout.memory().unwrap();
        assert_eq!((again.id, again.demo_created), (first.id, true));
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent/file");
        let fault = write_private(&path, b"x").unwrap_err();
        assert!(fault.message.contains("absent/file") && fault.kind == Kind::Config, "{}", fault.message);
    }

    #[test]
    fn a_folder_with_other_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "x").unwrap();
        let fault = Layout::open(dir.path()).unwrap_err();
        assert_eq!(fault.kind, Kind::Config);
        assert!(fault.message.contains("not a mesh's"), "{}", fault.message);
    }

    #[test]
    fn the_lock_is_exclusive() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(&dir.path().join("mesh")).unwrap();
        let _held = layout.lock().unwrap();
        assert_eq!(layout.lock().unwrap_err().kind, Kind::Conflict);
    }

    #[test]
    fn private_files_are_private_and_replaced_as_wholes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
