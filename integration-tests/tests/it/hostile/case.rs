//! A case of the lab: a check of a server that means no good, and how a run of it must end. Never runs it.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sonde_proto::convert::check_from_json;
use sonde_proto::model::check::CheckSpec;
use sonde_proto::model::error_class::ErrorClass;

use super::certificates::Authority;
use super::dns::resolver;

/// How long a run may take that ends by itself: it must not be a busy machine that ends it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a run takes that only its timeout ends: enough for every phase before the one that is meant, also on a busy machine.
const BRIEF: Duration = Duration::from_secs(3);

/// A name for which certificates are issued. It resolves to 127.0.0.1.
pub(super) const NAME: &str = "target.lab.test";

/// What all cases share.
pub(super) struct Lab {
    /// The authority that the probe trusts.
    pub(super) authority: Authority,
    /// Knows the names of `lab.test`, and lies about some.
    pub(super) resolver: SocketAddr,
}

impl Lab {
    pub(super) async fn start() -> Self {
        Self { authority: Authority::named("an authority of the lab"), resolver: resolver::start().await }
    }
}

/// One hostile target.
pub(super) struct Case {
    pub(super) group: &'static str,
    pub(super) name: &'static str,
    /// What to do, as the database spells it.
    kind: Value,
    /// The class of its failure; `None` for a good end.
    pub(super) ends: Option<ErrorClass>,
    /// Another class that it may have: which of two bounds comes first is for the machine to say.
    pub(super) or: Option<ErrorClass>,
    /// Only the timeout ends it, although its class tells more than that.
    waits: bool,
}

impl Case {
    /// A target that means well.
    pub(super) fn healthy(name: &'static str, kind: Value) -> Self {
        Self { group: "healthy", name, kind, ends: None, or: None, waits: false }
    }

    /// How long a run may take.
    pub(super) fn timeout(&self) -> Duration {
        if self.waits || self.ends.is_some_and(|class| class.name().ends_with("_timeout")) { BRIEF } else { PATIENCE }
    }

    /// The check, run every `interval` from `region`.
    pub(super) fn check(&self, region: &str, interval: Duration, timeout: Duration) -> Value {
        json!({
            "name": format!("{}: {}", self.group, self.name),
            "kind": self.kind,
            "interval_us": interval.as_micros(),
            "timeout_us": timeout.as_micros(),
            "regions": [region],
        })
    }

    /// The check by itself.
    pub(super) fn order(&self, lab: &Lab) -> Value {
        let check = self.check("lab", Duration::from_secs(60), self.timeout());
        // What no user could create is no case.
        let spec: CheckSpec = check_from_json(&check).unwrap_or_else(|fault| panic!("{}: {fault}", self.name));
        CheckSpec::new(spec.draft()).unwrap_or_else(|fault| panic!("{}: {fault}", self.name));
        json!({
            "check": check,
            "resolver": lab.resolver,
            "root_base64": STANDARD.encode(&lab.authority.root),
        })
    }
}

/// Cases of one group.
pub(super) struct Group {
    name: &'static str,
    cases: Vec<Case>,
}

impl Group {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, cases: Vec::new() }
    }

    /// A case that ends as `class`.
    pub(super) fn fails(&mut self, name: &'static str, kind: Value, class: ErrorClass) {
        self.cases.push(Case { group: self.name, name, kind, ends: Some(class), or: None, waits: false });
    }

    /// A case that ends as `class`, but not before its timeout.
    pub(super) fn waits(&mut self, name: &'static str, kind: Value, class: ErrorClass) {
        self.cases.push(Case { group: self.name, name, kind, ends: Some(class), or: None, waits: true });
    }

    /// A case that ends as `class`, or as `or` where that comes first.
    pub(super) fn fails_or(&mut self, name: &'static str, kind: Value, class: ErrorClass, or: ErrorClass) {
        self.cases.push(Case { group: self.name, name, kind, ends: Some(class), or: Some(or), waits: false });
    }

    /// A case that ends well: what is odd about the server is nothing that the check asks for.
    pub(super) fn ends_well(&mut self, name: &'static str, kind: Value) {
        self.cases.push(Case { group: self.name, name, kind, ends: None, or: None, waits: false });
    }

    pub(super) fn done(self) -> Vec<Case> {
        self.cases
    }
}

/// A GET over HTTP/1.
pub(super) fn http(server: SocketAddr) -> Value {
    json!({"http": {"url": format!("http://{server}/"), "method": "GET", "expect_status": ["200-399"]}})
}

/// A GET over TLS, in the version that is negotiated.
pub(super) fn https(server: SocketAddr) -> Value {
    let url = format!("https://{NAME}:{}/", server.port());
    json!({"http": {"url": url, "method": "GET", "expect_status": ["200-399"]}})
}

/// A request over HTTP/2 without TLS.
pub(super) fn http2(server: SocketAddr) -> Value {
    let mut kind = http(server);
    kind["http"]["version"] = "2".into();
    kind
}

/// A request over HTTP/1 that goes where it is sent.
pub(super) fn following(server: SocketAddr) -> Value {
    let mut kind = http(server);
    kind["http"]["follow_redirects"] = 5.into();
    kind
}

/// A request over HTTP/3.
pub(super) fn http3(server: SocketAddr) -> Value {
    let mut kind = https(server);
    kind["http"]["version"] = "3".into();
    kind
}

/// A handshake of QUIC for [`NAME`].
pub(super) fn quic(server: SocketAddr) -> Value {
    json!({"quic": {"host": server.ip(), "port": server.port(), "alpn": ["h3"], "server_name": NAME}})
}

/// A handshake for [`NAME`].
pub(super) fn tls(server: SocketAddr) -> Value {
    json!({"tls": {"host": "127.0.0.1", "port": server.port(), "server_name": NAME}})
}

/// A handshake for [`NAME`], after an upgrade.
pub(super) fn starttls(server: SocketAddr, protocol: &str) -> Value {
    json!({"tls": {"host": "127.0.0.1", "port": server.port(), "server_name": NAME, "starttls": protocol}})
}

/// A question for `www.lab.test` of the type `record`.
pub(super) fn dns(server: SocketAddr, record: &str) -> Value {
    json!({"dns": {"name": "www.lab.test", "record": record, "server": server.to_string()}})
}

/// A connection, over which an answer is expected.
pub(super) fn tcp(server: SocketAddr, expect: &str) -> Value {
    json!({"tcp": {"host": server.ip(), "port": server.port(), "expect": expect}})
}

/// A connection to a name of the resolver.
pub(super) fn tcp_to(label: &str, server: SocketAddr) -> Value {
    json!({"tcp": {"host": format!("{label}.lab.test"), "port": server.port()}})
}

/// A datagram, and what its answer must hold.
pub(super) fn udp(server: SocketAddr, expect: &str) -> Value {
    json!({"udp": {"host": server.ip(), "port": server.port(), "send_base64": STANDARD.encode("ping"), "expect": expect}})
}

/// A health check of the server as a whole.
pub(super) fn grpc(server: SocketAddr) -> Value {
    json!({"grpc": {"host": "127.0.0.1", "port": server.port()}})
}

/// A message over a WebSocket, and what its answer must hold.
pub(super) fn websocket(server: SocketAddr, expect: &str) -> Value {
    json!({"websocket": {"url": format!("ws://{server}/"), "send_base64": STANDARD.encode("hello"), "expect": expect}})
}
