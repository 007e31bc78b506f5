//! A socket whose datagrams go to one address and to each of a row of ports, every one of which was vetted. Never sends to
//! any other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::ops::RangeInclusive;

use sonde_proto::model::error_class::ErrorClass;

use super::echo::send_class;
use super::packets::{Event, PacketSocket, Travel};
use super::{Guard, Vetted};
use crate::clock::Clock;

/// The socket.
#[derive(Debug)]
pub struct PortSweep {
    socket: PacketSocket,
    target: IpAddr,
    ports: RangeInclusive<u16>,
}

impl Guard {
    /// Makes a socket for datagrams to the `ports` of the address of `target`.
    ///
    /// # Errors
    /// [`ErrorClass::AddressForbidden`] when one of the ports may not be dialled there, [`ErrorClass::ProbeError`] when
    /// this machine has no socket left.
    pub fn sweep(&self, target: Vetted, ports: RangeInclusive<u16>, clock: Clock) -> Result<PortSweep, ErrorClass> {
        let target = target.addr().ip();
        for port in ports.clone() {
            self.vet(SocketAddr::new(target, port))?;
        }
        let any: IpAddr = match target {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = StdSocket::bind((any, 0)).map_err(|_| ErrorClass::ProbeError)?;
        socket.set_nonblocking(true).map_err(|_| ErrorClass::ProbeError)?;
        let socket = PacketSocket::new(socket, target.is_ipv6(), Travel::default(), clock);
        Ok(PortSweep { socket: socket.map_err(|_| ErrorClass::ProbeError)?, target, ports })
    }
}

impl PortSweep {
    /// Lets the packets that follow pass this many routers.
    ///
    /// # Errors
    /// [`ErrorClass::ProbeError`] when the kernel refuses it.
    pub fn set_hop_limit(&self, hops: u8) -> Result<(), ErrorClass> {
        self.socket.set_hop_limit(hops).map_err(|_| ErrorClass::ProbeError)
    }

    /// Hands one datagram for the port of this place in the row to the kernel.
    ///
    /// # Errors
    /// The class of the failure; [`ErrorClass::ProbeError`] for a place beyond the row.
    pub fn send(&self, nth: u16, payload: &[u8]) -> Result<(), ErrorClass> {
        let port = self.ports.start().checked_add(nth).filter(|port| self.ports.contains(port));
        let to = SocketAddr::new(self.target, port.ok_or(ErrorClass::ProbeError)?);
        self.socket.send(payload, to).map_err(|error| send_class(&error))
    }

    /// Waits for what happens next.
    ///
    /// # Errors
    /// The class of the failure.
    pub async fn next(&self, buffer: &mut [u8]) -> Result<Event, ErrorClass> {
        self.socket.next(buffer).await.map_err(|error| send_class(&error))
    }
}
