//! How the kind of a check is shown to people and programs.

use sonde_proto::model::check::ClientCertificate;
use sonde_proto::wire::{self, check_kind::Kind, http_auth::Scheme};

use super::{bytes, packets};
use crate::output;

/// Kind and target of a check in one line each.
pub(crate) fn describe(kind: Option<&wire::CheckKind>) -> (&'static str, String) {
    match kind.and_then(|kind| kind.kind.as_ref()) {
        Some(Kind::Http(http)) => ("http", http.url.clone()),
        Some(Kind::Tcp(tcp)) => ("tcp", format!("{}:{}", tcp.host, tcp.port)),
        Some(Kind::Tls(tls)) => ("tls", format!("{}:{}", tls.host, tls.port)),
        Some(Kind::Dns(dns)) => ("dns", format!("{} {}", dns.name, dns.record)),
        Some(Kind::Icmp(icmp)) => ("icmp", icmp.host.clone()),
        Some(Kind::Traceroute(trace)) => ("traceroute", trace.host.clone()),
        Some(Kind::Udp(udp)) => ("udp", format!("{}:{}", udp.host, udp.port)),
        Some(Kind::Grpc(grpc)) => ("grpc", format!("{}:{} {}", grpc.host, grpc.port, grpc.service).trim().to_owned()),
        Some(Kind::Websocket(websocket)) => ("websocket", websocket.url.clone()),
        Some(Kind::Quic(quic)) => ("quic", format!("{}:{}", quic.host, quic.port)),
        Some(Kind::Domain(domain)) => ("domain", domain.name.clone()),
        None => ("unknown", String::new()),
    }
}

/// The kind's fields as JSON.
pub(crate) fn details(kind: Option<&wire::CheckKind>) -> serde_json::Value {
    use serde_json::json;
    match kind.and_then(|kind| kind.kind.as_ref()) {
        Some(Kind::Http(http)) => json!({
            "url": http.url,
            "method": http.method,
            "http_version": http.version,
            "headers": headers(&http.headers),
            "body": String::from_utf8_lossy(&http.body),
            "expect_status": http.expect_status,
            "follow_redirects": http.follow_redirects,
            "auth": auth(http),
            "client_certificate": http.client_certificate.as_ref().map(certificate),
            "proxy": proxy(http),
            "body_bytes_max": http.body_bytes_max,
            "ca_pem": http.ca_pem,
        }),
        Some(Kind::Tcp(tcp)) => json!({
            "host": tcp.host,
            "port": tcp.port,
            "starttls": tcp.starttls,
            "send": bytes::shown(&tcp.send),
            "expect": tcp.expect,
        }),
        Some(Kind::Tls(tls)) => {
            json!({"host": tls.host, "port": tls.port, "server_name": tls.server_name, "starttls": tls.starttls})
        }
        Some(Kind::Dns(dns)) => json!({
            "query": dns.name,
            "record": dns.record,
            "server": dns.server,
            "transport": dns.transport,
            "server_name": dns.server_name,
            "no_recursion": dns.no_recursion,
            "dnssec": dns.dnssec,
            "trust_anchors": dns.trust_anchors,
            "expect_rcode": dns.expect_rcode,
        }),
        Some(Kind::Icmp(icmp)) => packets::icmp_details(icmp),
        Some(Kind::Traceroute(trace)) => packets::trace_details(trace),
        Some(Kind::Udp(udp)) => json!({
            "host": udp.host,
            "port": udp.port,
            "send": bytes::shown(&udp.send),
            "expect": udp.expect,
        }),
        Some(Kind::Grpc(grpc)) => json!({
            "host": grpc.host,
            "port": grpc.port,
            "tls": grpc.tls,
            "server_name": grpc.server_name,
            "service": grpc.service,
        }),
        Some(Kind::Websocket(websocket)) => json!({
            "url": websocket.url,
            "headers": headers(&websocket.headers),
            "send": bytes::shown(websocket.send.as_bytes()),
            "expect": websocket.expect,
        }),
        Some(Kind::Quic(quic)) => json!({
            "host": quic.host,
            "port": quic.port,
            "alpn": quic.alpn,
            "server_name": quic.server_name,
            "zero_rtt": quic.zero_rtt,
        }),
        Some(Kind::Domain(domain)) => json!({"domain": domain.name, "server": domain.server}),
        None => serde_json::Value::Null,
    }
}

