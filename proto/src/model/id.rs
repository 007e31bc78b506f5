//! One id type per noun, so that no signature takes a bare `Uuid`, `String` or `u64`. Never generates an id.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::InvalidField;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidField;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| InvalidField::new($noun, format!("`{}` is not a UUID", cut(text))))
            }
        }

        impl $name {
            /// Reads the 16 bytes that the wire carries.
            ///
            /// # Errors
            /// When `bytes` is not exactly 16 bytes long.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, InvalidField> {
                Uuid::from_slice(bytes)
                    .map(Self)
                    .map_err(|_| InvalidField::new($noun, format!("must be 16 bytes, not {}", bytes.len())))
            }
        }
    };
}

uuid_id!(
    /// A tenant.
    WorkspaceId,
    "workspace_id"
);
uuid_id!(
    /// A check: what to measure, how often, from where.
    CheckId,
    "check_id"
);
uuid_id!(
    /// An enrolled probe.
    ProbeId,
    "probe_id"
);
uuid_id!(
    /// One life of a probe process: 128 random bits drawn at start.
    BootId,
    "boot"
);
impl BootId {
    /// Stands for the boot of the stream that a message came on; no process has it.
    pub const OF_STREAM: Self = Self(Uuid::nil());
}

uuid_id!(
    /// An API key (not its secret).
    KeyId,
    "key_id"
);

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

counter!(
    /// Position of a sample among all samples of one boot; the first is 1. Given when a batch is sealed.
    Seq
);
counter!(
    /// Version of the work of one probe; a probe accepts only a newer one.
    Generation
);
counter!(
    /// Version of the whole configuration in Postgres.
    ConfigVersion
);
counter!(
    /// Fencing number of a probe's session; a newer session outranks an older one.
    Epoch
);

/// Longest region name in bytes.
pub const REGION_LEN_MAX: usize = 32;

/// Name of a place that probes stand in, such as `eu-west`: 2 to 32 of `a-z`, `0-9`, `-`, starting with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionId(String);

impl RegionId {
    /// Takes a region name.
    ///
    /// # Errors
    /// When the name has another form than the type's description says.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidField> {
        let name = name.into();
        let lettered = name.starts_with(|c: char| c.is_ascii_lowercase());
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !lettered || !plain || name.len() < 2 || name.len() > REGION_LEN_MAX || name.ends_with('-') {
            return Err(InvalidField::new(
                "region",
                format!(
                    "`{}` is not a region name: use 2 to {REGION_LEN_MAX} of a-z, 0-9 and -, starting with a letter",
                    cut(&name)
                ),
            ));
        }
        Ok(Self(name))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RegionId {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// Shortens hostile input for an error message: at most 40 characters, control characters escaped.
pub fn cut(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 40;
    let shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN_CHARS_MAX { format!("{shown}…") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_names_are_checked() {
        for good in ["eu-west", "us-east-1", "ab"] {
            assert!(RegionId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "EU-west", "1eu", "eu_west", "eu-", &"a".repeat(33), "eu\n"] {
            assert!(RegionId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hostile_text_is_cut_and_escaped() {
        assert_eq!(cut("a\nb"), "a\\nb");
        assert!(cut(&"x".repeat(500)).chars().count() <= 41);
    }
}
