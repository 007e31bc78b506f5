//! How a run gets from the host of its check to an address: of which family, how many of them, from whose resolver, or
//! from the check itself. Never resolves a name.
//!
//! What a check cannot mean is refused here, for every kind: an address has no other addresses and needs no resolver.

use std::net::{IpAddr, SocketAddr};

use super::host::{DNS_PORT, server};
use super::{CheckKind, Host};
use crate::model::InvalidField;
use crate::model::id::cut;

/// Which addresses of a name count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv4, and IPv6 where there is none; of all addresses, those of both.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// How many addresses of a name a run measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Addresses {
    /// The first one that may be dialled.
    #[default]
    First,
    /// Every one, one after another.
    All,
}

/// The way from a host to its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reach {
    /// Which addresses count.
    pub family: Family,
    /// How many are measured.
    pub addresses: Addresses,
    /// Resolver to ask, which is vetted like a target; that of the probe when `None`.
    pub resolver: Option<SocketAddr>,
    /// Address to dial in place of those that the name has; nothing is resolved then.
    pub resolve_to: Option<IpAddr>,
}

/// A [`Reach`] as somebody wrote it; each field may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReachDraft {
    /// `4`, `6` or empty for any.
    pub family: String,
    /// `first`, `all` or empty for the first.
    pub addresses: String,
    /// `address`, `address:port` or `[v6]:port`.
    pub resolver: String,
    /// An address.
    pub resolve_to: String,
}

impl Family {
    /// Whether it has `addr`.
    pub fn has(self, addr: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => addr.is_ipv4(),
            Self::V6 => addr.is_ipv6(),
        }
    }

    /// `4`, `6`, or empty for any.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::V4 => "4",
            Self::V6 => "6",
        }
    }
}

impl Addresses {
    /// `all`, or empty for the first.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "",
            Self::All => "all",
        }
    }
}

impl Reach {
    /// Verifies a draft for a check of this kind.
    ///
    /// # Errors
    /// Names the first field that makes no sense, and what would.
    pub fn parse(draft: &ReachDraft, kind: &CheckKind) -> Result<Self, InvalidField> {
        let ReachDraft { family, addresses, resolver, resolve_to } = draft;
        let reach = Self {
            family: self::family(family)?,
            addresses: self::addresses(addresses)?,
            resolver: if resolver.is_empty() { None } else { Some(server("reach.resolver", resolver, DNS_PORT)?) },
            resolve_to: if resolve_to.is_empty() { None } else { Some(address(resolve_to)?) },
        };
        if reach != Self::default() {
            reach.suits(kind.host().as_ref())?;
        }
        Ok(reach)
    }

    /// The spelling; [`Self::parse`] reads it back to an equal one.
    pub fn draft(&self) -> ReachDraft {
        ReachDraft {
            family: self.family.name().to_owned(),
            addresses: self.addresses.name().to_owned(),
            resolver: self.resolver.map(|resolver| resolver.to_string()).unwrap_or_default(),
            resolve_to: self.resolve_to.map(|addr| addr.to_string()).unwrap_or_default(),
        }
    }

    /// Refuses what cannot be meant for a check of `host`, and together.
    fn suits(&self, host: Option<&Host>) -> Result<(), InvalidField> {
        let Self { family, addresses, resolver, resolve_to } = self;
        let used = [
            ("reach.family", *family != Family::Any),
            ("reach.addresses", *addresses != Addresses::First),
            ("reach.resolver", resolver.is_some()),
            ("reach.resolve_to", resolve_to.is_some()),
        ];
        let used = || used.into_iter().filter_map(|(field, is_used)| is_used.then_some(field));
        match host {
            None => match used().next() {
                Some(field) => {
                    Err(InvalidField::new(field, "is not for dns checks: set `dns.server` and leave it out"))
                }
                None => Ok(()),
            },
            Some(Host::Addr(addr)) if !family.has(*addr) => Err(of_other_family("reach.family", *addr)),
            Some(Host::Addr(addr)) => match used().find(|field| *field != "reach.family") {
                Some(field) => Err(InvalidField::new(
                    field,
                    format!("has no meaning for {addr}, which is no name to resolve: leave it out, or write a name"),
                )),
                None => Ok(()),
            },
            Some(Host::Name(_)) => self.agrees(),
        }
    }

    /// Refuses fields that exclude each other.
    fn agrees(&self) -> Result<(), InvalidField> {
        let Some(addr) = self.resolve_to else { return Ok(()) };
        if !self.family.has(addr) {
            return Err(of_other_family("reach.resolve_to", addr));
        }
        if self.resolver.is_some() {
            let reason = "is never asked when `resolve_to` says where the name leads: leave one of them out";
            return Err(InvalidField::new("reach.resolver", reason));
        }
        if self.addresses == Addresses::All {
            let reason = "is one address, and `addresses` asks for all: leave one of them out";
            return Err(InvalidField::new("reach.resolve_to", reason));
        }
        Ok(())
    }
}

impl CheckKind {
    /// The host that a run finds and dials; `None` for a query to the probe's own resolver.
    pub fn host(&self) -> Option<Host> {
        match self {
            Self::Http(http) => of_url(&http.url),
            Self::Websocket(websocket) => of_url(&websocket.url),
            Self::Tcp(tcp) => Some(tcp.host.clone()),
            Self::Tls(tls) => Some(tls.host.clone()),
            Self::Icmp(icmp) => Some(icmp.host.clone()),
            Self::Traceroute(trace) => Some(trace.host.clone()),
            Self::Udp(udp) => Some(udp.host.clone()),
            Self::Grpc(grpc) => Some(grpc.host.clone()),
            Self::Quic(quic) => Some(quic.host.clone()),
            Self::Domain(domain) => of_url(&domain.server),
            Self::Dns(spec) => spec.server.as_ref().and_then(super::DnsServer::host),
        }
    }
}

pub(super) fn of_url(url: &url::Url) -> Option<Host> {
    Some(match url.host()? {
        url::Host::Ipv4(addr) => Host::Addr(addr.into()),
        url::Host::Ipv6(addr) => Host::Addr(addr.into()),
        url::Host::Domain(name) => Host::Name(name.to_owned()),
    })
}

fn of_other_family(field: &str, addr: IpAddr) -> InvalidField {
    let family = if addr.is_ipv4() { 6 } else { 4 };
    InvalidField::new(field, format!("does not fit: {addr} is no address of IPv{family}"))
}

fn family(text: &str) -> Result<Family, InvalidField> {
    match text {
        "" | "any" => Ok(Family::Any),
        "4" => Ok(Family::V4),
        "6" => Ok(Family::V6),
        _ => Err(InvalidField::new("reach.family", format!("`{}` is not one of 4, 6 and any", cut(text)))),
    }
}

fn addresses(text: &str) -> Result<Addresses, InvalidField> {
    match text {
        "" | "first" => Ok(Addresses::First),
        "all" => Ok(Addresses::All),
        _ => Err(InvalidField::new("reach.addresses", format!("`{}` is neither first nor all", cut(text)))),
    }
}

fn address(text: &str) -> Result<IpAddr, InvalidField> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|bare| bare.contains(':'));
    bare.unwrap_or(text).parse().map_err(|_| {
        let reason = format!("`{}` is not an address such as 192.0.2.1 or 2001:db8::1: leave out the port", cut(text));
        InvalidField::new("reach.resolve_to", reason)
    })
}
