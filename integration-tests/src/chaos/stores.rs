//! The two stores of the laboratory: how they are made, started, and asked.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sonde_ops::mesh::postgres::{Cluster, DATABASE, Installation, ROLE};

use super::enter::{is_real_root, program};
use super::net::Net;
use super::party::{MESH_NETWORK, Party, ROUTER, port};

/// Longest wait for an answer of the engine.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// Lets the oracle's sabotage delete rows, which the product never may.
const ADMIN_TOKEN: &str = "the-laboratory-may-do-anything";
/// User inside the namespace in which Postgres runs when this user is only root in name: any but root.
const ANY_USER: &str = "1000";

/// The engine's command.
///
/// # Errors
/// When it was not built.
pub fn engine(net: &Net, dir: &Path) -> anyhow::Result<Command> {
    let mut command = net.command(Party::Engine, program("sonde-clickhouse")?.as_os_str());
    let listen = SocketAddr::from((Party::Engine.address(), port::ENGINE)).to_string();
    let token = dir.join("engine.token");
    fs::write(&token, ADMIN_TOKEN)?;
    command.arg("--data").arg(dir.join("engine")).args(["--listen", &listen, "--allow-remote"]);
    command.arg("--admin-token-file").arg(token);
    Ok(command)
}

/// Base URL of the engine.
pub fn engine_url() -> String {
    format!("http://{}:{}", Party::Engine.address(), port::ENGINE)
}

/// A Postgres cluster that listens on an address of the laboratory.
#[derive(Debug)]
pub struct Postgres {
    cluster: Cluster,
}

impl Postgres {
    /// Makes the cluster in `dir`.
    ///
    /// # Errors
    /// When Postgres is not installed or `initdb` fails.
    pub fn create(net: &Net, dir: &Path) -> anyhow::Result<Self> {
        let installation = Installation::find().map_err(|fault| anyhow::anyhow!("{}", fault.message))?;
        let folder = dir.join("postgres");
        fs::create_dir(&folder)?;
        if is_real_root() {
            installation.folder(&folder).map_err(|fault| anyhow::anyhow!("{}", fault.message))?;
        }
        let postgres = Self { cluster: Cluster { installation, data: folder.join("data"), socket: folder } };
        let mut arguments: Vec<OsString> =
            ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--username", ROLE, "--pgdata"]
                .map(OsString::from)
                .to_vec();
        arguments.push(postgres.cluster.data.clone().into_os_string());
        let made = postgres.within(net, "initdb", &arguments).output()?;
        anyhow::ensure!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr).trim());
        postgres.certify()?;
        let trust = format!("hostssl all all {MESH_NETWORK} trust\nhostssl all all {ROUTER}/32 trust\n");
        let rules = postgres.cluster.data.join("pg_hba.conf");
        fs::write(&rules, fs::read_to_string(&rules)? + &trust)?;
        Ok(postgres)
    }

    /// The server's command. Safe when an earlier server was killed.
    ///
    /// # Errors
    /// When a server uses the folder.
    pub fn serve(&self, net: &Net) -> anyhow::Result<Command> {
        let serve = self.cluster.serve().map_err(|fault| anyhow::anyhow!("{}", fault.message))?;
        let mut arguments: Vec<OsString> = serve.get_args().map(OsStr::to_owned).collect();
        let listen = format!("listen_addresses={}", Party::Postgres.address());
        // Processes are killed here, never the machine: what was written stays written without fsync.
        for setting in [listen.as_str(), "ssl=on", "fsync=off", "full_page_writes=off", "max_wal_size=128MB"] {
            arguments.extend(["-c", setting].map(OsString::from));
        }
        Ok(self.within(net, "postgres", &arguments))
    }

    /// Makes the product's database; the server must be up.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn create_database(&self, net: &Net) -> anyhow::Result<()> {
        let arguments = ["-h", &self.cluster.socket.display().to_string(), "-U", ROLE, DATABASE].map(OsString::from);
        let made = self.within(net, "createdb", &arguments).output()?;
        anyhow::ensure!(made.status.success(), "createdb failed: {}", String::from_utf8_lossy(&made.stderr).trim());
        Ok(())
    }

    /// Whether it accepts connections.
    pub fn is_ready(&self) -> bool {
        self.cluster.is_ready()
    }

    /// Connection URL of the cluster in `dir`. Over a network, the product insists on TLS.
    pub fn url(dir: &Path) -> String {
        let (address, port, ca) = (Party::Postgres.address(), port::POSTGRES, ca_file(dir));
        format!("postgres://{ROLE}@{address}:{port}/{DATABASE}?sslmode=verify-full&sslrootcert={}", ca.display())
    }

    /// Gives the server a certificate for its address, from a CA of its own.
    fn certify(&self) -> anyhow::Result<()> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = ca.self_signed(&ca_key)?;
        fs::write(ca_file(self.cluster.socket.parent().context("the cluster lies in a folder")?), certificate.pem())?;
        let key = KeyPair::generate()?;
        let server = CertificateParams::new(vec![Party::Postgres.address().to_string()])?;
        let signed = server.signed_by(&key, &Issuer::new(ca, ca_key))?;
        fs::write(self.cluster.data.join("server.crt"), signed.pem())?;
        let key_file = self.cluster.data.join("server.key");
        fs::write(&key_file, key.serialize_pem())?;
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600))?;
        for name in ["server.crt", "server.key"] {
            if let Some(user) = self.cluster.installation.run_as().filter(|_| is_real_root()) {
                chown(self.cluster.data.join(name), Some(user.uid), Some(user.gid))?;
            }
        }
        Ok(())
    }

    /// A program of the installation in the network of Postgres, as a user who is not root.
    fn within(&self, net: &Net, name: &str, arguments: &[OsString]) -> Command {
        let path = PathBuf::from(self.cluster.installation.command(name).get_program());
        let mut command = net.enter(Party::Postgres);
        match self.cluster.installation.run_as().filter(|_| is_real_root()) {
            Some(user) => command.arg(format!("--setuid={}", user.uid)).arg(format!("--setgid={}", user.gid)).arg("--"),
            None => command.args(["--", "unshare", "--user"]).args([
                format!("--map-user={ANY_USER}"),
                format!("--map-group={ANY_USER}"),
                "--".to_owned(),
            ]),
        };
        command.arg(path).args(arguments).env("LC_ALL", "C.UTF-8").current_dir("/");
        command
    }
}