/// Who asks, in one line and without what proves it.
fn auth(http: &wire::HttpCheck) -> String {
    match http.auth.as_ref().and_then(|auth| auth.scheme.as_ref()) {
        Some(Scheme::Basic(login)) => format!("basic, user {}", login.user),
        Some(Scheme::Bearer(_)) => "bearer token".to_owned(),
        Some(Scheme::Oauth2(client)) => format!("oauth2, client {} at {}", client.client_id, client.token_url),
        None => String::new(),
    }
}

fn proxy(http: &wire::HttpCheck) -> String {
    match &http.proxy {
        Some(wire::HttpProxy { url, login: Some(login) }) => format!("{url}, user {}", login.user),
        Some(wire::HttpProxy { url, login: None }) => url.clone(),
        None => String::new(),
    }
}

/// Subject and end of a certificate.
fn certificate(certificate: &wire::ClientCertificate) -> String {
    let certificate_pem = certificate.certificate_pem.clone();
    match (ClientCertificate { certificate_pem, ..ClientCertificate::default() }).summary() {
        Some(summary) => {
            format!("{}, until {}", summary.subject, output::or_dash(output::instant(summary.not_after.0).as_ref()))
        }
        None => "illegible".to_owned(),
    }
}

fn headers(headers: &[wire::HttpHeader]) -> serde_json::Value {
    headers.iter().map(|header| serde_json::json!({"name": header.name, "value": header.value})).collect()
}

/// The kind's fields as rows for people; what is empty is left out.
pub(crate) fn settings(details: &serde_json::Value) -> Vec<(&'static str, String)> {
    let text = |field: &str| details[field].as_str().unwrap_or_default().to_owned();
    let words = |field: &str| -> Vec<String> {
        let items = details[field].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let number = |field: &str| {
        details[field].as_u64().filter(|number| *number > 0).map(|number| number.to_string()).unwrap_or_default()
    };
    let headers = details["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let header = |item: &serde_json::Value| {
        format!("{}: {}", item["name"].as_str().unwrap_or_default(), item["value"].as_str().unwrap_or_default())
    };
    let body = details["body"].as_str().unwrap_or_default().len();
    let payload = details["payload_bytes"].as_u64();
    let mut rows = vec![
        ("method", text("method")),
        ("http version", text("http_version")),
        ("expect status", words("expect_status").join(",")),
        ("body", if body == 0 { String::new() } else { format!("{body} bytes") }),
        ("follow redirects", number("follow_redirects")),
        ("auth", text("auth")),
        ("client certificate", text("client_certificate")),
        ("proxy", text("proxy")),
        ("largest body", number("body_bytes_max")),
        ("authorities", if text("ca_pem").is_empty() { String::new() } else { "its own".to_owned() }),
        ("server name", text("server_name")),
        ("server", text("server")),
        ("transport", text("transport")),
        ("recursion", if details["no_recursion"].as_bool() == Some(true) { "no".to_owned() } else { String::new() }),
        ("dnssec", text("dnssec")),
        ("trust anchors", words("trust_anchors").join("; ")),
        ("expect rcode", text("expect_rcode")),
        ("tls", if details["tls"].as_bool() == Some(true) { "yes".to_owned() } else { String::new() }),
        ("starttls", text("starttls")),
        ("service", text("service")),
        ("alpn", words("alpn").join(",")),
        ("zero rtt", if details["zero_rtt"].as_bool() == Some(true) { "yes".to_owned() } else { String::new() }),
        ("send", text("send")),
        ("expect", text("expect")),
        ("payload", payload.map_or_else(String::new, |bytes| format!("{bytes} bytes"))),
    ];
    rows.extend(packets::settings(details));
    rows.extend(headers.iter().map(|item| ("header", header(item))));
    rows.retain(|(_, value)| !value.is_empty());
    rows
}
