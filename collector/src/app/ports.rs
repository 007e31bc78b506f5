//! Binds the four ports, says where they are, and opens them. Never accepts anything.
//!
//! Between binding and opening the stores are waited for. A port that listened meanwhile would take connections that nobody
//! answers, and a probe would hang on them for as long as its patience lasts; so until then everybody is refused at once and
//! tries another collector.

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
    mesh: TcpSocket,
    enrol: TcpSocket,
    admin: TcpSocket,
    web: TcpSocket,
    endpoints: Endpoints,
}

/// The open ports.
pub(super) struct Listeners {
    pub(super) mesh: TcpListener,
    pub(super) enrol: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) web: TcpListener,
}

/// Where the ports really are.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Endpoints {
    pub(super) mesh: SocketAddr,
    pub(super) enrol: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) web: SocketAddr,
}

impl Endpoints {
    /// Every port, in no particular order.
    pub(super) fn all(&self) -> [SocketAddr; 4] {
        [self.mesh, self.enrol, self.admin, self.web]
    }
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

    /// Opens all four.
    ///
    /// # Errors
    /// When somebody else has begun to listen on one meanwhile.
    pub(super) fn open(self) -> anyhow::Result<Listeners> {
        Ok(Listeners {
            mesh: open("listen.mesh", self.mesh)?,
            enrol: open("listen.enrol", self.enrol)?,
            admin: open("listen.admin", self.admin)?,
            web: open("listen.web", self.web)?,
        })
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

fn bind(field: &str, address: SocketAddr) -> anyhow::Result<TcpSocket> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for connections of the last life to fade.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    bound().map_err(|error| refused(field, address, &error))
}

fn open(field: &str, socket: TcpSocket) -> anyhow::Result<TcpListener> {
    let address = socket.local_addr()?;
    socket.listen(BACKLOG).map_err(|error| refused(field, address, &error))
}

fn refused(field: &str, address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
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
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    fn anywhere() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_field() {
        let taken = open("listen.mesh", bind("listen.mesh", anywhere()).unwrap()).unwrap();
        let address = taken.local_addr().unwrap();
        let message = bind("listen.admin", address).unwrap_err().to_string();
        assert!(message.starts_with(&format!("listen.admin: {address} is in use")), "{message}");
    }

    #[tokio::test]
    async fn a_port_that_somebody_opened_meanwhile_is_named_with_its_field() {
        let (first, address) = {
            let socket = bind("listen.mesh", anywhere()).unwrap();
            let address = socket.local_addr().unwrap();
            (socket, address)
        };
        let second = bind("listen.mesh", address).unwrap();
        let _taken = open("listen.mesh", second).unwrap();
        let message = open("listen.mesh", first).unwrap_err().to_string();
        assert!(message.starts_with(&format!("listen.mesh: {address} is in use")), "{message}");
    }

    #[tokio::test]
    async fn nobody_hangs_on_a_port_that_is_not_open_yet() {
        let ports =
            Ports::bind(&Listen { mesh: anywhere(), enrol: anywhere(), admin: anywhere(), web: anywhere() }).unwrap();
        let Endpoints { mesh, enrol, admin, web } = ports.endpoints();
        for address in [mesh, enrol, admin, web] {
            let refused = TcpStream::connect(address).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{address}");
        }
        let _listeners = ports.open().unwrap();
        for address in [mesh, enrol, admin, web] {
            TcpStream::connect(address).await.unwrap();
        }
    }

    #[test]
    fn the_host_of_an_address_is_without_brackets() {
        assert_eq!(host("mesh.example.org:7401"), "mesh.example.org");
        assert_eq!(host("[::1]:7401"), "::1");
    }
}
