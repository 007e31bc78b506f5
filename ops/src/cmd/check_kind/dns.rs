//! The flags of a `dns` check. Never judges a value.

use clap::Args;
use sonde_proto::wire;

/// Flags of a DNS check.
#[derive(Debug, Args)]
pub(crate) struct DnsArgs {
    /// Name to ask for
    #[arg(long, visible_alias = "domain")]
    query: String,
    /// Type of record: a word such as A, MX or TLSA, or TYPE and a number
    #[arg(long, default_value = "A")]
    record: String,
    /// Server to ask: address or address:port; for dot and doq also a name, for doh an https URL; the probe's own
    /// resolver without it
    #[arg(long, default_value = "", hide_default_value = true)]
    server: String,
    /// How to ask: udp (again over TCP when the answer is truncated), tcp, dot, doh or doq
    #[arg(long, default_value = "udp")]
    transport: String,
    /// Name to send and to verify, when it is not the server's; with dot, doh and doq
    #[arg(long, default_value = "", hide_default_value = true)]
    server_name: String,
    /// Ask the server only for what it knows itself
    #[arg(long)]
    no_recursion: bool,
    /// Whether signatures are verified: off, validate (unsigned zones will do) or require
    #[arg(long, default_value = "off")]
    dnssec: String,
    /// Key to trust besides those of the root; may be repeated, 8 times at most
    #[arg(long = "trust-anchor", value_name = "ZONE DNSKEY FLAGS 3 ALGORITHM KEY")]
    trust_anchors: Vec<String>,
    /// Response code that makes the answer good: a word such as NXDOMAIN, or a number
    #[arg(long, default_value = "NOERROR", value_name = "RCODE")]
    expect_rcode: String,
}

impl From<DnsArgs> for wire::DnsCheck {
    fn from(args: DnsArgs) -> Self {
        Self {
            name: args.query,
            record: args.record,
            server: args.server,
            transport: args.transport,
            server_name: args.server_name,
            no_recursion: args.no_recursion,
            dnssec: args.dnssec,
            trust_anchors: args.trust_anchors,
            expect_rcode: args.expect_rcode,
        }
    }
}

/// Flags of `check update` that a DNS check has, and but for the server no other.
#[derive(Debug, Args, Default)]
pub(super) struct DnsChanges {
    /// New name to ask for (dns)
    #[arg(long)]
    query: Option<String>,
    /// New type of record: a word such as A, MX or TLSA, or TYPE and a number (dns)
    #[arg(long)]
    record: Option<String>,
    /// New server to ask, as for `check create` (dns, domain); empty for the probe's own resolver (dns)
    #[arg(long)]
    pub(super) server: Option<String>,
    /// New way to ask: udp, tcp, dot, doh or doq (dns)
    #[arg(long)]
    transport: Option<String>,
    /// Whether to ask the server only for what it knows itself: true or false (dns)
    #[arg(long)]
    no_recursion: Option<bool>,
    /// Whether signatures are verified: off, validate or require (dns)
    #[arg(long)]
    dnssec: Option<String>,
    /// New keys to trust besides those of the root; replaces all of them; one empty text for none (dns)
    #[arg(long = "trust-anchor", value_name = "ZONE DNSKEY FLAGS 3 ALGORITHM KEY")]
    trust_anchors: Option<Vec<String>>,
    /// New response code that makes the answer good (dns)
    #[arg(long, value_name = "RCODE")]
    expect_rcode: Option<String>,
}

impl DnsChanges {
    /// Changes `dns` in place.
    pub(super) fn apply(&mut self, dns: &mut wire::DnsCheck) {
        fn set<T>(slot: &mut T, change: &mut Option<T>) {
            if let Some(value) = change.take() {
                *slot = value;
            }
        }
        set(&mut dns.name, &mut self.query);
        set(&mut dns.record, &mut self.record);
        set(&mut dns.server, &mut self.server);
        set(&mut dns.transport, &mut self.transport);
        set(&mut dns.no_recursion, &mut self.no_recursion);
        set(&mut dns.dnssec, &mut self.dnssec);
        let mut anchors = self.trust_anchors.take().map(|anchors| {
            let is_none = anchors.iter().all(String::is_empty);
            if is_none { Vec::new() } else { anchors }
        });
        set(&mut dns.trust_anchors, &mut anchors);
        set(&mut dns.expect_rcode, &mut self.expect_rcode);
    }

    /// Flags, and whether they are set.
    pub(super) fn given(&self) -> [(&'static str, bool); 8] {
        [
            ("query", self.query.is_some()),
            ("record", self.record.is_some()),
            ("server", self.server.is_some()),
            ("transport", self.transport.is_some()),
            ("no-recursion", self.no_recursion.is_some()),
            ("dnssec", self.dnssec.is_some()),
            ("trust-anchor", self.trust_anchors.is_some()),
            ("expect-rcode", self.expect_rcode.is_some()),
        ]
    }
}
