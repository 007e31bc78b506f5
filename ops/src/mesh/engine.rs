//! The ClickHouse of the local mesh: the engine of its own, or the server that `SONDE_CLICKHOUSE_URL` names.

use std::process::Command;

use percent_encoding::percent_decode_str;
use url::Url;

use super::layout::{Layout, Ports};
use super::process::Process;
use super::steps::{HEALTH_REQUEST_PATIENCE, START_PATIENCE, answers, local, must_be_free, renew};
use super::world::CLICKHOUSE;
use crate::error::{CliError, Kind, Result};

/// Names the server to use instead of the mesh's own engine.
const VARIABLE: &str = "SONDE_CLICKHOUSE_URL";

/// A ClickHouse server and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// `http://host:port`, without credentials.
    pub(super) url: String,
    /// User, when one was named.
    pub(super) user: Option<String>,
    /// Password, when one was named.
    pub(super) password: Option<String>,
    /// The URL as it was named, with credentials: what a user's own clients need.
    pub(super) named: String,
}

/// Sees to it that a ClickHouse answers, and says where it is.
pub(super) async fn ready(layout: &Layout, ports: Ports) -> Result<Server> {
    let process = Process::at(layout, CLICKHOUSE);
    if let Some(named) = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty()) {
        let server = Server::parse(&named)?;
        server.must_answer().await?;
        // The own engine of an earlier `up` would run on with nobody to ask it.
        process.stop(rustix::process::Signal::TERM).await?;
        return Ok(server);
    }
    let address = local(ports.clickhouse);
    let serve = || {
        let mut command = Command::new(layout.program("sonde-clickhouse"));
        command.arg("--data").arg(layout.path("clickhouse")).arg("--listen").arg(address.to_string());
        command
    };
    renew(&process, &serve()).await?;
    let command = || {
        must_be_free(layout, "clickhouse", ports.clickhouse)?;
        Ok(serve())
    };
    process.ensure(None, START_PATIENCE, command, async || answers(address, "/ping").await).await?;
    let url = format!("http://{address}");
    Ok(Server { named: url.clone(), url, user: None, password: None })
}

/// A refusal that names the variable, never its password.
fn refuse(kind: Kind, what: &str) -> CliError {
    CliError::new(kind, format!("{VARIABLE}: {what}"))
        .hint("name a server as http://host:port or http://user:password@host:port, or unset the variable to use the mesh's own engine")
}

impl Server {
    fn parse(named: &str) -> Result<Self> {
        let form = || refuse(Kind::Config, "is not a URL of the form http://host:port");
        let mut url = Url::parse(named).map_err(|_| form())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(form());
        }
        let decode =
            |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| form());
        let user = Some(url.username()).filter(|user| !user.is_empty()).map(decode).transpose()?;
        let password = url.password().map(decode).transpose()?;
        // An http URL has a host, so credentials can always be taken out of it.
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        cleared.map_err(|()| form())?;
        Ok(Self { url: url.as_str().trim_end_matches('/').to_owned(), user, password, named: named.to_owned() })
    }

    /// Refuses a server that does not answer, before anything is written that names it.
    async fn must_answer(&self) -> Result<()> {
        let url = Url::parse(&self.url).map_err(|fault| refuse(Kind::Config, &fault.to_string()))?;
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(80));
        let found = tokio::net::lookup_host(format!("{host}:{port}")).await;
        let addresses =
            found.map_err(|fault| refuse(Kind::Config, &format!("{} cannot be resolved: {fault}", self.url)))?;
        for address in addresses {
            // Over TLS only the collector can ask; that something listens is all that is seen here.
            let connect = tokio::net::TcpStream::connect(address);
            let is_there = match url.scheme() {
                "https" => matches!(tokio::time::timeout(HEALTH_REQUEST_PATIENCE, connect).await, Ok(Ok(_))),
                _ => answers(address, "/ping").await,
            };
            if is_there {
                return Ok(());
            }
        }
        Err(refuse(Kind::Unavailable, &format!("{} does not answer as a ClickHouse server does", self.url)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_that_leads_nowhere_is_refused_by_name() {
        for nonsense in ["nonsense", "ftp://x", "http://"] {
            let fault = Server::parse(nonsense).unwrap_err();
            assert!(fault.message.contains(VARIABLE), "{}", fault.message);
            assert_eq!(fault.kind, Kind::Config, "{nonsense}");
        }
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let server = Server::parse(&format!("http://me:s3cret@{closed}")).unwrap();
        let fault = server.must_answer().await.unwrap_err();
        assert_eq!(fault.kind, Kind::Unavailable);
        assert!(fault.message.contains(&closed.to_string()) && !fault.message.contains("s3cret"), "{}", fault.message);
    }

    #[test]
    fn credentials_are_taken_out_of_the_url() {
        let server = Server::parse("https://me:p%40ss@db.example:8443/").unwrap();
        assert_eq!(server.url, "https://db.example:8443");
        assert_eq!((server.user.as_deref(), server.password.as_deref()), (Some("me"), Some("p@ss")));
        assert_eq!(server.named, "https://me:p%40ss@db.example:8443/");
    }
}
