//! What a run keeps: the checkpoint it resumes from, the log that people read, and the report that programs read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::options::Options;
use super::verdict::Verdict;

/// Head of a new log.
const HEAD: &str = "# Chaos runs\n\n\
    One line per range: what was killed, what was counted, what was wrong. `docs/guide/chaos.md` says how to read it.\n\n\
    | range | commit | seed | from | until | kills | freezes and cuts | samples | expected | gaps | causes | unaccounted | \
    duplicates visible | physical | samples/s | result |\n\
    |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";

/// A run so far; this is the checkpoint's form.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Journal {
    /// Seed of the run.
    pub seed: u64,
    /// First range that is not done.
    pub next_range: u64,
    options: Options,
    verdicts: Vec<Verdict>,
}

impl Journal {
    /// Goes on with the checkpoint that `options` name, or begins anew with the given seed or a drawn one.
    ///
    /// # Errors
    /// When the checkpoint is not readable or belongs to a run with other options or another first range.
    pub fn open(options: &mut Options, draw: impl FnOnce() -> u64) -> anyhow::Result<Self> {
        if let Some(path) = options.checkpoint.clone().filter(|path| path.exists()) {
            let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            let journal: Self = serde_json::from_str(&text)
                .with_context(|| format!("{} is no checkpoint of this program", path.display()))?;
            let mut own = options.clone();
            own.seed = own.seed.or(Some(journal.seed));
            // The last range and the places of files may change; a commit names what each range ran.
            let comparable = |options: &Options| Options {
                to: 0,
                commit: String::new(),
                checkpoint: None,
                log: None,
                report: None,
                keep: None,
                ..options.clone()
            };
            anyhow::ensure!(
                comparable(&own) == comparable(&journal.options),
                "--checkpoint: {} belongs to a run with other options, which has not ended; name another file, or delete it to \
                 give that run up",
                path.display()
            );
            *options = own;
            return Ok(journal);
        }
        let seed = options.seed.unwrap_or_else(draw);
        options.seed = Some(seed);
        Ok(Self { seed, next_range: options.from, options: options.clone(), verdicts: Vec::new() })
    }

    /// Adds a range and writes every file that `options` name.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn add(&mut self, options: &Options, verdict: Verdict) -> anyhow::Result<()> {
        if let Some(path) = &options.log {
            log(path, &Self::line(&options.commit, &verdict))?;
        }
        self.next_range = verdict.range + 1;
        self.verdicts.push(verdict);
        if let Some(path) = &options.report {
            write(path, &serde_json::to_string_pretty(&self.verdicts)?)?;
        }
        if let Some(path) = &options.checkpoint {
            write(path, &serde_json::to_string(self)?)?;
        }
        Ok(())
    }

    /// Removes the checkpoint of a run that is done, so that the same command is a new run the next time.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn finish(&self, options: &Options) -> anyhow::Result<()> {
        match &options.checkpoint {
            Some(path) if path.exists() => {
                fs::remove_file(path).with_context(|| format!("{} cannot be removed", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether every range has passed.
    pub fn has_passed(&self) -> bool {
        self.verdicts.iter().all(Verdict::has_passed)
    }

    /// A range as a line of the log.
    pub fn line(commit: &str, verdict: &Verdict) -> String {
        let result = if verdict.has_passed() { "all accounted for".to_owned() } else { "**WRONG**".to_owned() };
        format!(
            "| {} | {commit} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {result} |",
            verdict.range,
            verdict.seed,
            verdict.from,
            verdict.until,
            counts(&verdict.kills),
            counts(&verdict.disturbances),
            verdict.stored,
            verdict.expected,
            verdict.gaps,
            counts(&verdict.causes),
            verdict.unaccounted,
            verdict.duplicates,
            verdict.physical_duplicates,
            verdict.rate,
        )
    }

    /// All ranges in one sentence.
    pub fn summary(&self) -> String {
        let sum = |field: fn(&Verdict) -> u64| self.verdicts.iter().map(field).sum::<u64>();
        format!(
            "{} ranges: {} kills, {} samples of {} slots, {} gaps, {} unaccounted, {} visible duplicates, {} physical; {}",
            self.verdicts.len(),
            sum(Verdict::kills_total),
            sum(|verdict| verdict.stored),
            sum(|verdict| verdict.expected),
            sum(|verdict| verdict.gaps),
            sum(|verdict| verdict.unaccounted),
            sum(|verdict| verdict.duplicates),
            sum(|verdict| verdict.physical_duplicates),
            if self.has_passed() { "all is well" } else { "something is WRONG" },
        )
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "-".to_owned();
    }
    counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

fn log(path: &Path, line: &str) -> anyhow::Result<()> {
    let is_new = !path.exists();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::options().create(true).append(true).open(path)?;
    if is_new {
        file.write_all(HEAD.as_bytes())?;
    }
    writeln!(file, "{line}").with_context(|| format!("{} cannot be written", path.display()))
}

/// Writes a file as a whole: a reader sees the old one or the new one.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).with_context(|| format!("{} cannot be written", draft.display()))?;
    fs::rename(&draft, path).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &[&str], checkpoint: &Path) -> Options {
        let line = ["sonde-chaos"].iter().chain(words).copied();
        Options { checkpoint: Some(checkpoint.to_path_buf()), ..Line::parse_from(line).options }
    }

    #[test]
    fn a_run_goes_on_where_it_was_left_and_begins_anew_when_it_was_done() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("chaos.json");
        let mut first = options(&["--to", "2"], &checkpoint);
        let mut journal = Journal::open(&mut first, || 7).unwrap();
        journal.add(&first, Verdict::default()).unwrap();
        let mut again = options(&["--to", "2"], &checkpoint);
        let mut resumed = Journal::open(&mut again, || 8).unwrap();
        assert_eq!((resumed.seed, resumed.next_range, again.seed), (7, 1, Some(7)));
        for other in [["--rate", "500"], ["--from", "1"]] {
            let refused = Journal::open(&mut options(&[&other[..], &["--to", "2"]].concat(), &checkpoint), || 8);
            assert!(refused.unwrap_err().to_string().contains("has not ended"), "{other:?}");
        }
        resumed.add(&again, Verdict { range: 1, ..Verdict::default() }).unwrap();
        resumed.finish(&again).unwrap();
        let mut next = options(&["--to", "2"], &checkpoint);
        assert_eq!(Journal::open(&mut next, || 9).unwrap().next_range, 0);
    }
}
