//! The ClickHouse of the local mesh: the engine of its own, or the server that `SONDE_CLICKHOUSE_URL` names.

use std::process::Command;

use super::layout::{Layout, Ports};
use super::process::Process;
use super::steps::{HEALTH_REQUEST_PATIENCE, START_PATIENCE, answers, local, must_be_free, renew};
use super::world::CLICKHOUSE;
use crate::error::{CliError, Kind, Result};

/// Names the server to use instead of the mesh's own engine.
const VARIABLE: &str = "SONDE_CLICKHOUSE_URL";

/// Sees to it that a ClickHouse answers, and returns its URL.
pub(super) async fn ready(layout: &Layout, ports: Ports) -> Result<String> {
    let process = Process::at(layout, CLICKHOUSE);
    if let Some(url) = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty()) {
        must_answer(&url).await?;
        // The own engine of an earlier `up` would run on with nobody to ask it.
        process.stop(rustix::process::Signal::TERM).await?;
        return Ok(url);
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
    Ok(format!("http://{address}"))
}

/// Refuses a URL at which no ClickHouse answers, before anything is written that names it.
async fn must_answer(url: &str) -> Result<()> {
    let refuse = |what: &str| {
        CliError::new(Kind::Config, format!("{VARIABLE}: `{url}` {what}"))
            .hint("name a server as http://host:port, or unset the variable to use the mesh's own engine")
    };
    let parsed: http::Uri = url.parse().map_err(|_| refuse("is not a URL"))?;
    let (Some(scheme @ ("http" | "https")), Some(host)) = (parsed.scheme_str(), parsed.host()) else {
        return Err(refuse("is not a URL of the form http://host:port"));
    };
    let port = parsed.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let found = tokio::net::lookup_host(format!("{host}:{port}")).await;
    let addresses: Vec<_> = found.map_err(|fault| refuse(&format!("cannot be resolved: {fault}")))?.collect();
    for address in addresses {
        // Over TLS only the collector can ask; that something listens is all that is seen here.
        let connect = tokio::net::TcpStream::connect(address);
        let is_there = match scheme {
            "https" => matches!(tokio::time::timeout(HEALTH_REQUEST_PATIENCE, connect).await, Ok(Ok(_))),
            _ => answers(address, "/ping").await,
        };
        if is_there {
            return Ok(());
        }
    }
    Err(CliError { kind: Kind::Unavailable, ..refuse("does not answer as a ClickHouse server does") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_that_leads_nowhere_is_refused_by_name() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let closed = format!("http://{closed}");
        for (url, kind) in [("nonsense", Kind::Config), ("ftp://x", Kind::Config), (&*closed, Kind::Unavailable)] {
            let fault = must_answer(url).await.unwrap_err();
            assert!(fault.message.contains(VARIABLE) && fault.message.contains(url), "{}", fault.message);
            assert_eq!(fault.kind, kind, "{url}");
        }
    }
}
