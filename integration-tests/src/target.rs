//! A server to measure, started by hand in a test. Loopback only.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use sonde_ops::demo::{Authority, Behaviour, Target, Validity};

fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// A plain HTTP server that answers at once.
///
/// # Panics
/// When no port is free.
pub async fn http() -> Target {
    Target::bind(anywhere(), Behaviour::Healthy, None).await.expect("a port is free")
}

/// A plain HTTP server that answers after `delay`.
///
/// # Panics
/// When no port is free.
pub async fn slow(delay: Duration) -> Target {
    Target::bind(anywhere(), Behaviour::Slow(delay), None).await.expect("a port is free")
}

/// An HTTPS server for `localhost`; whoever trusts `ca.pem` in `dir` can verify it, unless it has expired.
///
/// # Panics
/// When no port is free or `dir` cannot be written.
pub async fn https(dir: &Path, validity: Validity) -> Target {
    let authority = Authority::load_or_create(dir).expect("a CA can be made");
    let tls = authority.server_config("localhost", validity).expect("a certificate can be made");
    Target::bind(anywhere(), Behaviour::Healthy, Some(tls)).await.expect("a port is free")
}
