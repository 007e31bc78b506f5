//! Which addresses a check may dial, for every dialer. Pure: never resolves a name and never connects.
//!
//! Default: everything that IANA keeps for a special purpose is refused, also the few such blocks that are
//! globally reachable, because none of them is a target that somebody runs. Of IPv6 only `2000::/3` is global
//! unicast; the rest is refused by name where it has one and as reserved where it has none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use thiserror::Error;

mod blocks;
#[cfg(test)]
mod tests;

use blocks::{V4_BLOCKS, V4_METADATA, V6_BLOCKS, V6_METADATA};

/// An address that may not be dialled. The text is for the operator of the probe; a sample carries only the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{addr} may not be dialled: it is in {block}")]
pub struct Forbidden {
    /// The address as it was given.
    pub addr: IpAddr,
    /// The block that forbids it, with its purpose, such as `127.0.0.0/8 (loopback)`.
    pub block: &'static str,
}

/// Why `addr` is special, or `None` when it is an ordinary public address.
fn special(addr: IpAddr) -> Option<&'static str> {
    match addr {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

fn special_v4(addr: Ipv4Addr) -> Option<&'static str> {
    if let Some((_, name)) = V4_METADATA.iter().find(|(known, _)| *known == addr) {
        return Some(name);
    }
    let bits = addr.to_bits();
    V4_BLOCKS.iter().find(|block| (bits ^ block.first.to_bits()) & mask_v4(block.prefix) == 0).map(|block| block.name)
}

fn special_v6(addr: Ipv6Addr) -> Option<&'static str> {
    if let Some((_, name)) = V6_METADATA.iter().find(|(known, _)| *known == addr) {
        return Some(name);
    }
    if let Some(v4) = addr.to_ipv4_mapped() {
        return special_v4(v4);
    }
    let bits = addr.to_bits();
    if let Some(block) = V6_BLOCKS.iter().find(|block| (bits ^ block.first.to_bits()) & mask_v6(block.prefix) == 0) {
        return Some(block.name);
    }
    if let Some(v4) = embedded(addr) {
        return special_v4(v4);
    }
    let global_unicast = addr.segments()[0] & 0xe000 == 0x2000;
    if global_unicast { None } else { Some("IPv6 space that is not global unicast (reserved by the IETF)") }
}

/// The IPv4 address inside `addr`, where the network delivers to that one: NAT64 (RFC 6052) and ISATAP (RFC 5214).
///
/// Mapped addresses are unwrapped earlier; the other embedding forms (IPv4-compatible, translated, local NAT64,
/// 6to4, Teredo) are refused as whole blocks.
fn embedded(addr: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = addr.segments();
    let nat64 = [a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0];
    let isatap = (e == 0 || e == 0x200) && f == 0x5efe;
    (nat64 || isatap).then(|| Ipv4Addr::from_bits(u32::from(g) << 16 | u32::from(h)))
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(u32::BITS - u32::from(prefix)).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(u128::BITS - u32::from(prefix)).unwrap_or(0)
}

/// Refuses every special address; addresses that carry another one are judged by what they carry.
///
/// # Errors
/// [`Forbidden`] with the block that the address is in.
pub fn vet(addr: IpAddr) -> Result<(), Forbidden> {
    match special(addr) {
        Some(block) => Err(Forbidden { addr, block }),
        None => Ok(()),
    }
}

/// What one machine permits beyond public addresses, and what it never permits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Special networks that checks may reach. A metadata service is reached only by an entry for exactly its
    /// address (`/32` or `/128`), because a wide entry rarely means the keys of the machine.
    pub allow: Vec<IpNet>,
    /// Endpoints of the mesh itself, which no check reaches whatever `allow` says.
    pub own_endpoints: Vec<SocketAddr>,
}

impl Policy {
    /// Refuses the mesh's own endpoints, then every special address that `allow` does not admit.
    ///
    /// # Errors
    /// [`Forbidden`] with the block that the address is in.
    pub fn vet(&self, target: SocketAddr) -> Result<(), Forbidden> {
        vet_own(target, &self.own_endpoints)?;
        let addr = target.ip();
        let canonical = addr.to_canonical();
        let exact = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
        let admits = |net: &IpNet| net.contains(&canonical) && (exact(net) || !is_metadata(canonical));
        if self.allow.iter().any(admits) { Ok(()) } else { vet(addr) }
    }
}

/// Refuses a target at which a connection would arrive at one of `own`, in any spelling of either.
///
/// # Errors
/// [`Forbidden`], which says that it is one of the mesh's own endpoints.
pub fn vet_own(target: SocketAddr, own: &[SocketAddr]) -> Result<(), Forbidden> {
    if own.iter().any(|own| reaches(target, *own)) {
        return Err(Forbidden { addr: target.ip(), block: "the mesh's own endpoints" });
    }
    Ok(())
}

fn is_metadata(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => V4_METADATA.iter().any(|(known, _)| *known == v4),
        IpAddr::V6(v6) => V6_METADATA.iter().any(|(known, _)| *known == v6),
    }
}

/// Whether a connection to `target` would arrive at `own`, in any spelling of either.
fn reaches(target: SocketAddr, own: SocketAddr) -> bool {
    if target.port() != own.port() {
        return false;
    }
    let (target, own) = (delivered(target.ip()), delivered(own.ip()));
    // A wildcard is every address of this machine; as a target it is delivered to loopback.
    let local = |addr: IpAddr| addr.is_loopback() || addr.is_unspecified();
    target == own || ((target.is_unspecified() || own.is_unspecified()) && local(target) && local(own))
}

/// The address at which the network delivers.
fn delivered(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => embedded(v6).map_or(IpAddr::V6(v6), IpAddr::V4),
    }
}
