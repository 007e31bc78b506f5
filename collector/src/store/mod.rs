//! The configuration store: the only place with SQL for Postgres. Opens, migrates and watches it.
//! Every function on data takes a [`crate::authz::Workspace`]; a mutation commits through [`AuditedTx`] only.
//! Never keeps state of its own: what Postgres does not hold is not configured.

mod audit;
mod boots;
mod certificates;
mod check_audit;
mod checks;
mod closed_boots;
mod collectors;
mod error;
mod evidence;
mod intent;
mod keys;
mod lease;
mod migrate;
mod periods;
mod placements;
mod plans;
mod probes;
mod regions;
mod requests;
mod retention;
mod sessions;
mod tokens;
mod tx;
mod version;
mod workspaces;

use std::str::FromStr as _;
use std::time::Duration;

use sonde_proto::model::InvalidField;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};

use crate::config;

pub use audit::AuditRow;
pub use boots::{BootSeen, Heard, HeardElsewhere};
pub use certificates::Renewal;
pub use checks::{CHECKS_PER_WORKSPACE_MAX, CheckRow, DEFINITION_BYTES_PER_WORKSPACE_MAX, NewCheck};
pub use closed_boots::{FormerBoot, FormerBoots, OwnSession};
pub use collectors::{Life, Renewed};
pub use error::StoreError;
pub use evidence::{BootRow, EVIDENCE_ROWS_MAX, EvidenceRows, PlacementRow};
pub use intent::{IntentRow, StoredIntent, StoredRight};
pub use keys::{KEYS_PER_WORKSPACE_MAX, NewKey};
pub use lease::{LEADER, LeaseEpoch};
pub use periods::{PERIODS_MAX, PeriodRow};
pub use placements::{PlaceKey, Placed, PlacementChange};
pub use plans::StoredPlans;
pub use probes::{PROBES_MAX, ProbeRow};
pub use regions::{REGIONS_MAX, RegionRow};
pub use retention::{KEEP_DAYS, KeepChange, KeepDays};
pub use sessions::Opened;
pub use tokens::{Attempt, Enrolled, NewToken, Redeemed};
pub use tx::{Actor, AuditEntry, AuditedTx};
pub use version::{Hints, Versions};
pub use workspaces::{WORKSPACES_MAX, WorkspaceRow};

/// Connections to Postgres. Postgres allows 100 by default; six collectors and a person fit.
const CONNECTIONS_MAX: u32 = 16;
/// Wait for a free or new connection. Longer than any statement that a healthy store needs.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait of a task of the collector's own for one answer, which a healthy store gives within milliseconds.
pub const ANSWER_MAX: Duration = Duration::from_secs(4);
/// The same for what reads or writes the whole configuration.
pub const LARGE_ANSWER_MAX: Duration = Duration::from_secs(12);
/// How long a connection that somebody gave back may take to show that it still works.
const RELEASE_MAX: Duration = Duration::from_secs(5);
/// Longest statement, in milliseconds, as Postgres itself counts it.
const STATEMENT_TIMEOUT_MS: &str = "10000";
/// Longest wait for a row that somebody else holds, in milliseconds.
const LOCK_TIMEOUT_MS: &str = "5000";
/// Longest pause inside a transaction, in milliseconds: a collector that was stopped must not hold rows for ever.
const IDLE_IN_TRANSACTION_TIMEOUT_MS: &str = "15000";

