//! Turns a name into addresses with the probe's own resolver. Never keeps an answer: a lookup that is measured is a
//! lookup that took place.
//!
//! Lookups of one name that are in flight at the same moment share one query; the later one then measures only the
//! rest of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{Hosts, TokioResolver};
use sonde_proto::model::error_class::ErrorClass;

/// Most addresses of one answer that are looked at. Larger answers are hostile.
const ADDRESSES_MAX: usize = 64;

const DNS_PORT: u16 = 53;

/// What the C library asks when `/etc/resolv.conf` names no server.
const FALLBACK_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DNS_PORT);

/// Resolver and hosts file of this machine.
#[derive(Debug)]
pub(super) struct NameService {
    resolver: TokioResolver,
    hosts: Hosts,
    first_server: SocketAddr,
}

impl NameService {
    pub(super) fn new(server: Option<SocketAddr>) -> Result<Self, NetError> {
        let (config, options) = match server {
            Some(server) => (of_server(server), ResolverOpts::default()),
            None => of_system(),
        };
        let first_server = config.name_servers().first().map_or(FALLBACK_SERVER, server_address);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = measuring(options);
        let hosts = Hosts::from_system().unwrap_or_default();
        Ok(Self { resolver: builder.build()?, hosts, first_server })
    }

    pub(super) fn first_server(&self) -> SocketAddr {
        self.first_server
    }

    /// Addresses of `name` in the order of the answer: those of the hosts file, else IPv4, else IPv6. At least one.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, ErrorClass> {
        let mut name = Name::from_ascii(name).map_err(|_| ErrorClass::DnsError)?;
        name.set_fqdn(true);
        let known = self.in_hosts(&name);
        if !known.is_empty() {
            return Ok(known);
        }
        match self.lookup(name.clone(), RecordType::A).await {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            Ok(_) | Err(ErrorClass::DnsNoData) => {
                let addresses = self.lookup(name, RecordType::AAAA).await?;
                if addresses.is_empty() { Err(ErrorClass::DnsNoData) } else { Ok(addresses) }
            }
            Err(class) => Err(class),
        }
    }

    fn in_hosts(&self, name: &Name) -> Vec<IpAddr> {
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)))
            .flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
            .take(ADDRESSES_MAX)
            .collect()
    }

    async fn lookup(&self, name: Name, kind: RecordType) -> Result<Vec<IpAddr>, ErrorClass> {
        let lookup = self.resolver.lookup(name, kind).await.map_err(|error| class_of(&error))?;
        Ok(lookup.answers().iter().filter_map(|record| record.data.ip_addr()).take(ADDRESSES_MAX).collect())
    }
}

fn of_server(server: SocketAddr) -> ResolverConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    config.connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .into_iter()
        .map(|mut connection| {
            connection.port = server.port();
            connection
        })
        .collect();
    ResolverConfig::from_name_servers(vec![config])
}

fn of_system() -> (ResolverConfig, ResolverOpts) {
    hickory_resolver::system_conf::read_system_conf().unwrap_or_else(|error| {
        tracing::warn!(%error, server = %FALLBACK_SERVER, "the system names no resolver");
        (of_server(FALLBACK_SERVER), ResolverOpts::default())
    })
}

/// No cache, no search list, servers in the order in which they were given: what is measured is the same each time.
fn measuring(mut options: ResolverOpts) -> ResolverOpts {
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options
}

fn server_address(server: &NameServerConfig) -> SocketAddr {
    SocketAddr::new(server.ip, server.connections.first().map_or(DNS_PORT, |connection| connection.port))
}

fn class_of(error: &NetError) -> ErrorClass {
    if let NetError::Dns(DnsError::NoRecordsFound(absent)) = error {
        rcode_class(absent.response_code).unwrap_or(ErrorClass::DnsNoData)
    } else if let NetError::Dns(DnsError::ResponseCode(code)) = error {
        rcode_class(*code).unwrap_or(ErrorClass::DnsError)
    } else if matches!(error, NetError::Timeout) {
        ErrorClass::DnsTimeout
    } else {
        ErrorClass::DnsError
    }
}

/// The class of a response code, `None` for NOERROR.
pub(crate) fn rcode_class(code: ResponseCode) -> Option<ErrorClass> {
    if code == ResponseCode::NoError {
        None
    } else if code == ResponseCode::NXDomain {
        Some(ErrorClass::DnsNxdomain)
    } else if code == ResponseCode::ServFail {
        Some(ErrorClass::DnsServfail)
    } else if code == ResponseCode::Refused {
        Some(ErrorClass::DnsRefused)
    } else {
        Some(ErrorClass::DnsError)
    }
}