fn ca_file(dir: &Path) -> PathBuf {
    dir.join("postgres-ca.pem")
}

/// Asks the engine in its own language; what comes back are rows of columns.
#[derive(Debug, Clone)]
pub struct Asker {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: String,
}

impl Default for Asker {
    fn default() -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            uri: format!("{}/?database=sonde&default_format=TabSeparated", engine_url()),
        }
    }
}

impl Asker {
    /// Runs a query and returns its rows.
    ///
    /// # Errors
    /// When the engine is away or refuses.
    pub async fn rows(&self, query: &str) -> anyhow::Result<Vec<Vec<String>>> {
        let request = Request::post(&self.uri)
            .header("X-Sonde-Admin", ADMIN_TOKEN)
            .body(Full::new(Bytes::from(query.to_owned())))?;
        let answer = async {
            let response = self.client.request(request).await.context("the engine does not answer")?;
            let status = response.status();
            let body = response.into_body().collect().await.context("the engine's answer is cut")?.to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            anyhow::ensure!(status == StatusCode::OK, "the engine refused: {}: {query}", text.trim());
            Ok(text)
        };
        let text = tokio::time::timeout(ANSWER_MAX, answer).await.context("the engine is silent")??;
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// Runs a query that gives one number.
    ///
    /// # Errors
    /// As [`Asker::rows`], and when it gives something else.
    pub async fn number(&self, query: &str) -> anyhow::Result<u64> {
        let rows = self.rows(query).await?;
        let cell = rows.first().and_then(|row| row.first()).with_context(|| format!("no answer to: {query}"))?;
        cell.parse().with_context(|| format!("`{cell}` is no number: {query}"))
    }
}
