//! The ClickHouse engine of one test: a process, a data folder and a port of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Process, program};
use crate::wait::until;

/// Loading the library from a cold disk takes seconds on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

/// Name of the data folder in the test's own folder.
const DATA: &str = "data";

/// The collector's own client for the engine at `url`; does not dial.
///
/// # Panics
/// When `url` is none.
pub fn client(url: &str) -> sonde_collector::clickhouse::Client {
    let config = sonde_collector::config::ClickHouse {
        url: url.parse().expect("the engine's URL is one"),
        database: "sonde".to_owned(),
        user: "default".to_owned(),
        password_file: None,
        cluster: None,
    };
    sonde_collector::clickhouse::Client::connect(&config).expect("there is no password file that could be missing")
}

/// A running engine. Killed and removed when dropped.
#[derive(Debug)]
pub struct Engine {
    process: Process,
    address: String,
    url: String,
    options: Vec<String>,
    data: PathBuf,
    home: TempDir,
}

/// What the engine answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// HTTP headers.
    pub headers: HeaderMap,
    /// The body as it came, not decoded.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the answer is text")
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

impl Engine {
    /// Starts an engine on an empty data folder and waits until it listens.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with further options of the command line.
    ///
    /// # Panics
    /// When it does not listen in time; its log says why.
    pub async fn start_with(options: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let (process, address) = launch(home.path(), "127.0.0.1:0", &options).await;
        Self { process, url: format!("http://{address}"), address, options, data: home.path().join(DATA), home }
    }

    /// `http://127.0.0.1:PORT`, the same before and after a restart.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Kills it with -9.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Stops its threads, so that it holds its connections and answers nothing.
    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets its threads go on.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Asks it to stop and returns its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.process.signal(Signal::TERM);
        self.process.wait()
    }

    /// Starts it again on the same folder and port; it must have ended before.
    ///
    /// # Panics
    /// When it does not listen in time; its log says why.
    pub async fn restart(&mut self) {
        let (process, address) = launch(self.home.path(), &self.address, &self.options).await;
        assert_eq!(address, self.address);
        self.process = process;
    }

    /// Sends a request with a client that is closed afterwards.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("the test builds a request");
        let response = client.request(request).await.expect("the engine answers");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("the answer is complete").to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    /// Runs a statement that is sent as the body of a POST.
    pub async fn run(&self, sql: &str) -> Reply {
        self.request(Method::POST, "/", &[], sql.to_owned()).await
    }

    /// Runs a statement and returns its answer.
    ///
    /// # Panics
    /// When it fails.
    pub async fn ask(&self, sql: &str) -> String {
        let reply = self.run(sql).await;
        assert_eq!(reply.status, StatusCode::OK, "{sql}: {}", reply.text());
        reply.text().trim_end().to_owned()
    }
}

async fn launch(home: &Path, listen: &str, options: &[String]) -> (Process, String) {
    let port_file = home.join("address");
    // A file of an earlier life would name a server that is not there yet.
    let _absent_at_first = std::fs::remove_file(&port_file);
    let mut command = Command::new(program("sonde-clickhouse"));
    command.arg("--data").arg(home.join(DATA)).args(["--listen", listen]).arg("--port-file").arg(&port_file);
    command.args(options);
    let mut process = Process::start(command, &home.join("engine.log"));
    let address = until(START_MAX, "the engine listens", async || {
        assert!(process.is_alive(), "the engine ended:\n{}", process.log());
        std::fs::read_to_string(&port_file).ok().map(|text| text.trim_end().to_owned())
    })
    .await;
    (process, address)
}
