//! Where the engine library is. Never fetches it.

use std::path::{Path, PathBuf};

/// The version of the library that this program is made for; `ops/setup-engine.sh` fetches the same.
pub(crate) const VERSION: &str = "26.7.3-stable.1";

/// The library is not there.
#[derive(Debug, thiserror::Error)]
#[error("the ClickHouse engine library is not at {0}; run `make setup`, or set SONDE_LIBCHDB to its path")]
pub(crate) struct Missing(PathBuf);

/// Finds the library: `SONDE_LIBCHDB` if set, else the user's cache folder.
///
/// # Errors
/// When there is no such file.
pub(crate) fn find() -> Result<PathBuf, Missing> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = locate(variable("SONDE_LIBCHDB"), variable("XDG_CACHE_HOME"), variable("HOME"));
    if path.is_file() { Ok(path) } else { Err(Missing(path)) }
}

fn locate(named: Option<PathBuf>, cache: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    named.unwrap_or_else(|| {
        let cache = cache.unwrap_or_else(|| home.unwrap_or_default().join(".cache"));
        cache.join(Path::new("sonde/libchdb")).join(VERSION).join("libchdb.so")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_cache() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(locate(path("/x.so"), path("/c"), path("/h")), Path::new("/x.so"));
        assert_eq!(locate(None, path("/c"), path("/h")), Path::new("/c/sonde/libchdb/26.7.3-stable.1/libchdb.so"));
        assert_eq!(locate(None, None, path("/h")), Path::new("/h/.cache/sonde/libchdb/26.7.3-stable.1/libchdb.so"));
    }

    #[test]
    fn the_set_up_fetches_this_version() {
        assert!(include_str!("../../setup-engine.sh").contains(&format!("\nVERSION={VERSION}\n")));
    }
}
