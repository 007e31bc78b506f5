//! The `sonde` command as a user runs it: arguments in; exit code, standard output and standard error out.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process::program;

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Its standard output as JSON.
    ///
    /// # Panics
    /// When it is not JSON or the command failed.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|fault| panic!("{fault}: {self:?}"))
    }

    /// Its standard output as an array of objects.
    ///
    /// # Panics
    /// When it is something else.
    pub fn rows(&self) -> Vec<Value> {
        self.json().as_array().unwrap_or_else(|| panic!("not a list: {self:?}")).clone()
    }
}

/// Where the command finds its mesh.
#[derive(Debug, Clone, Default)]
pub struct Cli {
    /// Environment of each call.
    pub env: Vec<(String, String)>,
}

impl Cli {
    /// A command for the mesh at `endpoint`.
    pub fn new(endpoint: &str, ca: &Path, key_file: &Path) -> Self {
        let env = [
            ("SONDE_ENDPOINT", endpoint.to_owned()),
            ("SONDE_CA", ca.display().to_string()),
            ("SONDE_KEY_FILE", key_file.display().to_string()),
        ];
        Self { env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
    }

    /// The same mesh, with another key.
    pub fn with_key(&self, key_file: &Path) -> Self {
        let mut other = self.clone();
        other.env.push(("SONDE_KEY_FILE".to_owned(), key_file.display().to_string()));
        other
    }

    /// Runs `sonde` with these arguments.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, args: &[&str]) -> Said {
        let mut command = Command::new(program("sonde"));
        for name in ["SONDE_ENDPOINT", "SONDE_CA", "SONDE_KEY_FILE"] {
            command.env_remove(name);
        }
        command.envs(self.env.iter().cloned()).args(args);
        let output = command.output().expect("sonde can be started");
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs `sonde` with these arguments and `--output json`.
    pub fn json(&self, args: &[&str]) -> Said {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        self.run(&all)
    }
}
