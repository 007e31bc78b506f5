//! What the numbers were measured on, and which commit was. Never measures.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::Context as _;

use crate::cpu;
use crate::rows::Sizes;

/// Processor, cores that may be used, kernel, memory, and how this program was built.
pub(crate) fn describe(sizes: Sizes) -> anyhow::Result<BTreeMap<&'static str, serde_json::Value>> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo cannot be read")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel does not say its version")?;
    let meminfo = fs::read_to_string("/proc/meminfo").context("/proc/meminfo cannot be read")?;
    let memory_kib: u64 = field(&meminfo, "MemTotal")
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .context("/proc/meminfo does not name MemTotal")?;
    let cpu = field(&cpuinfo, "model name").unwrap_or(std::env::consts::ARCH);
    Ok(BTreeMap::from([
        ("cpu", cpu.into()),
        ("cores", cpu::cores()?.len().into()),
        ("kernel", kernel.trim().into()),
        ("memory_mib", (memory_kib / 1_024).into()),
        ("build", if cfg!(debug_assertions) { "dev" } else { "release" }.into()),
        ("sizes", sizes.name.into()),
    ]))
}

/// The value after `name` and a colon, of the first line that has it.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Hash of the commit that is checked out, with `-dirty` when tracked files differ from it.
pub(crate) fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "HEAD"]) else { return "unknown".to_owned() };
    let is_dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    if is_dirty { format!("{hash}-dirty") } else { hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_files_are_found() {
        let text = "processor\t: 0\nmodel name\t: A CPU: fast\nMemTotal:       16000000 kB\n";
        assert_eq!(field(text, "model name"), Some("A CPU: fast"));
        assert_eq!(field(text, "MemTotal"), Some("16000000 kB"));
        assert_eq!(field(text, "model"), None);
    }

    #[test]
    fn this_machine_can_be_described() {
        let machine = describe(Sizes::QUICK).unwrap();
        assert!(machine["memory_mib"].as_u64().unwrap() > 100, "{machine:?}");
        assert!(machine["cores"].as_u64().unwrap() >= 1, "{machine:?}");
    }
}
