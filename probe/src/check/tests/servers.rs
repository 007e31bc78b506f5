//! Small servers on loopback. Each one ends with the runtime of its test.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

#[expect(clippy::disallowed_methods, reason = "a server of a test ends with the runtime of the test")]
pub(super) fn background(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// Serves every connection with `serve`.
pub(super) async fn tcp_server<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    background(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            background(serve(stream));
        }
    });
    addr
}

/// Reads the head of an HTTP/1 request and returns it.
pub(super) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            break;
        };
        head.push(byte);
    }
    String::from_utf8(head).unwrap()
}

/// Answers the first request of every connection with `answer`, then closes.
pub(super) async fn http1_server(answer: &'static [u8]) -> SocketAddr {
    tcp_server(move |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(answer).await.ok();
        stream.shutdown().await.ok();
        // The client may still be sending; a reset would take the answer from it.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    })
    .await
}

/// A certification authority of a test.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) root: CertificateDer<'static>,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self::named("an authority")
    }

    pub(super) fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    /// A server's certificate for `names`, changed by `change`.
    pub(super) fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { chain: vec![certificate.der().clone()], key }
    }

    /// The authority's own certificate, used as a server's.
    pub(super) fn own(&self, names: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Identity { chain: vec![certificate.der().clone()], key }
    }
}

/// A certificate as a file holds it.
pub(super) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Certificate and key of a server.
pub(super) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Identity {
    /// Certificate and key as files hold them.
    pub(super) fn pem(&self) -> (String, String) {
        (certificate_pem(&self.chain[0]), self.key.serialize_pem())
    }

    /// Accepts TLS of clients whose certificate is from `authority`.
    pub(super) fn acceptor_for_clients(self, authority: &Authority) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.root.clone()).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(self.chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Accepts TLS and offers `alpn`.
    pub(super) fn acceptor(self, alpn: &[&[u8]]) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain, key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Shakes hands and waits for the client to leave.
pub(super) async fn tls_server(acceptor: TlsAcceptor) -> SocketAddr {
    tcp_server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
            }
        }
    })
    .await
}

/// How a query reached the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Udp,
    Tcp,
}

/// Answers DNS over UDP and TCP on one port with the datagrams that `answer` returns.
pub(super) async fn dns_server(
    answer: impl Fn(&Message, Carrier) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> SocketAddr {
    let answer = Arc::new(answer);
    let for_tcp = Arc::clone(&answer);
    let addr = tcp_server(move |mut stream| {
        let answer = Arc::clone(&for_tcp);
        async move {
            while let Ok(length) = stream.read_u16().await {
                let mut query = vec![0; usize::from(length)];
                stream.read_exact(&mut query).await.unwrap();
                for bytes in answer(&Message::from_vec(&query).unwrap(), Carrier::Tcp) {
                    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.ok();
                    stream.write_all(&bytes).await.ok();
                }
            }
        }
    })
    .await;
    let socket = UdpSocket::bind(addr).await.unwrap();
    background(async move {
        let mut buffer = [0; 1_500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            for bytes in answer(&Message::from_vec(&buffer[..length]).unwrap(), Carrier::Udp) {
                socket.send_to(&bytes, from).await.ok();
            }
        }
    });
    addr
}

/// The answer to `query` with a code and addresses of the type that was asked for.
pub(super) fn dns_answer(query: &Message, code: ResponseCode, addresses: &[&str]) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.response_code = code;
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    let question = query.queries.first().unwrap().clone();
    for address in addresses {
        let data = match address.parse().unwrap() {
            std::net::IpAddr::V4(ip) => RData::A(A(ip)),
            std::net::IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        if data.record_type() == question.query_type() {
            answer.add_answer(Record::from_rdata(question.name().clone(), 60, data));
        }
    }
    answer.add_query(question);
    answer
}

/// A server that knows one name, at `addresses`; NXDOMAIN for all others.
pub(super) async fn zone_server(name: &'static str, addresses: &'static [&'static str]) -> SocketAddr {
    dns_server(move |query, _| {
        let known = query
            .queries
            .first()
            .is_some_and(|question| question.name().to_ascii().trim_end_matches('.').eq_ignore_ascii_case(name));
        let code = if known { ResponseCode::NoError } else { ResponseCode::NXDomain };
        vec![dns_answer(query, code, if known { addresses } else { &[] }).to_vec().unwrap()]
    })
    .await
}

/// The type of the question.
pub(super) fn asked(query: &Message) -> RecordType {
    query.queries.first().unwrap().query_type()
}
