//! Postgres for tests: one private cluster per test process, one database per test, and a cable to cut.
//! Never uses a server that was there before.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sonde_ops::mesh::postgres::{Cluster, Installation, RunAs};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long the server may take to start on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How often to look meanwhile.
const START_POLL: Duration = Duration::from_millis(20);
/// Name that every client expects the socket to have.
const SOCKET: &str = ".s.PGSQL.5432";

/// Runs the server for as long as the pipe on standard input is open, which the system closes when the test
/// process ends, however it ends. Then it stops the server and removes its folder.
const KEEPER: &str = r#"
folder=$1; shift
"$@" >/dev/null 2>"$folder/log" </dev/null &
server=$!
cat >/dev/null
kill -INT "$server"; wait "$server"
rm -rf "$folder"
"#;

/// A fresh, empty database. It lives until the test process ends.
#[derive(Debug, Clone)]
pub struct TestDb {
    /// Connection URL.
    pub url: String,
}

impl TestDb {
    /// Creates a database on this process's cluster, which is started when it is the first.
    ///
    /// # Panics
    /// When Postgres is not installed or does not start; the message says what to do.
    pub fn create() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let cluster = &server().cluster;
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        if let Err(error) = cluster.create_database(&name) {
            panic!("no database for the test: {error}");
        }
        Self { url: cluster.url(&name) }
    }
}

/// The cluster of this process's databases, running.
pub fn cluster() -> &'static Cluster {
    &server().cluster
}

struct Server {
    cluster: Cluster,
    /// Its standard input is what keeps the server alive.
    _keeper: Child,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

fn start() -> Server {
    let installation = Installation::find().unwrap_or_else(|error| panic!("tests need Postgres: {error}"));
    let folder = std::env::temp_dir().join(format!("sonde-test-pg-{}", std::process::id()));
    installation.folder(&folder).expect("a folder for the cluster can be made");
    let run_as = installation.run_as();
    let cluster = Cluster { installation, data: folder.join("data"), socket: folder.clone() };
    if let Err(error) = cluster.create("tests") {
        panic!("no cluster for the tests: {error}");
    }
    let keeper = keep(&cluster, &folder, run_as);
    wait_until_ready(&cluster, &folder);
    Server { cluster, _keeper: keeper }
}

fn keep(cluster: &Cluster, folder: &Path, run_as: Option<RunAs>) -> Child {
    let serve = cluster.serve().expect("nobody else uses a new cluster");
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER, "keeper"]).arg(folder).arg(serve.get_program()).args(serve.get_args());
    // The data of tests need not survive the machine.
    keeper.args(["-c", "fsync=off", "-c", "full_page_writes=off"]).current_dir("/").stdin(Stdio::piped());
    // An interrupt from the keyboard is for the tests; the keeper ends when they do.
    keeper.process_group(0);
    if let Some(RunAs { uid, gid }) = run_as {
        keeper.uid(uid).gid(gid);
    }
    keeper.spawn().expect("`sh` can be run")
}

/// Waits without reading a clock: the server's own file says when it is ready.
fn wait_until_ready(cluster: &Cluster, folder: &Path) {
    for _ in 0..START_DEADLINE.as_millis() / START_POLL.as_millis() {
        if cluster.is_ready() {
            return;
        }
        std::thread::park_timeout(START_POLL);
    }
    let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
    panic!("Postgres did not start within {START_DEADLINE:?}: {log}");
}

/// What becomes of bytes on a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// They pass.
    Plugged,
    /// Statements vanish; both ends believe that all is well.
    Frozen,
    /// Connections end.
    Cut,
}

/// A cable between a client and a test's database, to be cut, frozen and healed.
#[derive(Debug)]
pub struct Cable {
    /// Connection URL through the cable.
    pub url: String,
    state: watch::Sender<State>,
    relay: JoinHandle<()>,
    _folder: TempDir,
}

impl Cable {
    /// Lays a cable to `db`. Must be called inside a Tokio runtime.
    ///
    /// # Panics
    /// When no socket can be made.
    pub fn to(db: &TestDb) -> Self {
        let server = &server().cluster.socket;
        let folder = tempfile::tempdir().expect("a folder for a socket can be made");
        let listener = UnixListener::bind(folder.path().join(SOCKET)).expect("a socket can be made");
        let url = db.url.replace(&server.display().to_string(), &folder.path().display().to_string());
        let (sender, state) = watch::channel(State::Plugged);
        #[expect(clippy::disallowed_methods, reason = "ended by the cable's own drop")]
        let relay = tokio::spawn(relay(listener, server.join(SOCKET), state));
        Self { url, state: sender, relay, _folder: folder }
    }

    /// Cuts every connection, and every new one as soon as it is made.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Swallows every statement and ends no connection, like a server that vanishes at the worst moment: a connection still
    /// looks good, and who uses it never gets an answer, not even after `heal`.
    pub fn freeze(&self) {
        self.state.send_replace(State::Frozen);
    }

    /// Lets bytes and new connections pass again.
    pub fn heal(&self) {
        self.state.send_replace(State::Plugged);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

async fn relay(listener: UnixListener, server: PathBuf, state: watch::Receiver<State>) {
    let mut pairs = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while pairs.try_join_next().is_some() {}
        pairs.spawn(pass(client, server.clone(), state.clone()));
    }
}

/// Passes bytes both ways until one side ends or the cable is cut.
async fn pass(client: UnixStream, server: PathBuf, mut state: watch::Receiver<State>) {
    let Ok(server) = UnixStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let questions = state.clone();
    tokio::select! {
        () = ask(&mut from_client, &mut to_server, questions) => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        _ = state.wait_for(|state| *state == State::Cut) => {}
    }
}

/// Passes what the client says. From the first freeze on only the message that asks whether the other end is there.
async fn ask(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, state: watch::Receiver<State>) {
    /// `Sync` of the protocol.
    const SYNC: &[u8] = b"S\0\0\0\x04";
    let mut buffer = vec![0; 64 * 1024];
    let mut is_mute = false;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        is_mute |= *state.borrow() == State::Frozen;
        let said = &buffer[..count];
        if (!is_mute || said == SYNC) && to.write_all(said).await.is_err() {
            return;
        }
    }
}
