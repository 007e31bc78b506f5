//! The rules of `traceroute` checks: with what to ask, how far, and how often. Never looks anything up.

use super::icmp::number;
use super::{Host, host};
use crate::model::InvalidField;
use crate::model::id::cut;

/// Most hops of a trace: as many parts as a sample carries.
pub const TRACE_HOPS_MAX: u8 = 64;
/// Hops of a trace when no number is written, as `traceroute` has it.
pub const TRACE_HOPS_DEFAULT: u8 = 30;
/// Most packets for one hop.
pub const TRACE_PACKETS_MAX: u8 = 5;
/// Packets for one hop when no number is written, as `traceroute` has it.
pub const TRACE_PACKETS_DEFAULT: u8 = 3;

/// What a trace sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TraceMethod {
    /// Datagrams to ports from 33434 on. Takes no privilege.
    #[default]
    Udp,
    /// Echoes.
    Icmp,
}

/// The routers on the way to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracerouteSpec {
    /// Target.
    pub host: Host,
    /// What is sent.
    pub method: TraceMethod,
    /// How far to look, 1 to [`TRACE_HOPS_MAX`].
    pub hops_max: u8,
    /// Packets for each hop, 1 to [`TRACE_PACKETS_MAX`].
    pub packets_per_hop: u8,
}

/// A `traceroute` check as somebody wrote it. The default of each field means that it was left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TracerouteDraft {
    /// Name or address.
    pub host: String,
    /// `udp`, `icmp`, or empty for udp.
    pub method: String,
    /// How far to look; 0 means 30.
    pub hops_max: u32,
    /// Packets for each hop; 0 means 3.
    pub packets_per_hop: u32,
}

impl TraceMethod {
    /// The word that people and flags use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

impl TracerouteSpec {
    pub(super) fn parse(draft: TracerouteDraft) -> Result<Self, InvalidField> {
        let TracerouteDraft { host, method, hops_max, packets_per_hop } = draft;
        let or = |number: u32, default: u8| if number == 0 { u32::from(default) } else { number };
        let (hops, packets) = (or(hops_max, TRACE_HOPS_DEFAULT), or(packets_per_hop, TRACE_PACKETS_DEFAULT));
        Ok(Self {
            host: host::host("host", &host)?,
            method: match method.as_str() {
                "" | "udp" => TraceMethod::Udp,
                "icmp" => TraceMethod::Icmp,
                _ => {
                    let reason = format!("`{}` is neither udp nor icmp", cut(&method));
                    return Err(InvalidField::new("traceroute.method", reason));
                }
            },
            hops_max: number("traceroute.hops_max", hops, 1, TRACE_HOPS_MAX, "hops")?,
            packets_per_hop: number("traceroute.packets_per_hop", packets, 1, TRACE_PACKETS_MAX, "packets")?,
        })
    }

    pub(super) fn draft(&self) -> TracerouteDraft {
        TracerouteDraft {
            host: self.host.to_string(),
            method: self.method.name().to_owned(),
            hops_max: u32::from(self.hops_max),
            packets_per_hop: u32::from(self.packets_per_hop),
        }
    }
}
