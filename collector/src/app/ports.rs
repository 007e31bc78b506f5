//! Binds the four ports and says where they are. Never accepts anything.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::anyhow;
use serde::Serialize;
use tokio::net::{TcpListener, TcpSocket};

use crate::config::{Config, Listen};

/// Connections that the kernel keeps for us until we accept them; a fleet that reconnects at once fits.
const BACKLOG: u32 = 1_024;

/// The bound ports.
pub(super) struct Ports {
    pub(super) mesh: TcpListener,
    pub(super) enrol: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) web: TcpListener,
    endpoints: Endpoints,
}

/// Where the ports really are.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Endpoints {
    pub(super) mesh: SocketAddr,
    pub(super) enrol: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) web: SocketAddr,
}

impl Ports {
    /// Binds all four.
    ///
    /// # Errors
    /// When one is in use or not ours, with the field that names it.
    pub(super) fn bind(listen: &Listen) -> anyhow::Result<Self> {
        let mesh = bind("listen.mesh", listen.mesh)?;
        let enrol = bind("listen.enrol", listen.enrol)?;
        let admin = bind("listen.admin", listen.admin)?;
        let web = bind("listen.web", listen.web)?;
        let endpoints = Endpoints {
            mesh: mesh.local_addr()?,
            enrol: enrol.local_addr()?,
            admin: admin.local_addr()?,
            web: web.local_addr()?,
        };
        Ok(Self { mesh, enrol, admin, web, endpoints })
    }

    /// Where they are.
    pub(super) fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    /// Every name and address by which somebody may dial the TLS ports.
    pub(super) fn certificate_names(&self, config: &Config) -> Vec<String> {
        let mut names: BTreeSet<String> = config.advertise.names.iter().cloned().collect();
        let advertised = [&config.advertise.mesh, &config.advertise.enrol];
        names.extend(advertised.into_iter().flatten().map(|address| host(address).to_owned()));
        let bound = [self.endpoints.mesh, self.endpoints.enrol, self.endpoints.admin].map(|address| address.ip());
        names.extend(bound.iter().filter(|ip| !ip.is_unspecified()).map(ToString::to_string));
        if bound.iter().any(|ip| ip.is_loopback() || ip.is_unspecified()) {
            names.insert("localhost".to_owned());
        }
        names.into_iter().collect()
    }
}

fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn bind(field: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for connections of the last life to fade.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error: std::io::Error| {
        let kind = error.kind();
        if kind == ErrorKind::AddrInUse {
            anyhow!("{field}: {address} is in use by another process; stop that process or choose another port")
        } else if kind == ErrorKind::AddrNotAvailable {
            anyhow!("{field}: {address} is not an address of this machine; choose one that is")
        } else if kind == ErrorKind::PermissionDenied {
            anyhow!("{field}: this user may not listen on {address}; choose a port above 1023")
        } else {
            anyhow!("{field}: {address} cannot be listened on: {error}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_field() {
        let taken = bind("listen.mesh", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = taken.local_addr().unwrap();
        let message = bind("listen.admin", address).unwrap_err().to_string();
        assert!(message.starts_with(&format!("listen.admin: {address} is in use")), "{message}");
    }

    #[test]
    fn the_host_of_an_address_is_without_brackets() {
        assert_eq!(host("mesh.example.org:7401"), "mesh.example.org");
        assert_eq!(host("[::1]:7401"), "::1");
    }
}
