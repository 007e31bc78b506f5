//! Stands between a collector and its engine: takes every INSERT of samples and keeps none, passes everything else.
//! So the collector's own time can be measured while nothing waits for an engine.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::write_whole;

/// Connections at once: a collector has a handful.
const CONNECTIONS_MAX: usize = 256;

/// Where the sink says how many bytes of samples it has taken.
pub(crate) const TAKEN_PATH: &str = "/taken";

struct Sink {
    engine: String,
    client: Client<HttpConnector, Full<Bytes>>,
    taken_bytes: AtomicU64,
}

/// Serves until killed.
pub(super) fn run(engine: String, out: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sink = Arc::new(Sink {
        engine,
        client: Client::builder(TokioExecutor::new()).build_http(),
        taken_bytes: AtomicU64::new(0),
    });
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        write_whole(out, &listener.local_addr()?.to_string())?;
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            while connections.try_join_next().is_some() {}
            anyhow::ensure!(connections.len() < CONNECTIONS_MAX, "more than {CONNECTIONS_MAX} connections");
            let sink = Arc::clone(&sink);
            connections.spawn(async move {
                let service = service_fn(|request| serve(request, &sink));
                // A connection that breaks is its owner's to open again.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

async fn serve(request: Request<Incoming>, sink: &Sink) -> anyhow::Result<Response<Full<Bytes>>> {
    let (mut parts, mut body) = request.into_parts();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    if path == TAKEN_PATH {
        let taken = sink.taken_bytes.load(Ordering::Relaxed).to_string();
        return Ok(Response::new(Full::new(taken.into())));
    }
    if is_insert_of_samples(&path) {
        while let Some(frame) = body.frame().await {
            let length = frame?.data_ref().map_or(0, Bytes::len);
            sink.taken_bytes.fetch_add(length as u64, Ordering::Relaxed);
        }
        // As the engine answers: status 200, and nothing in it.
        return Ok(Response::new(Full::default()));
    }
    parts.uri = format!("http://{}{path}", sink.engine).parse()?;
    parts.headers.remove("host");
    let body = Full::new(body.collect().await?.to_bytes());
    let (parts, body) = sink.client.request(Request::from_parts(parts, body)).await?.into_parts();
    Ok(Response::from_parts(parts, Full::new(body.collect().await?.to_bytes())))
}

/// Whether the query is `INSERT INTO samples ...`, however it is escaped and quoted.
fn is_insert_of_samples(path: &str) -> bool {
    let plain = path.replace("%20", " ").replace('+', " ").replace("%60", "").replace("%28", "(");
    plain.split_once("query=INSERT INTO samples").is_some_and(|(_, rest)| rest.starts_with([' ', '(']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserts_of_samples_are_told_from_others() {
        assert!(is_insert_of_samples("/?query=INSERT+INTO+samples+%28a%29&x=1"));
        assert!(is_insert_of_samples("/?database=sonde&query=INSERT+INTO+%60samples%60%28%60a%60%29+FORMAT+RowBinary"));
        assert!(!is_insert_of_samples("/?query=INSERT+INTO+samples_other+VALUES"));
        assert!(!is_insert_of_samples("/?query=SELECT+1"));
        assert!(!is_insert_of_samples("/?query=INSERT+INTO+rollup_marks+SELECT+1"));
    }
}
