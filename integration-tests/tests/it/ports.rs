//! What the ports of a collector say to those who knock: TLS 1.3 only, certificates demanded, health told, metrics told.

use std::process::{Command, Stdio};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use sonde_integration_tests::mesh::Mesh;
use sonde_integration_tests::target;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

/// Runs `openssl s_client` until the server ends the connection or the handshake is done.
fn openssl(address: std::net::SocketAddr, args: &[&str]) -> (bool, String) {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-alpn", "h2"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed: `ops/setup.sh test` does it");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tls_port_speaks_1_3_only() {
    let mesh = Mesh::start(&[]).await;
    for address in [mesh.endpoints.mesh, mesh.endpoints.enrol, mesh.endpoints.admin] {
        for old in ["-tls1", "-tls1_1", "-tls1_2"] {
            let (accepted, said) = openssl(address, &[old]);
            assert!(!accepted, "{address} {old}: {said}");
        }
        let (_, said) = openssl(address, &["-tls1_3"]);
        assert!(said.contains("TLSv1.3"), "{address}: {said}");
        assert!(!said.contains("New Session Ticket"), "no tickets: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mesh_port_refuses_whoever_has_no_certificate() {
    let mesh = Mesh::start(&[]).await;
    // The client's half of the handshake succeeds in TLS 1.3; the refusal arrives with the first read.
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &mesh.endpoints.mesh.to_string(), "-alpn", "h2", "-tls1_3", "-ign_eof"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed: `ops/setup.sh test` does it");
    let output = {
        let _open = child.stdin.take();
        child.wait_with_output().unwrap()
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("certificate required") || said.contains("alert number 116"), "{said}");
}

/// A gRPC connection to one of the collector's TLS ports, without a client certificate.
pub(crate) async fn channel(mesh: &Mesh, address: std::net::SocketAddr) -> Channel {
    let ca = mesh.dir.path().join("collector/ca.pem");
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    Endpoint::from_static("http://admin.invalid")
        .connect_with_connector(tower_service(connector, address))
        .await
        .unwrap()
}

fn tower_service(
    connector: tokio_rustls::TlsConnector,
    address: std::net::SocketAddr,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
    Error = std::io::Error,
    Future: Send,
> + Send
+ 'static {
    tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            let name = ServerName::from(address.ip());
            Ok(TokioIo::new(connector.connect(name, stream).await?))
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_need_no_key() {
    let mesh = Mesh::start(&[]).await;
    let channel = channel(&mesh, mesh.endpoints.admin).await;
    let answer = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);

    let mut reflection = tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel);
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut answers = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let listed = format!("{answer:?}");
    for service in ["Checks", "Probes", "Samples", "Regions", "Workspaces", "Keys", "Audit"] {
        assert!(listed.contains(&format!("sonde.v1.{service}")), "{service}: {listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_prometheus_text_and_move() {
    let target = target::http().await;
    let mesh = Mesh::start(&["eu-west"]).await;
    let url = format!("http://{}/", target.address());
    let args =
        ["http", "--name", "web", "--url", &url, "--interval", "1s", "--timeout", "500ms", "--regions", "eu-west"];
    let id = mesh.create_check(&args);
    mesh.wait_for_samples(&id, &["eu-west"], 2).await;
    let output = Command::new("curl")
        .args(["-sS", "--fail", "-i", &format!("http://{}/metrics", mesh.endpoints.web)])
        .output()
        .expect("curl is installed: `ops/setup.sh test` does it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.to_lowercase().contains("content-type: text/plain"), "{text}");
    let stored: f64 = text
        .lines()
        .filter(|line| line.starts_with("sonde_collector_") && line.contains("stored"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(stored >= 2.0, "samples stored are counted: {text}");
}
