//! Who takes part in the laboratory, under which name and at which address.

use std::fmt;
use std::net::Ipv4Addr;

use super::options::Role;

/// Port of each thing on its own address.
pub mod port {
    /// The engine's HTTP interface.
    pub const ENGINE: u16 = 8123;
    /// Postgres.
    pub const POSTGRES: u16 = 5432;
    /// A collector's mesh port.
    pub const MESH: u16 = 7401;
    /// A collector's enrolment port.
    pub const ENROL: u16 = 7402;
    /// A collector's admin port.
    pub const ADMIN: u16 = 7403;
    /// A collector's web port, on loopback.
    pub const WEB: u16 = 7404;
    /// A target.
    pub const TARGET: u16 = 9000;
}

/// The router in the middle, which is also where the driver stands: its links are never cut.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The parts of the mesh.
pub const MESH_NETWORK: &str = "10.77.0.0/24";
/// What is measured: documentation addresses, which probes must be allowed to reach.
pub const TARGET_NETWORK: &str = "192.0.2.0/24";

/// One part: a process with a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// The ClickHouse engine.
    Engine,
    /// Postgres.
    Postgres,
    /// A collector, from 0.
    Collector(u8),
    /// A probe, from 0.
    Probe(u8),
    /// A target, from 0.
    Target(u8),
}

impl Party {
    /// Its address.
    pub fn address(self) -> Ipv4Addr {
        match self {
            Self::Engine => Ipv4Addr::new(10, 77, 0, 2),
            Self::Postgres => Ipv4Addr::new(10, 77, 0, 3),
            Self::Collector(number) => Ipv4Addr::new(10, 77, 0, 11 + number),
            Self::Probe(number) => Ipv4Addr::new(10, 77, 0, 32 + number),
            Self::Target(number) => Ipv4Addr::new(192, 0, 2, 11 + number),
        }
    }

    /// Its role, if faults may happen to it.
    pub fn role(self) -> Option<Role> {
        match self {
            Self::Engine => Some(Role::Engine),
            Self::Postgres => Some(Role::Postgres),
            Self::Collector(_) => Some(Role::Collector),
            Self::Probe(_) => Some(Role::Probe),
            Self::Target(_) => None,
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine => f.write_str("engine"),
            Self::Postgres => f.write_str("postgres"),
            Self::Collector(number) => write!(f, "collector-{}", char::from(b'a' + number)),
            Self::Probe(number) => write!(f, "probe-{number}"),
            Self::Target(number) => write!(f, "target-{number}"),
        }
    }
}
