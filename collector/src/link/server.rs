//! The gRPC server below every TLS port: bounds on streams, headers and silence. Never knows a service.

use std::time::Duration;

use tonic::transport::Server;

/// A peer is asked whether it is there after this much silence.
const PING_PERIOD: Duration = Duration::from_secs(5);
/// A peer that does not answer for this long is gone; with the period, both sides notice within 15 s.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of headers in a request; an API key has 62, gRPC's own less than 1 KiB.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Streams that a peer opened and reset before they were accepted; more is an attack.
const RESETS_PENDING_MAX: usize = 20;

/// Largest message from a probe: a batch has 256 KiB at most, a Hello that asks about many ranges less.
pub const INCOMING_BYTES_MAX: usize = 1024 * 1024;
/// Largest message to a probe, as probes take it. An update of an assignment has about 1 MiB; only one that cannot be cut
/// into parts is as large as it is.
pub const OUTGOING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A server with the bounds of our ports and `streams_max` concurrent requests per connection.
pub fn server(streams_max: u32) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(PING_PERIOD))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_PENDING_MAX))
        .max_concurrent_streams(streams_max)
}
