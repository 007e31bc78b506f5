//! Who may see and do what: scopes, verified keys, and the proof of a workspace that every store function asks for.
//! Never reads a store and never sees a secret; a key is known here by its hash only.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use sonde_proto::model::InvalidField;
use sonde_proto::model::id::{KeyId, WorkspaceId, cut};
use sonde_proto::model::time::Wall;
use uuid::Uuid;

/// Id of the instance's own workspace, `default`: the first, present from the first migration on.
pub const INSTANCE_WORKSPACE: WorkspaceId = WorkspaceId(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001));

/// Proof that work is done for a workspace. Made from a verified key or for a task of the collector's own,
/// never from an id that somebody sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    id: WorkspaceId,
    task: Option<Task>,
}

impl Workspace {
    /// The workspace of a key that was verified.
    pub fn from_verified(key: &KeyRow) -> Self {
        Self { id: key.workspace, task: None }
    }

    /// The instance's own workspace, for a task that no caller asked for. It may read across workspaces.
    pub fn system(task: Task) -> Self {
        Self { id: INSTANCE_WORKSPACE, task: Some(task) }
    }

    /// The workspace `target` as seen by the instance; `None` when `self` is neither the instance nor `target`.
    pub fn acting_in(&self, target: WorkspaceId) -> Option<Self> {
        (self.is_instance() || self.id == target).then_some(Self { id: target, task: self.task })
    }

    /// Its id.
    pub fn id(&self) -> WorkspaceId {
        self.id
    }

    /// Whether it is the instance's own workspace, which owns regions, probes and the other workspaces.
    pub fn is_instance(&self) -> bool {
        self.id == INSTANCE_WORKSPACE
    }

    /// The task, when no caller stands behind it.
    pub fn task(&self) -> Option<Task> {
        self.task
    }
}

/// Work that the collector does on its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Sets the instance up.
    Bootstrap,
    /// Redeems join tokens.
    Enrol,
    /// Holds probe streams: sessions, renewals.
    Link,
    /// Computes plans.
    Replan,
    /// Writes when probes were last seen.
    Presence,
    /// Reads the API keys.
    Keys,
    /// Reads which probes are refused.
    Deny,
    /// Keeps leases, and forgets what is long past.
    Lease,
    /// Computes rollups and has the store forget.
    Rollup,
}

impl Task {
    /// The word that the audit log shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Enrol => "enrol",
            Self::Link => "link",
            Self::Replan => "replan",
            Self::Presence => "presence",
            Self::Keys => "keys",
            Self::Deny => "deny",
            Self::Lease => "lease",
            Self::Rollup => "rollup",
        }
    }
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// What a key may do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Scope {
            $($(#[$doc])* $variant,)*
        }

        impl Scope {
            /// Every scope.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word that keys and people use.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

scopes! {
    /// Read checks.
    ChecksRead = "checks:read";
    /// Create, change and delete checks.
    ChecksWrite = "checks:write";
    /// Read probes.
    ProbesRead = "probes:read";
    /// Admit, drain and revoke probes.
    ProbesWrite = "probes:write";
    /// Read samples.
    SamplesRead = "samples:read";
    /// Read regions.
    RegionsRead = "regions:read";
    /// Create regions.
    RegionsWrite = "regions:write";
    /// Read workspaces.
    WorkspacesRead = "workspaces:read";
    /// Create workspaces.
    WorkspacesWrite = "workspaces:write";
    /// Read keys, without their secrets.
    KeysRead = "keys:read";
    /// Create and revoke keys.
    KeysWrite = "keys:write";
    /// Read the audit log.
    AuditRead = "audit:read";
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|scope| scope.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|scope| scope.name()).collect();
            InvalidField::new("scopes", format!("`{}` is not one of {}, *", cut(text), known.join(", ")))
        })
    }
}

/// The word for all scopes, those of later versions included.
pub const ALL_SCOPES: &str = "*";

/// The scopes of a key; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scopes {
    /// Everything, now and later.
    All,
    /// These and no others.
    Some(BTreeSet<Scope>),
}

impl Scopes {
    /// Reads the words that a person wrote.
    ///
    /// # Errors
    /// When there is none, or one is unknown; the field is `scopes`.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, InvalidField> {
        if words.is_empty() {
            return Err(InvalidField::new("scopes", "name at least one scope, such as checks:read, or *"));
        }
        let mut scopes = BTreeSet::new();
        let mut all = false;
        for word in words {
            match word.as_ref() {
                ALL_SCOPES => all = true,
                name => {
                    scopes.insert(name.parse()?);
                }
            }
        }
        Ok(if all { Self::All } else { Self::Some(scopes) })
    }

    /// Whether `scope` is among them.
    pub fn allow(&self, scope: Scope) -> bool {
        match self {
            Self::All => true,
            Self::Some(scopes) => scopes.contains(&scope),
        }
    }

    /// The first word of `other` that `self` does not cover, or `None` when it covers all of them.
    pub fn lacking(&self, other: &Self) -> Option<&'static str> {
        match (self, other) {
            (Self::All, _) => None,
            (Self::Some(_), Self::All) => Some(ALL_SCOPES),
            (Self::Some(mine), Self::Some(theirs)) => theirs.difference(mine).next().map(|scope| scope.name()),
        }
    }

    /// The words, in a fixed order.
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::All => vec![ALL_SCOPES.to_owned()],
            Self::Some(scopes) => scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        }
    }
}

/// An API key as it is stored; the secret itself is stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Its id.
    pub id: KeyId,
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// Its name for people.
    pub name: String,
    /// The first characters of the key, enough to recognise it.
    pub prefix: String,
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// What it may do.
    pub scopes: Scopes,
    /// When it was created.
    pub created_at: Wall,
    /// When it ends; `None` for never.
    pub expires_at: Option<Wall>,
    /// When it was revoked.
    pub revoked_at: Option<Wall>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_reads_back_from_its_name() {
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse::<Scope>().unwrap(), *scope);
        }
        let unknown = "checks:all".parse::<Scope>().unwrap_err();
        assert_eq!(unknown.field, "scopes");
        assert!(unknown.reason.contains("checks:write"), "{unknown}");
    }

    #[test]
    fn a_star_covers_everything_and_nothing_else_covers_a_star() {
        let all = Scopes::parse(&["checks:read", "*"]).unwrap();
        let some = Scopes::parse(&["checks:read", "checks:read", "keys:write"]).unwrap();
        assert!(Scope::ALL.iter().all(|scope| all.allow(*scope)));
        assert!(some.allow(Scope::ChecksRead) && !some.allow(Scope::ChecksWrite));
        assert_eq!(all.lacking(&some), None);
        assert_eq!(some.lacking(&all), Some("*"));
        assert_eq!(some.lacking(&Scopes::parse(&["checks:write"]).unwrap()), Some("checks:write"));
        assert_eq!(some.words(), ["checks:read", "keys:write"]);
        assert!(Scopes::parse::<&str>(&[]).is_err());
    }

    #[test]
    fn only_the_instance_acts_in_another_workspace() {
        let other = WorkspaceId(Uuid::from_u128(7));
        let instance = Workspace::system(Task::Bootstrap);
        let tenant = instance.acting_in(other).unwrap();
        assert_eq!(tenant.id(), other);
        assert!(!tenant.is_instance());
        assert_eq!(tenant.acting_in(INSTANCE_WORKSPACE), None);
        assert_eq!(tenant.acting_in(other), Some(tenant.clone()));
    }
}
