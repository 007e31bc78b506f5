//! The admin port: every admin service, health and reflection on one TLS listener. Never looks into a request.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sonde_proto::wire;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::NamedService;
use tonic::transport::server::TcpConnectInfo;
use tonic_health::ServingStatus;

use super::Parts;
use crate::admin::{self, Deps};
use crate::link::accept;
use crate::link::peer::Connection;
use crate::link::server::server;
use crate::stop::stopped;

/// People and their tools: 512 connections, half as many handshakes.
pub(super) const BOUNDS: accept::Bounds = accept::Bounds { connections_max: 512, handshakes_max: 256 };
/// Requests at once on one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 64;
/// Longest time until a request is answered or its stream has begun; every store gives up before.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// What the admin services are made from.
pub(super) fn deps(parts: &Parts, mesh: admin::probes::MeshView) -> Deps {
    Deps {
        store: Arc::clone(&parts.store),
        auth: Arc::clone(&parts.auth),
        clock: parts.clock,
        clickhouse: parts.clickhouse.clone(),
        live: parts.live.clone(),
        mesh: Arc::new(mesh),
    }
}

/// Serves until `stop` turns true and requests under way have ended.
///
/// # Errors
/// When the transport cannot go on.
pub(super) async fn serve(
    deps: Deps,
    connections: mpsc::Receiver<Connection<TcpConnectInfo>>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let descriptions = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Most tools of today still ask in the older of the two languages.
    let reflection = descriptions().build_v1().context("the descriptions of the services cannot be read")?;
    let reflection_old = descriptions().build_v1alpha().context("the descriptions of the services cannot be read")?;
    let checks = admin::checks::ChecksService::server(deps.core());
    let probes = admin::probes::ProbesService::server(deps.clone());
    let regions = admin::regions::RegionsService::server(deps.core());
    let workspaces = admin::workspaces::WorkspacesService::server(deps.core());
    let keys = admin::keys::KeysService::server(deps.core());
    let audit = admin::audit::AuditService::server(deps.core());
    let coverage = admin::coverage::CoverageService::server(deps.clone());
    let samples = admin::samples::SamplesService::server(deps);
    for name in [
        name_of(&checks),
        name_of(&probes),
        name_of(&samples),
        name_of(&coverage),
        name_of(&regions),
        name_of(&workspaces),
        name_of(&keys),
        name_of(&audit),
    ] {
        health.set_service_status(name, ServingStatus::Serving).await;
    }
    let incoming = ReceiverStream::new(connections).map(Ok::<_, std::convert::Infallible>);
    let until = async move { stopped(&mut stop).await };
    server(STREAMS_PER_CONNECTION_MAX)
        .timeout(ANSWER_MAX)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(reflection_old)
        .add_service(checks)
        .add_service(probes)
        .add_service(samples)
        .add_service(coverage)
        .add_service(regions)
        .add_service(workspaces)
        .add_service(keys)
        .add_service(audit)
        .serve_with_incoming_shutdown(incoming, until)
        .await?;
    Ok(())
}

fn name_of<S: NamedService>(_service: &S) -> &'static str {
    S::NAME
}
