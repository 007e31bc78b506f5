//! Says what is going on while something takes longer than a moment. Goes to standard error; never to a log.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::Stopwatch;

/// One step that is under way; says that it is done when dropped.
pub(super) struct Step {
    text: String,
    bar: Option<ProgressBar>,
    watch: Stopwatch,
}

impl Step {
    pub(super) fn begin(text: &str) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.set_message(text.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            Some(bar)
        } else {
            eprintln!("  {text} ...");
            None
        };
        Self { text: text.to_owned(), bar, watch: Stopwatch::start() }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let seconds = self.watch.elapsed().as_secs_f64();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            eprintln!("  {} ({seconds:.1} s)", self.text);
        } else if seconds > 2.0 {
            eprintln!("  {} took {seconds:.1} s", self.text);
        }
    }
}
