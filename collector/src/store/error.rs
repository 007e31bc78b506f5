//! What can go wrong in the configuration store, as the callers need to tell it apart. Never shows SQL or a URL.

use sonde_proto::model::InvalidField;
use thiserror::Error;

/// A failure of the configuration store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Postgres cannot be reached, is overloaded, or gave up on a lock: the same call may work soon.
    #[error("the configuration store (Postgres) cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// The thing does not exist, or belongs to somebody else, which is the same to the caller.
    #[error("{noun} `{id}` does not exist")]
    NotFound {
        /// Kind of thing, such as `check`.
        noun: &'static str,
        /// What was asked for.
        id: String,
    },
    /// The name is taken.
    #[error("{noun} `{name}` already exists; choose another name")]
    Conflict {
        /// Kind of thing, such as `check`.
        noun: &'static str,
        /// The name that is taken.
        name: String,
    },
    /// What was asked for cannot be done in the state that things are in.
    #[error("{0}")]
    Precondition(String),
    /// A limit is reached.
    #[error("{noun} are limited to {limit}; delete some that are not needed")]
    Limit {
        /// What is limited, such as `checks of a workspace`.
        noun: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A value from outside makes no sense together with what is stored.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// A row cannot be read back: somebody changed it by hand, or a newer version wrote it.
    #[error("the stored {noun} `{id}` cannot be read")]
    Corrupt {
        /// Kind of thing, such as `check`.
        noun: &'static str,
        /// Which one.
        id: String,
        /// What is wrong with it.
        #[source]
        source: InvalidField,
    },
    /// A migration failed, or was changed after it had been applied.
    #[error("the tables of the configuration store cannot be brought up to date")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// Postgres answered with an error that nobody foresaw.
    #[error("the configuration store (Postgres) refused a statement")]
    Database(#[source] sqlx::Error),
}

impl StoreError {
    /// Whether the same call may work in a few seconds.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Precondition(_)
            | Self::Limit { .. }
            | Self::Invalid(_)
            | Self::Corrupt { .. }
            | Self::Migration(_)
            | Self::Database(_) => false,
        }
    }

    /// A thing that is not there.
    #[expect(clippy::needless_pass_by_value, reason = "ids are copied, and callers need no ampersand")]
    pub(crate) fn not_found(noun: &'static str, id: impl ToString) -> Self {
        Self::NotFound { noun, id: id.to_string() }
    }

    /// A row that cannot be read back.
    #[expect(clippy::needless_pass_by_value, reason = "ids are copied, and callers need no ampersand")]
    pub(crate) fn corrupt(noun: &'static str, id: impl ToString, source: InvalidField) -> Self {
        Self::Corrupt { noun, id: id.to_string(), source }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_away(&error) { Self::Unavailable(error) } else { Self::Database(error) }
    }
}

/// The same failure, put as a fault of the configuration when the server knows no such user, password or database.
pub(super) fn blame_url(error: StoreError) -> StoreError {
    let StoreError::Database(sqlx::Error::Database(db)) = &error else { return error };
    if db.code().is_some_and(|code| code.starts_with("28") || code == "3D000") {
        return InvalidField::new("postgres.url", format!("is refused by the server: {}", db.message())).into();
    }
    error
}

/// Whether a failed statement violated the named unique constraint or index.
pub(crate) fn violates(error: &sqlx::Error, constraint: &str) -> bool {
    error.as_database_error().is_some_and(|db| db.is_unique_violation() && db.constraint() == Some(constraint))
}

/// Whether the failure lies in reaching Postgres, or in its present state, rather than in the statement.
fn is_away(error: &sqlx::Error) -> bool {
    if let Some(code) = error.as_database_error().and_then(|db| db.code()) {
        return is_passing(&code);
    }
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
    )
}

/// SQLSTATEs that pass by themselves: connection failures, shutdown and start-up, too many connections,
/// time limits, locks, deadlocks, fail-over to a standby that is still read-only.
fn is_passing(code: &str) -> bool {
    code.starts_with("08")
        || code.starts_with("57P")
        || matches!(code, "53300" | "57014" | "55P03" | "40001" | "40P01" | "25P03" | "25006")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_away_is_told_from_a_wrong_statement() {
        for code in ["08006", "57P01", "57P03", "53300", "55P03", "40P01", "57014"] {
            assert!(is_passing(code), "{code}");
        }
        for code in ["42601", "23505", "3D000", "28P01", "42501"] {
            assert!(!is_passing(code), "{code}");
        }
        assert!(StoreError::from(sqlx::Error::PoolTimedOut).is_retryable());
        assert!(!StoreError::from(sqlx::Error::RowNotFound).is_retryable());
    }
}
