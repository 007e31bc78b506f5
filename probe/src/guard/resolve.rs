//! Turns a name into addresses: by the hosts file and the resolvers of this machine, or by the resolver of a check.
//! Never keeps an answer: a lookup that is measured is a lookup that took place.
//!
//! Servers are asked as the C library asks them: in their order, the next one when one is silent or cannot answer, and
//! all of them once more when all were silent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::Hosts;
use hickory_resolver::config::NameServerConfig;
use sonde_proto::model::check::{Addresses, Family, Reach};
use sonde_proto::model::error_class::ErrorClass;
use tokio::time::timeout;

use super::Vetted;
use super::lookup::{self, ADDRESSES_MAX};

const DNS_PORT: u16 = 53;

/// What the C library asks when `/etc/resolv.conf` names no server.
const FALLBACK_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DNS_PORT);

/// Most servers of `/etc/resolv.conf` that are asked, as in the C library.
const SERVERS_MAX: usize = 3;

/// How long one server is waited for, unless `/etc/resolv.conf` says less. The C library waits five seconds, and by then
/// most runs are over: a lost packet would be a failed run.
const PATIENCE_MAX: Duration = Duration::from_secs(2);

/// How often silent servers are asked, unless `/etc/resolv.conf` says less.
const ATTEMPTS_MAX: usize = 3;

/// Resolvers and hosts file of this machine.
#[derive(Debug)]
pub(super) struct NameService {
    /// The operator's choice and no check's, so they may lie in a private network. Never empty.
    servers: Vec<Vetted>,
    hosts: Hosts,
    patience: Duration,
    attempts: usize,
}

impl NameService {
    pub(super) fn new(server: Option<SocketAddr>) -> Self {
        let hosts = Hosts::from_system().unwrap_or_default();
        let (servers, patience, attempts) = match server {
            Some(server) => (vec![server], PATIENCE_MAX, ATTEMPTS_MAX),
            None => of_system(),
        };
        Self { servers: servers.into_iter().map(Vetted).collect(), hosts, patience, attempts }
    }

    pub(super) fn first_server(&self) -> Vetted {
        self.servers.first().copied().unwrap_or(Vetted(FALLBACK_SERVER))
    }

    /// Addresses of `name` in the order of the answer, by way of `reach`; at least one. `resolver` is asked alone where
    /// there is one.
    pub(super) async fn addresses(
        &self,
        name: &str,
        reach: Reach,
        resolver: Option<Vetted>,
    ) -> Result<Vec<IpAddr>, ErrorClass> {
        let mut name = Name::from_ascii(name).map_err(|_| ErrorClass::DnsError)?;
        name.set_fqdn(true);
        if resolver.is_none() {
            let known = self.in_hosts(&name, reach.family);
            if !known.is_empty() {
                return Ok(known);
            }
        }
        let servers = resolver.as_ref().map_or(self.servers.as_slice(), std::slice::from_ref);
        let v4 = self.lookup(&name, RecordType::A, servers);
        let v6 = self.lookup(&name, RecordType::AAAA, servers);
        match (reach.family, reach.addresses) {
            (Family::V4, _) => v4.await,
            (Family::V6, _) => v6.await,
            (Family::Any, Addresses::First) => match v4.await {
                Err(ErrorClass::DnsNoData) => v6.await,
                found => found,
            },
            (Family::Any, Addresses::All) => both(tokio::join!(v4, v6)),
        }
    }

    fn in_hosts(&self, name: &Name, family: Family) -> Vec<IpAddr> {
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)))
            .flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
            .filter(|addr| family.has(*addr))
            .take(ADDRESSES_MAX)
            .collect()
    }

    async fn lookup(&self, name: &Name, kind: RecordType, servers: &[Vetted]) -> Result<Vec<IpAddr>, ErrorClass> {
        for _ in 0..self.attempts {
            let mut failure = None;
            for server in servers {
                match timeout(self.patience, lookup::addresses(name, kind, *server)).await {
                    Err(_silent) => {}
                    Ok(Err(class)) if !matches!(class, ErrorClass::DnsNxdomain | ErrorClass::DnsNoData) => {
                        failure.get_or_insert(class);
                    }
                    Ok(known) => return known,
                }
            }
            if let Some(class) = failure {
                return Err(class);
            }
        }
        Err(ErrorClass::DnsTimeout)
    }
}

/// All addresses of a name, in turn by family. That one family has none is no failure; that it could not be asked for is.
fn both(
    (v4, v6): (Result<Vec<IpAddr>, ErrorClass>, Result<Vec<IpAddr>, ErrorClass>),
) -> Result<Vec<IpAddr>, ErrorClass> {
    let known = |found| match found {
        Err(ErrorClass::DnsNoData) => Ok(Vec::new()),
        found => found,
    };
    let (v4, v6) = (known(v4)?, known(v6)?);
    let mut all = Vec::with_capacity(v4.len() + v6.len());
    for nth in 0..v4.len().max(v6.len()) {
        all.extend(v4.get(nth).into_iter().chain(v6.get(nth)));
    }
    if all.is_empty() { Err(ErrorClass::DnsNoData) } else { Ok(all) }
}

/// The servers of `/etc/resolv.conf`, how long to wait for each, and how often to ask.
fn of_system() -> (Vec<SocketAddr>, Duration, usize) {
    match hickory_resolver::system_conf::read_system_conf() {
        Ok((config, options)) => {
            let mut servers: Vec<_> = config.name_servers().iter().map(server_address).take(SERVERS_MAX).collect();
            if servers.is_empty() {
                servers.push(FALLBACK_SERVER);
            }
            (servers, options.timeout.min(PATIENCE_MAX), options.attempts.clamp(1, ATTEMPTS_MAX))
        }
        Err(error) => {
            tracing::warn!(%error, server = %FALLBACK_SERVER, "the system names no resolver");
            (vec![FALLBACK_SERVER], PATIENCE_MAX, ATTEMPTS_MAX)
        }
    }
}

fn server_address(server: &NameServerConfig) -> SocketAddr {
    SocketAddr::new(server.ip, server.connections.first().map_or(DNS_PORT, |connection| connection.port))
}
