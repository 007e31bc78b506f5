//! A private Postgres cluster from the installed binaries: Unix socket only, never on a port.
//!
//! Postgres refuses to run as root, so a root caller starts it as user `postgres`, else `nobody`, with the data in a
//! folder that this user can reach wherever the checkout lies.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{CliError, Kind, Result};

pub use super::process::RunAs;

/// Role and database that the product uses.
pub const ROLE: &str = "sonde";
/// Name of the database.
pub const DATABASE: &str = "sonde";
/// File beside the data that says whose it is.
pub(super) const OWNER_FILE: &str = "sonde-owner";
/// Lock of the socket, in the folder of the socket.
const SOCKET_LOCK: &str = ".s.PGSQL.5432.lock";
/// No process ever has this pid: Linux gives out 2^22 at most.
const NOBODY: i32 = i32::MAX;

/// The binaries and the user of a private cluster.
#[derive(Debug, Clone)]
pub struct Installation {
    bin: PathBuf,
    run_as: Option<RunAs>,
}

/// A cluster on disk.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Binaries and user.
    pub installation: Installation,
    /// Data folder.
    pub data: PathBuf,
    /// Folder of the Unix socket.
    pub socket: PathBuf,
}

impl Installation {
    /// Finds the binaries: `SONDE_PG_BIN`, else the newest of the distribution, else `pg_config --bindir`.
    ///
    /// # Errors
    /// When there are none, or a root caller has no user to hand them to.
    pub fn find() -> Result<Self> {
        let bin = binaries().ok_or_else(|| {
            CliError::new(Kind::Config, "Postgres is not installed: no folder with `initdb` and `postgres` was found")
                .hint("install the package `postgresql`, or set SONDE_PG_BIN to the folder with its programs")
        })?;
        let run_as = if rustix::process::geteuid().is_root() { Some(unprivileged_user()?) } else { None };
        Ok(Self { bin, run_as })
    }

    /// User that the server runs as, when it is not the caller.
    pub fn run_as(&self) -> Option<RunAs> {
        self.run_as
    }

    /// A program of the installation, run as the right user, in a folder that the user can enter.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.env("LC_ALL", "C.UTF-8").current_dir("/").stdin(Stdio::null());
        if let Some(RunAs { uid, gid }) = self.run_as {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Creates `path` with mode 0700 for the user of the server.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn folder(&self, path: &Path) -> Result<()> {
        let make = || {
            if !path.exists() {
                fs::DirBuilder::new().mode(0o700).create(path)?;
            }
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            match self.run_as {
                Some(RunAs { uid, gid }) => chown(path, Some(uid), Some(gid)),
                None => Ok(()),
            }
        };
        make().map_err(|fault| CliError::file(path, &fault))
    }
}

impl Cluster {
    /// Creates the cluster if it is not there yet.
    ///
    /// `owner` names whose data this is; a folder of another owner, or with other files, is refused.
    ///
    /// # Errors
    /// When the folder is somebody else's or `initdb` fails.
    pub fn create(&self, owner: &str) -> Result<()> {
        let refuse = |what: &str| {
            CliError::new(Kind::Conflict, format!("data folder {} {what}", self.data.display()))
                .hint("name another folder, or move that one away")
        };
        let owner_file = self.data.join(OWNER_FILE);
        if self.data.join("PG_VERSION").exists() {
            let found = fs::read_to_string(&owner_file).unwrap_or_default();
            if found.trim() != owner {
                return Err(refuse("holds a Postgres cluster that this mesh did not create"));
            }
            return Ok(());
        }
        // `initdb` was cut off before PG_VERSION, or the folder is somebody's.
        if self.data.exists() && fs::read_dir(&self.data)?.next().is_some() {
            return Err(refuse("is not empty and holds no Postgres cluster"));
        }
        let draft = self.data.with_extension("new");
        if draft.exists() {
            fs::remove_dir_all(&draft)?;
        }
        self.installation.folder(&draft)?;
        let made = self
            .installation
            .command("initdb")
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username", ROLE, "--pgdata"])
            .arg(&draft)
            .output()?;
        if !made.status.success() {
            let text = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            return Err(CliError::new(Kind::Internal, format!("initdb failed: {text}")));
        }
        fs::write(draft.join(OWNER_FILE), owner)?;
        if self.data.exists() {
            fs::remove_dir(&self.data)?;
        }
        // The rename makes the cluster appear as a whole: a crash leaves a draft, never half a cluster.
        fs::rename(&draft, &self.data)?;
        Ok(())
    }

    /// The command that serves the cluster in the foreground.
    ///
    /// # Errors
    /// When another server, or something that looks like one, uses the data folder.
    pub fn serve(&self) -> Result<Command> {
        self.refuse_foreign_server()?;
        self.release_locks_of_the_dead()?;
        let mut command = self.installation.command("postgres");
        command.arg("-D").arg(&self.data).arg("-k").arg(&self.socket);
        command.args(["-c", "listen_addresses=", "-c", "max_connections=200", "-c", "log_min_messages=warning"]);
        Ok(command)
    }

    fn refuse_foreign_server(&self) -> Result<()> {
        let Some((pid, _)) = self.living_server() else { return Ok(()) };
        Err(CliError::new(
            Kind::Conflict,
            format!("data folder {} is in use by another Postgres, pid {pid}", self.data.display()),
        )
        .hint("stop that server first"))
    }

