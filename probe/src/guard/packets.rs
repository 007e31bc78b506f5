//! A datagram socket that tells what the kernel knows: when a datagram left and when one came, how many routers it may
//! still have passed, and what routers and targets complained about. Never knows what a datagram means.
//!
//! Instants are the kernel's own (`SO_TIMESTAMPING`), taken where a packet meets the network device, so that they hold
//! nothing of the time that this process needs to wake up. Complaints come from the socket's error queue
//! (`IP_RECVERR`), which needs no privilege.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, TimestampingFlag, recvmsg,
    setsockopt, sockopt,
};
use rustix::io::Errno;
use rustix::net::sockopt as options;
use sonde_proto::model::time::Mono;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::clock::Clock;

/// Every control message that may come at once: stamps, hop limit, and a complaint with an address.
const CONTROL_BYTES: usize = 512;

/// How packets of a socket travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Travel {
    /// Routers that may be passed; the system's choice when `None`.
    pub hop_limit: Option<u8>,
    /// Whether a packet that is too large is reported instead of cut in pieces.
    pub dont_fragment: bool,
}

/// What happened to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A datagram came; its bytes are in the buffer.
    Datagram {
        /// Bytes in the buffer.
        length: usize,
        /// Who sent it.
        from: SocketAddr,
        /// When the kernel received it.
        at: Mono,
        /// What was left of its hop limit.
        hop_limit: Option<u8>,
    },
    /// A datagram was handed to the network device.
    Left {
        /// Counted from 0 over all that were sent through the socket.
        nth: u32,
        /// When.
        at: Mono,
    },
    /// Somebody says that a datagram did not arrive; what is quoted of its payload is in the buffer.
    Undelivered {
        /// Bytes in the buffer.
        length: usize,
        /// Where it was sent to.
        to: Option<SocketAddr>,
        /// Who says so; `None` for this machine.
        by: Option<IpAddr>,
        /// Why.
        complaint: Complaint,
        /// When the kernel heard of it.
        at: Mono,
    },
}

/// Why a datagram did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// ICMP for IPv4 says so: type, code, and the size that would fit.
    V4(u8, u8, u32),
    /// ICMP for IPv6 says so.
    V6(u8, u8, u32),
    /// This machine says so: the packet is larger than the link, whose size follows.
    Own(u32),
}

/// The socket.
#[derive(Debug)]
pub struct PacketSocket {
    socket: UdpSocket,
    clock: Clock,
    is_v6: bool,
}

impl PacketSocket {
    /// Asks the kernel to tell about `socket`, which must not block.
    ///
    /// # Errors
    /// When the kernel does not know one of the options.
    pub(super) fn new(socket: StdSocket, is_v6: bool, travel: Travel, clock: Clock) -> io::Result<Self> {
        if is_v6 {
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
        }
        if travel.dont_fragment {
            // Each packet goes out whole, whatever the kernel remembers of the way: the answer is measured, not the memory.
            if is_v6 {
                options::set_ipv6_mtu_discover(&socket, options::Ipv6PathMtuDiscovery::PROBE)?;
            } else {
                options::set_ip_mtu_discover(&socket, options::Ipv4PathMtuDiscovery::PROBE)?;
            }
        } else if !is_v6 {
            // Routers may cut; those of IPv6 never do.
            options::set_ip_mtu_discover(&socket, options::Ipv4PathMtuDiscovery::DONT)?;
        }
        let stamps = TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_OPT_ID
            | TimestampingFlag::SOF_TIMESTAMPING_OPT_TSONLY;
        setsockopt(&socket, sockopt::Timestamping, &stamps)?;
        let this = Self { socket: UdpSocket::from_std(socket)?, clock, is_v6 };
        if let Some(hops) = travel.hop_limit {
            this.set_hop_limit(hops)?;
        }
        Ok(this)
    }

