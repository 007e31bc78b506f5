//! Opens a socket for ICMP echoes: an unprivileged datagram socket, else a raw one. Never builds or reads a message.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::packets::{Event, PacketSocket, Travel};
use crate::clock::Clock;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use sonde_proto::model::error_class::ErrorClass;

/// One sentence for the person who runs a probe that may not send echoes.
pub const ICMP_REMEDY: &str = "this probe may not open ICMP sockets: set the sysctl net.ipv4.ping_group_range to a \
    range that holds its group, or give it CAP_NET_RAW";

/// What a socket delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EchoMode {
    /// Only answers to what was sent through it; the kernel chooses the identifier.
    Datagram,
    /// Every ICMP message that reaches this machine; with the IP header in front for IPv4.
    Raw,
}

/// A socket for echoes to one address.
#[derive(Debug)]
pub struct EchoSocket {
    socket: PacketSocket,
    mode: EchoMode,
    target: IpAddr,
}

impl EchoSocket {
    /// Opens a datagram socket, or a raw one where that is not allowed.
    ///
    /// # Errors
    /// [`ErrorClass::IcmpUnavailable`] when neither is allowed, [`ErrorClass::ProbeError`] when this machine has no
    /// socket left, [`ErrorClass::IcmpNetUnreachable`] without a route to the target.
    pub(super) fn open(target: IpAddr, travel: Travel, clock: Clock) -> Result<Self, ErrorClass> {
        let (socket, mode) = match new_socket(target, Type::DGRAM) {
            Ok(socket) => (socket, EchoMode::Datagram),
            Err(_) => (new_socket(target, Type::RAW).map_err(|error| open_class(&error))?, EchoMode::Raw),
        };
        // A connected socket hears of its target only, and of what others say about the way there.
        socket.connect(SocketAddr::new(target, 0)).map_err(|error| send_class(&error))?;
        let socket = PacketSocket::new(socket, target.is_ipv6(), travel, clock).map_err(|_| ErrorClass::ProbeError)?;
        Ok(Self { socket, mode, target })
    }

    /// What this socket delivers.
    pub fn mode(&self) -> EchoMode {
        self.mode
    }

    /// Lets the packets that follow pass this many routers.
    ///
    /// # Errors
    /// [`ErrorClass::ProbeError`] when the kernel refuses it.
    pub fn set_hop_limit(&self, hops: u8) -> Result<(), ErrorClass> {
        self.socket.set_hop_limit(hops).map_err(|_| ErrorClass::ProbeError)
    }

    /// Hands one message to the kernel.
    ///
    /// # Errors
    /// The class of the failure.
    pub fn send(&self, message: &[u8]) -> Result<(), ErrorClass> {
        // Port 0: a raw IPv6 socket takes the port for a protocol number.
        self.socket.send(message, SocketAddr::new(self.target, 0)).map_err(|error| send_class(&error))
    }

    /// Waits for what happens next.
    ///
    /// # Errors
    /// The class of the failure.
    pub async fn next(&self, buffer: &mut [u8]) -> Result<Event, ErrorClass> {
        self.socket.next(buffer).await.map_err(|error| send_class(&error))
    }
}

/// Whether this process may open a socket for ICMP echoes.
pub fn may_send_echoes() -> bool {
    let loopback = IpAddr::from([127, 0, 0, 1]);
    new_socket(loopback, Type::DGRAM).or_else(|_| new_socket(loopback, Type::RAW)).is_ok()
}

fn new_socket(target: IpAddr, kind: Type) -> io::Result<std::net::UdpSocket> {
    let (domain, protocol) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn open_class(error: &io::Error) -> ErrorClass {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    if Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno)) {
        ErrorClass::ProbeError
    } else {
        ErrorClass::IcmpUnavailable
    }
}

/// The class of a failure to hand a packet to the kernel.
pub(super) fn send_class(error: &io::Error) -> ErrorClass {
    let Some(errno) = Errno::from_io_error(error) else {
        return ErrorClass::ProbeError;
    };
    if errno == Errno::NETUNREACH || errno == Errno::NETDOWN {
        ErrorClass::IcmpNetUnreachable
    } else if errno == Errno::HOSTUNREACH || errno == Errno::HOSTDOWN {
        ErrorClass::IcmpHostUnreachable
    } else if errno == Errno::CONNREFUSED {
        ErrorClass::IcmpPortUnreachable
    } else if errno == Errno::MSGSIZE {
        ErrorClass::IcmpTooBig
    } else {
        ErrorClass::ProbeError
    }
}
