//! The way into the laboratory: namespaces of its own for network, mounts, processes and shared memory.
//!
//! Everything that a range leaves behind lives in them and ends with them, however the run ends: the first process of
//! the new process namespace dies with this program, and the system kills the rest and takes networks, rules and the
//! memory file system with it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal, wait};

/// Where the laboratory keeps its files, in memory; hides what the machine has there.
pub const SHM: &str = "/dev/shm";
/// Most that all files of a laboratory take: 20 minutes at 3,000 samples per second take about 1 GiB, logs included.
const SHM_SIZE: &str = "6g";
/// Programs that the laboratory needs, and the Debian packages that have them.
const TOOLS: &[(&str, &str)] = &[
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
];
/// Where administration programs lie that are not on every user's path.
const ADMIN_PATHS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// The search path with the administration programs.
pub fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(ADMIN_PATHS);
    path
}

/// Demands tools and rights before anything long begins.
///
/// # Errors
/// One sentence that says what is missing and what to do.
pub fn demand_rights() -> anyhow::Result<()> {
    for (tool, package) in TOOLS {
        let is_found = std::env::split_paths(&path()).any(|folder| folder.join(tool).is_file());
        anyhow::ensure!(is_found, "`{tool}` is missing: run `apt-get install {package}`, then run this again");
    }
    let own = std::env::current_exe().context("this program cannot find its own file")?;
    let mut command = unshare(&own);
    let tried = command.arg("check").output().context("`unshare` cannot be run")?;
    anyhow::ensure!(
        tried.status.success(),
        "this user may not make a network of its own ({}): run as root, or allow user namespaces with \
         `sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0`, \
         whichever of the two this system knows",
        String::from_utf8_lossy(&tried.stderr).trim().replace('\n', "; ")
    );
    Ok(())
}

/// A command that runs this program as `init` in new namespaces; what follows are arguments of `init`.
pub fn unshare(own: &Path) -> Command {
    let mut command = Command::new(own);
    command.env("PATH", path()).args(["tied", "unshare"]);
    if !is_real_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child", "--"]);
    command.arg(own).arg("init");
    command
}

/// Whether this user is root, with all the users of the system below it.
pub fn is_real_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let users: u64 = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    rustix::process::geteuid().is_root() && users > u64::from(u16::MAX)
}

/// Becomes `words`, killed by the system when the parent of this process goes away.
///
/// # Errors
/// When the program cannot be run.
pub fn tied(words: &[OsString]) -> anyhow::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("a process cannot be tied to its parent")?;
    let (program, arguments) = words.split_first().context("no program was named")?;
    let fault = Command::new(program).args(arguments).exec();
    Err(fault).with_context(|| format!("`{}` cannot be run", program.display()))
}

/// The first process of the laboratory: runs this program with `words`, and takes note of every process that ends,
/// also of those whose parents were killed.
///
/// # Errors
/// When the memory file system cannot be mounted or the program not be run.
pub fn init(words: &[OsString]) -> anyhow::Result<ExitCode> {
    let options = format!("size={SHM_SIZE},mode=1777");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "chaos", SHM]).output()?;
    anyhow::ensure!(mounted.status.success(), "mount: {}", String::from_utf8_lossy(&mounted.stderr).trim());
    let own = std::env::current_exe()?;
    let child = Command::new(own).args(words).stdin(Stdio::null()).spawn()?;
    loop {
        let Some((pid, status)) = wait(WaitOptions::empty())? else { continue };
        if u32::try_from(pid.as_raw_nonzero().get()).is_ok_and(|pid| pid == child.id()) {
            let code = status.exit_status().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            return Ok(ExitCode::from(code));
        }
    }
}

/// The program `name`, which cargo puts beside this one.
///
/// # Errors
/// When it was not built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("this program cannot find its own file")?;
    let path = own.with_file_name(name);
    anyhow::ensure!(path.is_file(), "{} is not built: run `cargo build --workspace --bins` first", path.display());
    Ok(path)
}