    /// Lets the packets that follow pass this many routers.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set_hop_limit(&self, hops: u8) -> io::Result<()> {
        if self.is_v6 {
            setsockopt(&self.socket, sockopt::Ipv6Ttl, &i32::from(hops))?;
        } else {
            setsockopt(&self.socket, sockopt::Ipv4Ttl, &i32::from(hops))?;
        }
        Ok(())
    }

    /// Hands one datagram to the kernel.
    ///
    /// # Errors
    /// The system's error, also when the kernel would have to wait: a packet that is measured waits for nobody.
    pub(super) fn send(&self, message: &[u8], to: SocketAddr) -> io::Result<()> {
        let send = || rustix::net::sendto(&self.socket, message, rustix::net::SendFlags::NOSIGNAL, &to);
        match send() {
            Ok(_) => Ok(()),
            // What a router said about an earlier datagram is told to the next one, once; the queue holds it as well.
            Err(
                Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::CONNREFUSED
                | Errno::PROTO
                | Errno::MSGSIZE
                | Errno::OPNOTSUPP
                | Errno::ACCESS
                | Errno::HOSTDOWN
                | Errno::NOPROTOOPT
                | Errno::INTR,
            ) => send().map(|_| ()).map_err(Into::into),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for what happens next. A datagram fills `buffer` from its beginning.
    ///
    /// # Errors
    /// The system's error.
    pub async fn next(&self, buffer: &mut [u8]) -> io::Result<Event> {
        // Whoever is flooded lets others run as well.
        tokio::task::coop::consume_budget().await;
        // Between two sockets of one machine the answer is there already.
        if let Ok(event) = self.queued(buffer).or_else(|_| self.received(buffer)) {
            return Ok(event);
        }
        loop {
            self.socket.ready(Interest::READABLE | Interest::ERROR).await?;
            for (interest, is_queue) in [(Interest::ERROR, true), (Interest::READABLE, false)] {
                let tried =
                    self.socket.try_io(interest, || if is_queue { self.queued(buffer) } else { self.received(buffer) });
                match tried {
                    Ok(event) => return Ok(event),
                    Err(error) if is_told_elsewhere(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn received(&self, buffer: &mut [u8]) -> io::Result<Event> {
        let message = self.message(buffer, MsgFlags::MSG_DONTWAIT)?;
        let from = message.name.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Event::Datagram { length: message.length, from, at: message.at, hop_limit: message.hop_limit })
    }

    /// Reads the error queue until it says something of interest.
    fn queued(&self, buffer: &mut [u8]) -> io::Result<Event> {
        loop {
            let message = self.message(buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_ERRQUEUE)?;
            let Some((told, by)) = message.told else { continue };
            let complaint = match told.ee_origin {
                libc::SO_EE_ORIGIN_TIMESTAMPING => return Ok(Event::Left { nth: told.ee_data, at: message.at }),
                libc::SO_EE_ORIGIN_ICMP => Complaint::V4(told.ee_type, told.ee_code, told.ee_info),
                libc::SO_EE_ORIGIN_ICMP6 => Complaint::V6(told.ee_type, told.ee_code, told.ee_info),
                libc::SO_EE_ORIGIN_LOCAL => Complaint::Own(told.ee_info),
                _ => continue,
            };
            let Message { length, name: to, at, .. } = message;
            return Ok(Event::Undelivered { length, to, by, complaint, at });
        }
    }

    fn message(&self, buffer: &mut [u8], flags: MsgFlags) -> io::Result<Message> {
        let mut control = [0; CONTROL_BYTES];
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let mut read = Message {
            length: message.bytes,
            name: message.address.as_ref().and_then(socket_addr),
            at: self.clock.now(),
            hop_limit: None,
            told: None,
        };
        for part in message.cmsgs()? {
            // The list is nix's own and grows.
            if let ControlMessageOwned::ScmTimestampsns(stamps) = part {
                read.at = self.clock.at_machine_time(Duration::from(stamps.system));
            } else if let ControlMessageOwned::Ipv4Ttl(hops) | ControlMessageOwned::Ipv6HopLimit(hops) = part {
                read.hop_limit = u8::try_from(hops).ok();
            } else if let ControlMessageOwned::Ipv4RecvErr(told, by) = part {
                let by = by.filter(|by| i32::from(by.sin_family) == libc::AF_INET).map(SockaddrIn::from);
                read.told = Some((told, by.map(|by| by.ip().into())));
            } else if let ControlMessageOwned::Ipv6RecvErr(told, by) = part {
                let by = by.filter(|by| i32::from(by.sin6_family) == libc::AF_INET6).map(SockaddrIn6::from);
                read.told = Some((told, by.map(|by| by.ip().into())));
            }
        }
        Ok(read)
    }
}

/// What one call of the kernel gave.
struct Message {
    length: usize,
    name: Option<SocketAddr>,
    at: Mono,
    hop_limit: Option<u8>,
    told: Option<(libc::sock_extended_err, Option<IpAddr>)>,
}

fn socket_addr(name: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = name.as_sockaddr_in().map(|v4| SocketAddr::new(v4.ip().into(), v4.port()));
    v4.or_else(|| name.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().into(), v6.port())))
        .filter(|_| name.len() > 0)
}

/// Errors of receiving that say nothing of their own: there is nothing, or the queue says it better.
fn is_told_elsewhere(error: &io::Error) -> bool {
    let told = [
        Errno::AGAIN,
        Errno::INTR,
        Errno::CONNREFUSED,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::MSGSIZE,
        Errno::OPNOTSUPP,
        Errno::ACCESS,
    ];
    error.kind() == io::ErrorKind::WouldBlock || Errno::from_io_error(error).is_some_and(|errno| told.contains(&errno))
}
