//! The connection to the admin API: TLS 1.3 against the mesh's own CA, an API key on every call.
//!
//! The only place of this crate that knows gRPC; commands see messages and [`CliError`]s.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use sonde_proto::wire;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::error::{CliError, Kind, Result};
use crate::flags;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for an answer that is not a stream.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer: 100,000 sample rows of about 200 bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What to look at when something answers, but not as the admin API does.
const ADMIN_HINT: &str = "--endpoint or SONDE_ENDPOINT must name the admin port of a running collector of this version";

/// Where the admin API is and how to be let in.
#[derive(Debug, Clone)]
pub struct Access {
    /// `https://host:port`.
    pub endpoint: String,
    /// PEM file with the CA certificate of the mesh.
    pub ca: PathBuf,
    /// File with the API key.
    pub key_file: PathBuf,
}

/// Adds the key to each request.
#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A connection to the admin API.
#[derive(Clone)]
pub struct Client {
    service: InterceptedService<Channel, Bearer>,
}

/// One method per call: `name(request) -> response`, failures as [`CliError`].
macro_rules! calls {
    ($($(#[$doc:meta])* $module:ident :: $client:ident . $name:ident ($request:ident) -> $response:ident;)*) => {
        impl Client {
            $($(#[$doc])*
            ///
            /// # Errors
            /// What the collector answered, or that it cannot be reached.
            pub async fn $name(&self, request: wire::$request) -> Result<wire::$response> {
                let mut client = wire::$module::$client::new(self.service.clone())
                    .max_decoding_message_size(ANSWER_BYTES_MAX);
                let mut request = Request::new(request);
                request.set_timeout(CALL_TIMEOUT);
                client.$name(request).await.map(tonic::Response::into_inner).map_err(|status| fault(&status))
            })*
        }
    };
}

calls! {
    /// Creates a check.
    checks_client::ChecksClient.create_check(CreateCheckRequest) -> Check;
    /// Lists checks.
    checks_client::ChecksClient.list_checks(ListChecksRequest) -> ListChecksResponse;
    /// Reads a check.
    checks_client::ChecksClient.get_check(GetCheckRequest) -> Check;
    /// Replaces a check's definition.
    checks_client::ChecksClient.update_check(UpdateCheckRequest) -> Check;
    /// Pauses or resumes a check.
    checks_client::ChecksClient.set_check_paused(SetCheckPausedRequest) -> Check;
    /// Deletes a check.
    checks_client::ChecksClient.delete_check(DeleteCheckRequest) -> DeleteCheckResponse;
    /// Lists probes.
    probes_client::ProbesClient.list_probes(ListProbesRequest) -> ListProbesResponse;
    /// Reads a probe.
    probes_client::ProbesClient.get_probe(GetProbeRequest) -> Probe;
    /// Drains a probe.
    probes_client::ProbesClient.drain_probe(DrainProbeRequest) -> Probe;
    /// Revokes a probe.
    probes_client::ProbesClient.revoke_probe(RevokeProbeRequest) -> Probe;
    /// Makes a join string.
    probes_client::ProbesClient.create_join_token(CreateJoinTokenRequest) -> JoinToken;
    /// Lists samples.
    samples_client::SamplesClient.list_samples(ListSamplesRequest) -> ListSamplesResponse;
    /// Reads percentiles.
    samples_client::SamplesClient.get_latency(GetLatencyRequest) -> GetLatencyResponse;
    /// Reads what became of expected slots.
    coverage_client::CoverageClient.get_coverage(GetCoverageRequest) -> GetCoverageResponse;
    /// Creates a region.
    regions_client::RegionsClient.create_region(CreateRegionRequest) -> Region;
    /// Lists regions.
    regions_client::RegionsClient.list_regions(ListRegionsRequest) -> ListRegionsResponse;
    /// Creates a workspace.
    workspaces_client::WorkspacesClient.create_workspace(CreateWorkspaceRequest) -> Workspace;
    /// Lists workspaces.
    workspaces_client::WorkspacesClient.list_workspaces(ListWorkspacesRequest) -> ListWorkspacesResponse;
    /// Reads a workspace.
    workspaces_client::WorkspacesClient.get_workspace(GetWorkspaceRequest) -> Workspace;
    /// Changes how long a workspace keeps what was measured.
    workspaces_client::WorkspacesClient.set_retention(SetRetentionRequest) -> Workspace;
    /// Creates a key.
    keys_client::KeysClient.create_key(CreateKeyRequest) -> CreatedKey;
    /// Lists keys.
    keys_client::KeysClient.list_keys(ListKeysRequest) -> ListKeysResponse;
    /// Revokes a key.
    keys_client::KeysClient.revoke_key(RevokeKeyRequest) -> Key;
    /// Lists audit entries.
    audit_client::AuditClient.list_audit(ListAuditRequest) -> ListAuditResponse;
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When the key or CA file is missing or malformed ([`Kind::Config`]), or nobody answers ([`Kind::Unavailable`]).
    pub async fn connect(access: &Access) -> Result<Self> {
        let key = read_key(&access.key_file)?;
        let tls = Arc::new(tls_config(&access.ca)?);
        let (host, address) = host_and_address(&access.endpoint)?;
        let name = ServerName::try_from(host)
            .map_err(|_| CliError::invalid(format!("--endpoint: `{}` has no valid host name", access.endpoint)))?;
        let connector = tower::service_fn(move |_: Uri| {
            let (tls, address, name) = (tls.clone(), address.clone(), name.clone());
            async move {
                let stream = tokio::net::TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                let stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        // TLS is the connector's; the scheme only keeps tonic from adding its own.
        let channel = Endpoint::from_static("http://sonde.invalid")
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(10))
            .connect_with_connector(connector)
            .await
            .map_err(|source| unreachable(access, &source))?;
        Ok(Self { service: InterceptedService::new(channel, Bearer(key)) })
    }

    /// Watches samples as the store confirms them, until the collector ends the stream.
    ///
    /// # Errors
    /// What the collector answered, or that it cannot be reached.
    pub async fn watch_samples(
        &self,
        request: wire::WatchSamplesRequest,
    ) -> Result<impl Stream<Item = Result<wire::SampleRow>> + Unpin + use<>> {
        let mut client = wire::samples_client::SamplesClient::new(self.service.clone());
        let rows = client.watch_samples(request).await.map_err(|status| fault(&status))?.into_inner();
        Ok(rows.map(|row| row.map_err(|status| fault(&status))))
    }
}

fn read_key(path: &Path) -> Result<MetadataValue<Ascii>> {
    let hint =
        "point --key-file or SONDE_KEY_FILE at a file that holds an API key; `. .sonde/env` does it for the local mesh";
    let text = std::fs::read_to_string(path).map_err(|source| {
        CliError::new(Kind::Config, format!("key file {} cannot be read: {source}", path.display())).hint(hint)
    })?;
    let is_one_word = text.split_whitespace().count() == 1;
    let parsed = format!("Bearer {}", text.trim()).parse::<MetadataValue<Ascii>>().ok().filter(|_| is_one_word);
    let mut value = parsed.ok_or_else(|| {
        CliError::new(Kind::Config, format!("key file {} does not hold an API key", path.display())).hint(hint)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls_config(ca: &Path) -> Result<rustls::ClientConfig> {
    let fail = |what: String| {
        CliError::new(Kind::Config, format!("CA file {}: {what}", ca.display()))
            .hint("point --ca or SONDE_CA at the PEM file with the mesh's CA certificate")
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|source| fail(source.to_string()))? {
        let certificate = certificate.map_err(|source| fail(source.to_string()))?;
        roots.add(certificate).map_err(|source| fail(source.to_string()))?;
    }
    if roots.is_empty() {
        return Err(fail("holds no certificate".into()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| fail(source.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Splits `https://host:port` into the name to verify and the address to dial.
fn host_and_address(endpoint: &str) -> Result<(String, String)> {
    let fault = || CliError::invalid(format!("--endpoint: `{endpoint}` is not of the form https://host:port"));
    let uri: Uri = endpoint.parse().map_err(|_| fault())?;
    let host = uri.host().filter(|host| !host.is_empty());
    let (Some("https"), Some(host), Some(port)) = (uri.scheme_str(), host, uri.port_u16()) else {
        return Err(fault());
    };
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") || endpoint.contains('@') {
        return Err(fault());
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok((bare, format!("{host}:{port}")))
}

fn unreachable(access: &Access, source: &(dyn std::error::Error + 'static)) -> CliError {
    let Access { endpoint, ca, .. } = access;
    let tls = causes(source).find_map(|cause| {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()).or_else(|| cause.downcast_ref())
    });
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => CliError::new(
            Kind::Config,
            format!("{endpoint} does not prove to be the collector of the CA in {}: {why}", ca.display()),
        )
        .hint("--ca or SONDE_CA must be the CA of the mesh that --endpoint or SONDE_ENDPOINT names"),
        Some(why) => CliError::new(Kind::Unavailable, format!("what listens at {endpoint} is no admin API: {why}"))
            .hint(ADMIN_HINT),
        None => {
            let cause = causes(source).last().map(ToString::to_string).unwrap_or_default();
            CliError::new(Kind::Unavailable, format!("the collector at {endpoint} cannot be reached: {cause}"))
                .hint("is it running? `make up` starts the local mesh; SONDE_ENDPOINT names another")
        }
    }
}

/// An error and what caused it, outermost first.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn fault(status: &Status) -> CliError {
    // A status that has a cause was made here, by the transport; one that the collector sent has none.
    if let Some(cause) = std::error::Error::source(status) {
        let cause = causes(cause).last().map(ToString::to_string).unwrap_or_default();
        return CliError::new(Kind::Unavailable, format!("the connection to the collector broke: {cause}"))
            .hint(ADMIN_HINT);
    }
    if status.code() == Code::Unimplemented {
        return CliError::new(Kind::Unavailable, "what listens at this endpoint does not know this call")
            .hint(ADMIN_HINT);
    }
    if let Some(refused) = refused_field(status) {
        return refused;
    }
    let kind = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
        Code::NotFound => Kind::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => Kind::Denied,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => Kind::Unavailable,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Kind::Conflict,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
            Kind::Internal
        }
    };
    let text = if status.message().is_empty() { status.code().description() } else { status.message() };
    CliError::new(kind, text)
}

/// The refusal of a field, in the words of who typed its value.
fn refused_field(status: &Status) -> Option<CliError> {
    let details = status.get_details_bad_request()?;
    let violation = details.field_violations.first().filter(|violation| !violation.field.is_empty())?;
    Some(CliError::invalid(format!("{}: {}", flags::typed(&violation.field), violation.description)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_https_with_a_port() {
        assert_eq!(
            host_and_address("https://127.0.0.1:7403").unwrap(),
            ("127.0.0.1".to_owned(), "127.0.0.1:7403".to_owned())
        );
        assert_eq!(host_and_address("https://[::1]:1").unwrap(), ("::1".to_owned(), "[::1]:1".to_owned()));
        for bad in
            ["", "http://a:1", "https://a", "a:1", "https://:1", "https://a:99999", "https://a:1/x", "https://u:p@a:1"]
        {
            assert_eq!(host_and_address(bad).unwrap_err().kind, Kind::Invalid, "{bad}");
        }
    }

    #[test]
    fn a_refused_field_is_named_as_it_was_typed() {
        let details = tonic_types::ErrorDetails::with_bad_request_violation("last_s", "30 s is no window");
        let refused = fault(&Status::with_error_details(Code::InvalidArgument, "last_s: 30 s is no window", details));
        assert_eq!((refused.kind, refused.message.as_str()), (Kind::Invalid, "--last: 30 s is no window"));
        assert_eq!(fault(&Status::invalid_argument("plain words")).message, "plain words");
    }

    #[test]
    fn each_kind_of_answer_has_its_exit_code() {
        for (status, code) in [
            (Status::invalid_argument("x"), 3),
            (Status::not_found("x"), 4),
            (Status::unauthenticated("x"), 5),
            (Status::permission_denied("x"), 5),
            (Status::unavailable("x"), 6),
            (Status::already_exists("x"), 7),
            (Status::internal("x"), 1),
        ] {
            assert_eq!(fault(&status).kind.exit_code(), code);
        }
    }
}
