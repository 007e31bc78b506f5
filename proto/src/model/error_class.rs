//! Why a run failed, as a closed list: the word a person reads and the number the wire carries. Never free text.

use std::fmt;
use std::str::FromStr;

use super::InvalidField;

macro_rules! error_classes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)*) => {
        /// Class of a failure. Numbers are for ever: a class is added or retired, never renumbered.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum ErrorClass {
            $($(#[$doc])* $variant = $code,)*
        }

        impl ErrorClass {
            /// Every class, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word that people and queries use.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The number on the wire, never 0.
            pub fn code(self) -> u16 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The class with this number, or `None` for one that this build does not know.
            pub fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

error_classes! {
    /// The name does not exist (NXDOMAIN).
    DnsNxdomain = 1, "dns_nxdomain";
    /// The name exists, but has no address or no record of the type asked for.
    DnsNoData = 2, "dns_no_data";
    /// The resolver answered SERVFAIL.
    DnsServfail = 3, "dns_servfail";
    /// The resolver refused to answer.
    DnsRefused = 4, "dns_refused";
    /// No answer from the resolver in time.
    DnsTimeout = 5, "dns_timeout";
    /// Any other failure of name resolution.
    DnsError = 6, "dns_error";
    /// The answer cannot be read.
    DnsMalformed = 7, "dns_malformed";
    /// What came answers another question, or is no answer.
    DnsMismatch = 8, "dns_mismatch";
    /// The response code is not the one expected, and has no class of its own.
    DnsRcode = 9, "dns_rcode";
    /// The target's address is one that this probe may not dial.
    AddressForbidden = 10, "address_forbidden";
    /// The target refused the connection (RST).
    ConnectRefused = 11, "connect_refused";
    /// No connection in time.
    ConnectTimeout = 12, "connect_timeout";
    /// No route to the target, or it is reported unreachable.
    ConnectUnreachable = 13, "connect_unreachable";
    /// Any other failure to connect.
    ConnectError = 14, "connect_error";
    /// The certificate has expired.
    TlsExpired = 20, "tls_expired";
    /// The certificate is not valid yet.
    TlsNotYetValid = 21, "tls_not_yet_valid";
    /// The certificate's issuer is not trusted.
    TlsUntrusted = 22, "tls_untrusted";
    /// The certificate is for another name.
    TlsName = 23, "tls_name";
    /// The certificate is invalid in another way.
    TlsCertificate = 24, "tls_certificate";
    /// The TLS handshake failed, for example because no version or cipher is shared.
    TlsHandshake = 25, "tls_handshake";
    /// No finished TLS handshake in time.
    TlsTimeout = 26, "tls_timeout";
    /// The request could not be sent in time.
    SendTimeout = 30, "send_timeout";
    /// No first byte of the answer in time.
    FirstByteTimeout = 31, "first_byte_timeout";
    /// The answer began, but did not end in time.
    TransferTimeout = 32, "transfer_timeout";
    /// The target closed or reset the connection in the middle of the exchange.
    ConnectionLost = 33, "connection_lost";
    /// The answer does not follow HTTP.
    HttpProtocol = 34, "http_protocol";
    /// The status code is not among those expected.
    HttpStatus = 35, "http_status";
    /// The answer is larger than the check allows.
    BodyTooLarge = 36, "body_too_large";
    /// The HTTP version that the check demands was not negotiated.
    HttpVersion = 37, "http_version";
    /// No echo reply in time.
    IcmpTimeout = 40, "icmp_timeout";
    /// A router or the target reported the destination unreachable, for another reason than the classes below name.
    IcmpUnreachable = 41, "icmp_unreachable";
    /// This probe may open neither a datagram nor a raw ICMP socket.
    IcmpUnavailable = 42, "icmp_unavailable";
    /// The answer ended, or 64 KiB of it came, without what the check expects.
    ExpectMismatch = 43, "expect_mismatch";
    /// The target does not offer the upgrade to TLS, or refused it.
    StarttlsRefused = 44, "starttls_refused";
    /// What the target said before the upgrade to TLS does not follow its protocol.
    StarttlsProtocol = 45, "starttls_protocol";
    /// What the target said is not a WebSocket.
    WebsocketProtocol = 46, "websocket_protocol";
    /// The call of gRPC ended with another status than OK; the sample carries its number.
    GrpcStatus = 47, "grpc_status";
    /// The health service answered that the service is not serving, or that it does not know it.
    GrpcNotServing = 48, "grpc_not_serving";
    /// The pattern of the check is too complex to be searched for in this answer in bounded time.
    ExpectTooComplex = 49, "expect_too_complex";
    /// The run as a whole ended at its timeout.
    Timeout = 50, "timeout";
    /// An assertion of the check does not hold; the sample says which, its evidence what was seen.
    AssertionFailed = 51, "assertion_failed";
    /// The target answered well, and the check is inverted.
    UnexpectedSuccess = 52, "unexpected_success";
    /// The probe could not run the check, for example because it had no socket left.
    ProbeError = 60, "probe_error";
    /// The target speaks none of the protocols that the check offers over TLS (ALPN).
    TlsAlpn = 70, "tls_alpn";
    /// The target speaks no version of QUIC that this probe speaks.
    QuicVersion = 71, "quic_version";
    /// What the target sent does not follow QUIC.
    QuicProtocol = 72, "quic_protocol";
    /// The target closed the connection of QUIC with a code.
    QuicClosed = 73, "quic_closed";
    /// The target has forgotten the connection (stateless reset).
    QuicReset = 74, "quic_reset";
    /// Nothing came for longer than the idle timeout that was agreed on.
    QuicIdle = 75, "quic_idle";
    /// The answer is truncated, also where it had room.
    DnsTruncated = 76, "dns_truncated";
    /// Signatures of the answer, or what its keys rest on, do not verify.
    DnsBogus = 77, "dns_bogus";
    /// The zone is provably unsigned, and the check demands signatures.
    DnsInsecure = 78, "dns_insecure";
    /// The server does not give the keys that lead from a trust anchor to the answer, or there are too many.
    DnsChain = 79, "dns_chain";
    /// A router has no way to the target's network.
    IcmpNetUnreachable = 80, "icmp_net_unreachable";
    /// A router cannot find the target in its own network.
    IcmpHostUnreachable = 81, "icmp_host_unreachable";
    /// The target answered that nothing listens on the port.
    IcmpPortUnreachable = 82, "icmp_port_unreachable";
    /// A router or the target answered that it may not pass the packet on.
    IcmpProhibited = 83, "icmp_prohibited";
    /// The packet passed as many routers as it may, and the target was not among them.
    IcmpHopLimit = 84, "icmp_hop_limit";
    /// The packet is too large for a link on the way, and may not be cut in pieces.
    IcmpTooBig = 85, "icmp_too_big";
    /// More echoes were lost than the check allows.
    IcmpLoss = 86, "icmp_loss";
    /// The target did not answer within the hops and the time of the trace.
    TraceUnreached = 87, "trace_unreached";
    /// A redirect leads nowhere: `Location` is absent, or no URL.
    RedirectLocation = 100, "redirect_location";
    /// A redirect leads to something else than http or https.
    RedirectScheme = 101, "redirect_scheme";
    /// A redirect leads from https to http.
    RedirectDowngrade = 102, "redirect_downgrade";
    /// A redirect leads to where the run has been.
    RedirectLoop = 103, "redirect_loop";
    /// There are more redirects than the check follows.
    RedirectLimit = 104, "redirect_limit";
    /// No connection to the proxy, or no address of it.
    ProxyConnect = 110, "proxy_connect";
    /// The proxy did not connect to the target; the sample carries its status.
    ProxyRefused = 111, "proxy_refused";
    /// The proxy wants other credentials.
    ProxyAuth = 112, "proxy_auth";
    /// What the proxy said does not follow HTTP.
    ProxyProtocol = 113, "proxy_protocol";
    /// No token could be fetched.
    TokenUnavailable = 120, "token_unavailable";
    /// The token endpoint does not know the client, or does not grant what it asks for.
    TokenRefused = 121, "token_refused";
    /// The registration of the domain has ended.
    DomainExpired = 130, "domain_expired";
    /// The server of the registry does not know the domain.
    DomainNotFound = 131, "domain_not_found";
    /// The server of the registry does not say when the registration ends.
    DomainNoExpiry = 132, "domain_no_expiry";
    /// The answer is not one of RDAP about the domain that was asked for.
    RdapError = 133, "rdap_error";
}

impl ErrorClass {
    /// Whether the target, or the way to it, failed: the probe's own troubles and refusals say nothing about it.
    pub fn is_of_target(self) -> bool {
        !matches!(
            self,
            Self::AddressForbidden
                | Self::ExpectTooComplex
                | Self::IcmpUnavailable
                | Self::ProbeError
                | Self::ProxyConnect
                | Self::ProxyRefused
                | Self::ProxyAuth
                | Self::ProxyProtocol
                | Self::TokenUnavailable
                | Self::TokenRefused
        )
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ErrorClass {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|class| class.name() == text)
            .ok_or_else(|| InvalidField::new("error", format!("`{}` is not an error class", super::id::cut(text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back_to_the_class() {
        for class in ErrorClass::ALL {
            assert_eq!(ErrorClass::from_code(class.code()), Some(*class));
            assert_eq!(class.name().parse::<ErrorClass>(), Ok(*class));
        }
        assert_eq!(ErrorClass::from_code(0), None);
    }
}