/// The configuration store. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// Prepares the connections without opening one; must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for field `postgres.url` when it is malformed, or would travel in clear text.
    pub fn open(config: &config::Postgres) -> Result<Self, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_release(|connection, _| Box::pin(still_works(connection)))
            .connect_lazy_with(connect_options(config)?);
        Ok(Self { pool })
    }

    /// Opens the store and makes sure that it answers.
    ///
    /// # Errors
    /// As [`Store::open`], and when the server knows no such user or database; [`StoreError::Unavailable`] when
    /// nothing answers within 5 s.
    pub async fn connect(config: &config::Postgres) -> Result<Self, StoreError> {
        let store = Self::open(config)?;
        store.ping().await.map_err(error::blame_url)?;
        Ok(store)
    }

    /// Asks whether the store answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not within [`ANSWER_MAX`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        within(ANSWER_MAX, async {
            sqlx::query("select 1").execute(&self.pool).await?;
            Ok(())
        })
        .await
    }

    /// Brings the tables to the state that this build needs. Safe to run on several collectors at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], or [`StoreError::Migration`] when a migration fails or was changed.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrate::run(&self.pool).await
    }

    /// Ends all connections, after the statements that are under way.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Waits for an answer of the store, but not for ever. Postgres counts the time of a statement itself; only the caller
/// notices that Postgres hangs or that the network swallows what it says.
///
/// # Errors
/// That of `call`, or [`StoreError::Unavailable`] when `limit` has passed; whether the call took effect is not known then.
pub async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let overdue = |_| {
        let text = format!("no answer within {} s", limit.as_secs());
        StoreError::from(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text)))
    };
    tokio::time::timeout(limit, call).await.map_err(overdue)?
}

/// Whether the pool may keep a connection. One whose caller gave up may hang for ever, and with it a place in the pool.
async fn still_works(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let overdue = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "the connection does not answer any more");
    // An error, and not `false`: only after an error does the pool close without a word to the other end.
    tokio::time::timeout(RELEASE_MAX, connection.ping()).await.map_err(overdue)??;
    Ok(true)
}

/// A URL as connection options, with the walls that hold for every connection.
fn connect_options(config: &config::Postgres) -> Result<PgConnectOptions, StoreError> {
    let malformed = |reason: &str| StoreError::Invalid(InvalidField::new("postgres.url", reason));
    // The driver's own error may quote the URL, and with it a password.
    let options = PgConnectOptions::from_str(&config.url)
        .map_err(|_| malformed("is not a Postgres URL such as postgres:///sonde?host=/run/postgresql&user=sonde"))?;
    let local = options.get_socket().is_some() || options.get_host().starts_with('/');
    let options = match options.get_ssl_mode() {
        _ if local => options,
        PgSslMode::VerifyFull | PgSslMode::VerifyCa => options,
        PgSslMode::Prefer => options.ssl_mode(PgSslMode::VerifyFull),
        PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Require => {
            return Err(malformed("goes over a network, so it needs sslmode=verify-full, or host=/… for a socket"));
        }
    };
    Ok(options.application_name("sonde-collector").options([
        ("statement_timeout", STATEMENT_TIMEOUT_MS),
        ("lock_timeout", LOCK_TIMEOUT_MS),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT_MS),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str) -> Result<PgSslMode, String> {
        connect_options(&config::Postgres { url: url.to_owned() })
            .map(|options| options.get_ssl_mode())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn postgres_is_reached_by_socket_or_verified_tls_only() {
        assert!(check("postgres:///sonde?host=/run/dir&user=sonde").is_ok());
        assert!(matches!(check("postgres://db.example/sonde"), Ok(PgSslMode::VerifyFull)));
        assert!(matches!(check("postgres://db.example/sonde?sslmode=verify-ca"), Ok(PgSslMode::VerifyCa)));
        for mode in ["disable", "allow", "require"] {
            let error = check(&format!("postgres://me:hunter2@db.example/sonde?sslmode={mode}")).unwrap_err();
            assert!(error.starts_with("postgres.url: ") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_malformed_url_is_refused_without_showing_its_password() {
        for url in ["", "nonsense", "postgres://me:hunter2@:x/", "postgres://me:hunter2@h/d?sslmode=hunter2"] {
            let error = check(url).unwrap_err();
            assert!(error.starts_with("postgres.url: ") && !error.contains("hunter2"), "{error}");
        }
    }
}
