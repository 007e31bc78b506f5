//! The collector's ClickHouse: one client, its schema, its insert and its reads. The only module with ClickHouse text.
//! Never decides what is stored or retried; `ingest` does.

mod cluster;
pub mod coverage;
pub mod details;
mod error;
pub mod gaps;
mod grants;
mod http;
pub mod identity;
pub mod insert;
pub mod latency;
pub mod marks;
pub mod read;
pub mod retention;
pub mod rollup;
pub mod row;
mod schema;
mod verify;
mod write;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::RwLock;

pub use cluster::Cluster;
pub use error::ClickHouseError;
pub use schema::statements_for;
pub use verify::Findings;

use crate::config;

/// How long a read may take before the answer is no longer of use; also sent as `max_execution_time`.
const READ_DEADLINE: Duration = Duration::from_secs(15);
/// What the client waits beyond the server's own limit, so that the server's error arrives first.
const DEADLINE_MARGIN: Duration = Duration::from_secs(2);
/// How long the question "are you there" may take.
const READY_DEADLINE: Duration = Duration::from_secs(5);

/// Settings that are sent with an insert when the server knows them; an unknown one would fail the insert.
const INSERT_SETTINGS: [(&str, &str); 6] = [
    // Newer servers gather inserts on their own unless told not to: the answer would no longer prove the commit.
    ("async_insert", "0"),
    ("wait_for_async_insert", "1"),
    // One group is one block is one part: below this many rows the server never cuts an insert.
    ("max_insert_block_size", "1048449"),
    // `ingest/known.rs` lets a number into the pipeline once, so looking for copies inside of a group finds nothing and would
    // cost a third of the insert. Copies between parts, and gaps with one beginning, are hidden by the views in any case.
    ("optimize_on_insert", "0"),
    // A column of another type than the body says is refused and not converted: rows of another build would be changed.
    ("input_format_native_allow_types_conversion", "0"),
    // As `insert::INSERT_TIME_MAX` says.
    ("max_execution_time", "5"),
];
/// Sent with the hash of the group where the server knows it. It saves copies; it proves nothing.
const TOKEN_SETTING: &str = "insert_deduplication_token";

/// Connections to one ClickHouse. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: http::Endpoint,
    inserts: http::InsertClient,
    /// For statements that name no database, such as the one that creates it.
    bare: ::clickhouse::Client,
    /// For reads and DDL inside the database.
    reads: ::clickhouse::Client,
    /// One server, or the cluster whose servers hold the tables.
    cluster: Cluster,
    /// Which of our settings the server knows; `None` before it was asked, and again after it refused one.
    known_settings: RwLock<Option<Arc<BTreeSet<String>>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.inner.endpoint.shown_url()).finish_non_exhaustive()
    }
}

#[derive(::clickhouse::Row, Deserialize)]
struct NameRow {
    name: String,
}

impl Client {
    /// Prepares a client; does not dial.
    ///
    /// # Errors
    /// When the password file cannot be read.
    pub fn connect(config: &config::ClickHouse) -> Result<Self, ClickHouseError> {
        let endpoint = http::Endpoint::new(config)?;
        let bare = http::crate_client(&endpoint);
        let reads = bare
            .clone()
            .with_database(&endpoint.database)
            .with_setting("max_execution_time", READ_DEADLINE.as_secs().to_string());
        let inserts = http::insert_client();
        let cluster = Cluster::new(config.cluster.clone());
        Ok(Self {
            inner: Arc::new(Inner { endpoint, inserts, bare, reads, cluster, known_settings: RwLock::new(None) }),
        })
    }

    /// Asks whether ClickHouse answers, and which settings it knows. For start-up and readiness: asks anew each time.
    ///
    /// # Errors
    /// When it does not answer within 5 s, or refuses.
    pub async fn ready(&self) -> Result<(), ClickHouseError> {
        self.ask_settings().await.map(drop)
    }

    /// Brings database, tables and views to the version of this build. May be repeated, also by several at once.
    ///
    /// # Errors
    /// When a statement fails, or when an applied migration has changed since.
    pub async fn migrate(&self) -> Result<(), ClickHouseError> {
        schema::migrate(self).await
    }

    /// The settings among ours that the server knows; asked once, then remembered.
    async fn known_settings(&self) -> Result<Arc<BTreeSet<String>>, ClickHouseError> {
        if let Some(known) = self.inner.known_settings.read().await.as_ref() {
            return Ok(known.clone());
        }
        self.ask_settings().await
    }

    async fn ask_settings(&self) -> Result<Arc<BTreeSet<String>>, ClickHouseError> {
        let mut names: Vec<&str> = INSERT_SETTINGS.iter().map(|(name, _)| *name).collect();
        names.extend(write::WRITE_SETTINGS.iter().chain(self.inner.cluster.write_settings()).map(|(name, _)| *name));
        names.push(TOKEN_SETTING);
        let query = self.inner.bare.query("SELECT name FROM system.settings WHERE name IN ?").bind(names);
        let rows = self.bounded(READY_DEADLINE, query.fetch_all::<NameRow>()).await?;
        let known = Arc::new(rows.into_iter().map(|row| row.name).collect::<BTreeSet<_>>());
        *self.inner.known_settings.write().await = Some(known.clone());
        Ok(known)
    }

    /// Forgets what the server knows, because it has just refused a setting: it may be another version now.
    async fn forget_settings(&self) {
        *self.inner.known_settings.write().await = None;
    }

    /// Runs one call of the `clickhouse` crate under a deadline and maps its error.
    async fn bounded<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<T, ::clickhouse::error::Error>>,
    ) -> Result<T, ClickHouseError> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(ClickHouseError::from_crate(&self.inner.endpoint.shown_url(), &source)),
            Err(_elapsed) => Err(ClickHouseError::Unavailable {
                url: self.inner.endpoint.shown_url(),
                detail: format!("no answer within {} s", deadline.as_secs()),
            }),
        }
    }

    /// A read inside the database, bounded in time by server and client.
    async fn read<T>(
        &self,
        call: impl Future<Output = Result<T, ::clickhouse::error::Error>>,
    ) -> Result<T, ClickHouseError> {
        self.bounded(READ_DEADLINE + DEADLINE_MARGIN, call).await
    }
}
