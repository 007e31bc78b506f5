//! The only dialer of the probe: opens every socket that a check uses, and only to an address that was vetted first.
//! Never decides what is said over a socket, and never follows a name a second time.
//!
//! A name is resolved once; an address of the answer is dialled only after it was vetted, and no other is. A [`Vetted`]
//! can be made here only, so a check cannot connect past the guard, and the resolver of a check is vetted like its target.

mod echo;
mod fault;
mod lookup;
mod own;
mod packets;
mod resolve;
mod stream;
mod sweep;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use sonde_proto::model::address::Policy;
use sonde_proto::model::check::Reach;
use sonde_proto::model::error_class::ErrorClass;
use tokio::net::{TcpStream, UdpSocket};

pub use echo::{EchoMode, EchoSocket, ICMP_REMEDY, may_send_echoes};
pub(crate) use fault::connect_class;
pub(crate) use lookup::rcode_class;
pub use own::OwnEndpoints;
pub use packets::{Complaint, Event, PacketSocket, Travel};
pub use stream::Stream;
pub(crate) use stream::{poll_send_datagram, send_datagram, try_send_datagram};
pub use sweep::PortSweep;

use crate::clock::Clock;

use resolve::NameService;

/// An address that may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vetted(SocketAddr);

impl Vetted {
    /// The address.
    pub fn addr(self) -> SocketAddr {
        self.0
    }
}

/// Vets, resolves and opens sockets.
#[derive(Debug)]
pub struct Guard {
    policy: Policy,
    own: OwnEndpoints,
    names: NameService,
}

impl Guard {
    /// A guard that follows `policy` and resolves names with `resolver`, or with the servers of `/etc/resolv.conf`
    /// when it is `None`. Reads the hosts file once.
    pub fn new(policy: Policy, resolver: Option<SocketAddr>) -> Self {
        Self { policy, own: OwnEndpoints::default(), names: NameService::new(resolver) }
    }

    /// The same guard, which also refuses what `own` holds, now and later.
    #[must_use]
    pub fn sparing(self, own: OwnEndpoints) -> Self {
        Self { own, ..self }
    }

    /// Admits an address, or refuses it as `address_forbidden`.
    ///
    /// # Errors
    /// [`ErrorClass::AddressForbidden`].
    pub fn vet(&self, addr: SocketAddr) -> Result<Vetted, ErrorClass> {
        match self.own.vet(addr).and_then(|()| self.policy.vet(addr)) {
            Ok(()) => Ok(Vetted(addr)),
            Err(forbidden) => {
                tracing::debug!(%forbidden, "refused to dial");
                Err(ErrorClass::AddressForbidden)
            }
        }
    }

    /// The server that the probe's own names are resolved with. It is the operator's choice and not the check's, so
    /// it may lie in a private network.
    pub fn own_resolver(&self) -> Vetted {
        self.names.first_server()
    }

    /// The addresses of `name` by way of `reach`, in the order of the answer, at least one. Only [`Self::vet`] makes
    /// one of them an address that can be dialled.
    ///
    /// With one address to measure, IPv4 addresses are asked for first, IPv6 addresses only when there are none: one
    /// lookup is what a run measures, and there is no race between families. With all of them, both families are asked
    /// for at once.
    ///
    /// # Errors
    /// A `dns_*` class, or [`ErrorClass::AddressForbidden`] when the resolver of `reach` may not be asked.
    pub async fn addresses(&self, name: &str, reach: Reach) -> Result<Vec<IpAddr>, ErrorClass> {
        let resolver = reach.resolver.map(|server| self.vet(server)).transpose()?;
        self.names.addresses(name, reach, resolver).await
    }

    /// Resolves `name` by way of `reach` and returns the first address that may be dialled.
    ///
    /// # Errors
    /// As [`Self::addresses`], and [`ErrorClass::AddressForbidden`] when the answer holds none that may be dialled.
    pub async fn resolve(&self, name: &str, port: u16, reach: Reach) -> Result<Vetted, ErrorClass> {
        let addresses = self.addresses(name, reach).await?;
        let vetted = addresses.into_iter().find_map(|ip| self.vet(SocketAddr::new(ip, port)).ok());
        vetted.ok_or(ErrorClass::AddressForbidden)
    }

    /// Makes a TCP socket without Nagle's delay, ready to connect.
    ///
    /// # Errors
    /// [`ErrorClass::ProbeError`] when this machine has no socket left.
    pub fn tcp(&self, target: Vetted) -> Result<Dial, ErrorClass> {
        open_tcp(target)
    }

    /// Makes a UDP socket that talks to `target` only.
    ///
    /// # Errors
    /// A `connect_*` class, or [`ErrorClass::ProbeError`] when this machine has no socket left.
    pub async fn udp(&self, target: Vetted) -> Result<UdpSocket, ErrorClass> {
        open_udp(target).await
    }

    /// Makes a socket for ICMP echoes to `target`.
    ///
    /// # Errors
    /// As [`EchoSocket::open`].
    pub fn echo(&self, target: Vetted, travel: Travel, clock: Clock) -> Result<EchoSocket, ErrorClass> {
        EchoSocket::open(target.0.ip(), travel, clock)
    }
}

fn open_tcp(target: Vetted) -> Result<Dial, ErrorClass> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(target.0), kind, Some(Protocol::TCP));
    let socket = socket.map_err(|_| ErrorClass::ProbeError)?;
    socket.set_tcp_nodelay(true).map_err(|_| ErrorClass::ProbeError)?;
    Ok(Dial { socket, target })
}

async fn open_udp(target: Vetted) -> Result<UdpSocket, ErrorClass> {
    let any: IpAddr = match target.0 {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.map_err(|_| ErrorClass::ProbeError)?;
    socket.connect(target.0).await.map_err(|error| connect_class(&error))?;
    // A closed port of this machine from which the kernel happened to send would answer itself.
    match socket.local_addr() {
        Ok(own) if own == target.0 => Err(ErrorClass::ConnectRefused),
        Ok(_) => Ok(socket),
        Err(_) => Err(ErrorClass::ProbeError),
    }
}

/// A TCP socket that has not been connected yet, so that the connection alone can be timed.
#[derive(Debug)]
pub struct Dial {
    socket: Socket,
    target: Vetted,
}

impl Dial {
    /// Connects.
    ///
    /// # Errors
    /// The system's error; [`connect_class`] names its class.
    pub async fn connect(self) -> io::Result<Stream> {
        let begun = match self.begin() {
            // Between two sockets of one machine the handshake is over by now: asking again says so, while waiting to
            // be told would measure our own event loop.
            Err(Errno::INPROGRESS) => self.begin(),
            begun => begun,
        };
        let is_done = match begun {
            Ok(()) | Err(Errno::ISCONN) => true,
            Err(Errno::ALREADY | Errno::INPROGRESS | Errno::INTR) => false,
            Err(error) => return Err(error.into()),
        };
        let stream = TcpStream::from_std(self.socket.into())?;
        if !is_done {
            stream.writable().await?;
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
        }
        // A closed port of this machine from which the kernel happened to dial connects to itself.
        if self.target.0.ip().is_loopback() && stream.local_addr()? == self.target.0 {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(Stream::new(stream))
    }

    fn begin(&self) -> Result<(), Errno> {
        rustix::net::connect(&self.socket, &self.target.0)
    }
}
