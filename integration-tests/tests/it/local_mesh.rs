//! `make up` and `make down` as their command sees them: idempotent, repairing, keeping the data.

mod moves;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sonde_integration_tests::cli::Cli;
use sonde_integration_tests::process::program;
use sonde_integration_tests::wait;

/// Longest repair of a half-dead mesh.
const REPAIR_MAX: Duration = Duration::from_secs(15);

/// A local mesh in a folder that only its owner may enter; stopped when dropped.
struct LocalMesh {
    _root: tempfile::TempDir,
    dir: PathBuf,
}

impl LocalMesh {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let dir = root.path().join(".sonde");
        Self { _root: root, dir }
    }

    fn up(&self) -> String {
        let output = self.command(&["mesh", "up", "--detach"]);
        assert!(output.0, "{}", output.1);
        output.1
    }

    fn command(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(program("sonde"));
        let output =
            command.args(args).arg("--dir").arg(&self.dir).env_remove("SONDE_CLICKHOUSE_URL").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }

    fn pid(&self, part: &str) -> i64 {
        let text = fs::read_to_string(self.dir.join("run").join(format!("{part}.json"))).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["pid"].as_i64().unwrap()
    }

    fn pids(&self) -> Vec<i64> {
        ["postgres", "clickhouse", "collector", "demo", "probe-eu-west", "probe-us-east", "probe-ap-south"]
            .map(|part| self.pid(part))
            .to_vec()
    }

    /// The command with the environment that `. .sonde/env` gives a shell.
    fn cli(&self) -> Cli {
        let script = format!(". {:?} && env", self.dir.join("env"));
        let output = Command::new("sh").args(["-euc", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let env = text.lines().filter_map(|line| line.split_once('=')).filter(|(name, _)| name.starts_with("SONDE_"));
        Cli { env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }
}

impl Drop for LocalMesh {
    fn drop(&mut self) {
        let (stopped, said) = self.command(&["mesh", "down"]);
        remove_what_lies_outside(&self.dir);
        assert!(stopped || std::thread::panicking(), "{said}");
    }
}

/// Removes what a stopped mesh keeps outside of its folder: a root caller's Postgres, or anybody else's socket.
pub(crate) fn remove_what_lies_outside(dir: &Path) {
    if let Ok(data) = fs::read_link(dir.join("postgres")) {
        let _ = fs::remove_dir_all(data.parent().unwrap());
    }
    let memory: Value = fs::read_to_string(dir.join("mesh.json"))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    if let Some(id) = memory["id"].as_str() {
        let _ = fs::remove_dir_all(std::env::temp_dir().join(format!("sonde-{}", id.replace('-', ""))));
    }
}

fn kill9(pid: i64) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// Makes the lock files of a killed Postgres name a process that has ended but that nobody has taken note of, as
/// killed servers are in a container without an init: to Postgres it looks alive.
fn leave_unburied(mesh: &LocalMesh) -> Child {
    let data = mesh.dir.join("postgres");
    let owner = fs::metadata(&data).unwrap();
    let mut dead = Command::new("true");
    if rustix::process::geteuid().is_root() {
        // What belongs to another user does not count as a server.
        dead.uid(owner.uid()).gid(owner.gid());
    }
    let dead = dead.spawn().unwrap();
    let pid_file = data.join("postmaster.pid");
    let text = fs::read_to_string(&pid_file).unwrap();
    let socket = PathBuf::from(text.lines().nth(4).unwrap());
    for file in [pid_file, socket.join(".s.PGSQL.5432.lock")] {
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{}\n{}", dead.id(), text.split_once('\n').unwrap().1)).unwrap();
    }
    dead
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_mesh_starts_repairs_itself_and_keeps_its_data() {
    let mesh = LocalMesh::new();
    mesh.up();
    let cli = mesh.cli();
    for name in ["ENDPOINT", "MESH_ENDPOINT", "WEB", "CLICKHOUSE", "CA", "KEY_FILE"] {
        assert!(cli.env.iter().any(|(found, _)| *found == format!("SONDE_{name}")), "{name}: {:?}", cli.env);
    }
    let regions: Vec<Value> = cli.json(&["region", "list"]).rows().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(regions, ["ap-south", "eu-west", "us-east"]);
    for (part, name) in
        [("collector", "sonde-collector"), ("clickhouse", "sonde-clickhouse"), ("probe-eu-west", "sonde-probe")]
    {
        let line = fs::read(format!("/proc/{}/cmdline", mesh.pid(part))).unwrap();
        let first = String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap()).into_owned();
        assert!(first.starts_with('/') && first.ends_with(name), "{part} is started by absolute path: {first}");
    }
    let key = fs::metadata(mesh.dir.join("admin.key")).unwrap();
    assert_eq!(key.mode() & 0o777, 0o600, "the key is private");

    // A second `up` touches nothing.
    let before = mesh.pids();
    mesh.up();
    assert_eq!(mesh.pids(), before);

    // A half-dead mesh is repaired, and only what is dead is started.
    let oldest = wait::until(Duration::from_secs(60), "a sample", async || {
        cli.json(&["sample", "list", "--check", "demo-healthy", "--last", "10m"]).rows().pop()
    })
    .await;
    kill9(mesh.pid("collector"));
    kill9(mesh.pid("probe-us-east"));
    let begin = Instant::now();
    mesh.up();
    assert!(begin.elapsed() < REPAIR_MAX, "{:?}", begin.elapsed());
    let after = mesh.pids();
    let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    assert_eq!(changed, [2, 5], "exactly what was dead is new: {before:?} {after:?}");

    kill9(mesh.pid("postgres"));
    kill9(mesh.pid("clickhouse"));
    let mut dead = leave_unburied(&mesh);
    mesh.up();
    dead.wait().unwrap();

    // Down and up again: the data is still there.
    let (stopped, said) = mesh.command(&["mesh", "down"]);
    assert!(stopped, "{said}");
    for pid in after {
        assert!(!Path::new(&format!("/proc/{pid}/exe")).exists(), "pid {pid} is still there");
    }
    let (stopped, said) = mesh.command(&["mesh", "down"]);
    assert!(stopped && said.contains("nothing was running"), "{said}");
    mesh.up();
    let rows = cli.json(&["sample", "list", "--check", "demo-healthy", "--last", "30m"]).rows();
    assert!(rows.contains(&oldest), "the first sample is still there");
    let probes = cli.json(&["probe", "list"]).rows();
    assert_eq!(probes.len(), 3, "nobody joined twice: {probes:?}");

    // What somebody wanted is said at once, with the way back.
    let drained = probes[0]["id"].as_str().unwrap();
    assert_eq!(cli.run(&["probe", "drain", drained]).code, 0);
    let (healthy, said) = mesh.command(&["mesh", "up", "--detach"]);
    assert!(!healthy && said.contains("is drained") && said.contains("--undo"), "{said}");
    assert_eq!(cli.run(&["probe", "drain", drained, "--undo"]).code, 0);
    let said = mesh.up();
    assert!(said.contains(&format!("sonde mesh down --dir {}", mesh.dir.display())), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_took_is_named() {
    let mesh = LocalMesh::new();
    let (_, _) = mesh.command(&["mesh", "status"]);
    fs::create_dir_all(&mesh.dir).unwrap();
    let thief = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = thief.local_addr().unwrap().port();
    let free = |n: u16| {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        assert!(port > 0, "{n}");
        port
    };
    let memory = serde_json::json!({
        "id": uuid::Uuid::new_v4(),
        "ports": {"mesh": free(1), "enrol": free(2), "admin": free(3), "web": free(4), "clickhouse": port, "demo": free(5)},
        "demo_created": false,
    });
    fs::write(mesh.dir.join("mesh.json"), memory.to_string()).unwrap();
    let (started, said) = mesh.command(&["mesh", "up", "--detach"]);
    assert!(!started, "{said}");
    assert!(said.contains(&port.to_string()) && said.contains("clickhouse") && said.contains("in use"), "{said}");
}
