//! What goes wrong for a user of `sonde`: one sentence, an optional hint and an exit code by kind.

use std::fmt;
use std::path::Path;

/// Kind of a failure; each has its own exit code, so that scripts can tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything that is not the caller's doing. Exit code 1.
    Internal,
    /// A flag or field that cannot mean anything. Exit code 3.
    Invalid,
    /// The thing does not exist, or belongs to somebody else. Exit code 4.
    NotFound,
    /// No key, a wrong key, or a key without the scope. Exit code 5.
    Denied,
    /// The collector or a store behind it cannot be reached. Exit code 6.
    Unavailable,
    /// It exists already, or its state does not allow this. Exit code 7.
    Conflict,
    /// The configuration of this machine is wrong. Exit code 64.
    Config,
    /// Whoever read standard output has read enough, as `head` does. Nothing is said; exit code 0.
    ReaderGone,
}

impl Kind {
    /// The exit code of the process.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Invalid => 3,
            Self::NotFound => 4,
            Self::Denied => 5,
            Self::Unavailable => 6,
            Self::Conflict => 7,
            Self::Config => 64,
            Self::ReaderGone => 0,
        }
    }
}

/// A failure as the user reads it.
#[derive(Debug)]
pub struct CliError {
    /// Decides the exit code.
    pub kind: Kind,
    /// One sentence that names the field or the thing.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

/// Result of a command.
pub type Result<T> = std::result::Result<T, CliError>;

impl CliError {
    /// A failure without a hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// A field that cannot mean anything.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// A file or folder that cannot be read or written.
    pub fn file(path: &Path, source: &std::io::Error) -> Self {
        Self::new(Kind::Config, format!("{} cannot be used: {source}", path.display()))
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

impl From<sonde_proto::model::InvalidField> for CliError {
    fn from(fault: sonde_proto::model::InvalidField) -> Self {
        Self::invalid(fault.to_string())
    }
}

impl From<anyhow::Error> for CliError {
    fn from(source: anyhow::Error) -> Self {
        Self::new(Kind::Internal, format!("{source:#}"))
    }
}

impl From<std::io::Error> for CliError {
    fn from(source: std::io::Error) -> Self {
        Self::new(Kind::Internal, source.to_string())
    }
}