    /// Makes lock files name nobody, once it is known that no server lives.
    ///
    /// Postgres would believe in a server as long as its pid is there, be it that of a killed server that nobody has
    /// taken note of, as in a container without an init, or that of a stranger. Only the pid is replaced: what Postgres
    /// finds below it are the traces of backends that outlived their server, and those it must respect.
    fn release_locks_of_the_dead(&self) -> Result<()> {
        for path in [self.data.join("postmaster.pid"), self.socket.join(SOCKET_LOCK)] {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            if let Some((_, rest)) = text.split_once('\n') {
                fs::write(&path, format!("{NOBODY}\n{rest}"))?;
            }
        }
        Ok(())
    }

    /// Pid and state of the server that serves this folder now.
    ///
    /// A pid file outlives a killed server, and pids are used again: what counts is a living process with this folder
    /// on its command line.
    fn living_server(&self) -> Option<(i32, String)> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid: i32 = lines.next()?.trim().parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let serves_this = String::from_utf8_lossy(&line).split('\0').any(|word| Path::new(word) == self.data);
        let state = lines.nth(6).unwrap_or_default().trim().to_owned();
        (serves_this && super::process::is_alive(pid)).then_some((pid, state))
    }

    /// Whether the server accepts connections: the last line of its pid file says so.
    pub fn is_ready(&self) -> bool {
        self.living_server().is_some_and(|(_, state)| state == "ready")
    }

    /// Creates the database if it is not there yet.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn create_database(&self, name: &str) -> Result<()> {
        let made =
            self.installation.command("createdb").arg("-h").arg(&self.socket).args(["-U", ROLE, name]).output()?;
        let text = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        if made.status.success() || text.contains("already exists") {
            return Ok(());
        }
        Err(CliError::new(Kind::Internal, format!("createdb failed: {text}")))
    }

    /// Connection URL of a database of this cluster.
    pub fn url(&self, database: &str) -> String {
        let socket = self.socket.display().to_string().replace('%', "%25").replace(' ', "%20");
        format!("postgres:///{database}?host={socket}&user={ROLE}")
    }
}

fn binaries() -> Option<PathBuf> {
    let holds = |dir: &Path| dir.join("initdb").exists() && dir.join("postgres").exists();
    if let Some(named) = std::env::var_os("SONDE_PG_BIN") {
        return Some(PathBuf::from(named)).filter(|dir| holds(dir));
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, dir)| holds(dir))
        .collect();
    versions.sort();
    if let Some((_, newest)) = versions.pop() {
        return Some(newest);
    }
    let told = Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8_lossy(&told.stdout).trim())).filter(|dir| holds(dir))
}

fn unprivileged_user() -> Result<RunAs> {
    let users = fs::read_to_string("/etc/passwd")?;
    ["postgres", "nobody"].into_iter().find_map(|name| user_in(&users, name)).ok_or_else(|| {
        CliError::new(Kind::Config, "Postgres does not run as root, and there is no user `postgres` or `nobody`")
            .hint("create a user named postgres")
    })
}

fn user_in(passwd: &str, name: &str) -> Option<RunAs> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(RunAs { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104::/var/lib/postgresql:/bin/bash\n";
        assert_eq!(user_in(passwd, "postgres"), Some(RunAs { uid: 101, gid: 104 }));
        assert_eq!(user_in(passwd, "nobody"), None);
    }

    #[test]
    fn a_folder_with_other_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "x").unwrap();
        let cluster = Cluster {
            installation: Installation { bin: PathBuf::from("/nowhere"), run_as: None },
            data: dir.path().to_path_buf(),
            socket: dir.path().to_path_buf(),
        };
        let fault = cluster.create("me").unwrap_err();
        assert_eq!(fault.kind, Kind::Conflict);
        assert!(fault.message.contains("not empty"), "{}", fault.message);
    }

    #[test]
    fn a_lock_of_the_dead_names_nobody_and_keeps_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let mut dead = Command::new("true").spawn().unwrap();
        let lock = format!("{}\n/data\n1700000000\n5432\n/socket\n\n  1234  5\nready\n", dead.id());
        for name in ["postmaster.pid", SOCKET_LOCK] {
            fs::write(dir.path().join(name), &lock).unwrap();
        }
        let cluster = Cluster {
            installation: Installation { bin: PathBuf::from("/nowhere"), run_as: None },
            data: dir.path().to_path_buf(),
            socket: dir.path().to_path_buf(),
        };
        cluster.serve().unwrap();
        for name in ["postmaster.pid", SOCKET_LOCK] {
            let text = fs::read_to_string(dir.path().join(name)).unwrap();
            assert_eq!(text.split_once('\n').unwrap(), ("2147483647", lock.split_once('\n').unwrap().1), "{name}");
        }
        dead.wait().unwrap();
    }

    #[test]
    fn a_cluster_of_another_owner_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("PG_VERSION"), "15").unwrap();
        fs::write(dir.path().join(OWNER_FILE), "somebody").unwrap();
        let cluster = Cluster {
            installation: Installation { bin: PathBuf::from("/nowhere"), run_as: None },
            data: dir.path().to_path_buf(),
            socket: dir.path().to_path_buf(),
        };
        assert!(cluster.create("me").unwrap_err().message.contains("did not create"));
    }
}
