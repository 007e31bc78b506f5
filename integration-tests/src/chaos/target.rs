//! What the laboratory's probes measure: a server that takes connections and says nothing.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Connections at a time; those beyond wait in the system's queue. Each lives for less than a second.
const CONNECTIONS_MAX: usize = 1_024;
/// Longest life of a connection.
const LIFE_MAX: Duration = Duration::from_secs(2);

/// Serves until the process ends.
///
/// # Errors
/// When the address cannot be used.
pub async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("{address} cannot be used"))?;
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        connections.spawn(async move {
            // The client closes first; what it sends does not matter.
            let _ = tokio::time::timeout(LIFE_MAX, stream.read(&mut [0; 16])).await;
        });
    }
}
