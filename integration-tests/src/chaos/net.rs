//! The laboratory's network: a namespace per part, each with one cable to a router, and the router's rules, which cut links.
//!
//! Runs inside a network namespace of its own, so nothing of it outlives the run or touches the machine's network.
//! No part has a default route.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use super::options::FaultKind;
use super::party::{MESH_NETWORK, Party, ROUTER, TARGET_NETWORK};

/// A link that is cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// One end; the one whose packets vanish if only one way is cut.
    pub from: Ipv4Addr,
    /// The other end.
    pub to: Ipv4Addr,
    /// How.
    pub kind: FaultKind,
}

/// The network. Lives as long as the namespace that the driver runs in.
#[derive(Debug)]
pub struct Net {
    dir: PathBuf,
    cuts: BTreeMap<u64, Cut>,
}

impl Net {
    /// Makes the router; `dir` gets a file for each namespace.
    ///
    /// # Errors
    /// When the rights or the tools for it are missing.
    pub fn create(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        fed(&mut ip(&[]), "link set lo up\n")?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("this namespace may not forward packets")?;
        let net = Self { dir: dir.to_path_buf(), cuts: BTreeMap::new() };
        net.rule()?;
        Ok(net)
    }

    /// Gives `party` a namespace and a cable.
    ///
    /// # Errors
    /// When the rights or the tools for it are missing.
    pub fn add(&self, party: Party) -> anyhow::Result<()> {
        let file = self.file(party);
        File::create(&file)?;
        let mut unshare = Command::new("unshare");
        unshare.arg(format!("--net={}", file.display())).arg("true");
        run(&mut unshare)?;
        let (cable, address) = (format!("to-{party}"), party.address());
        let outside = format!(
            "link add {cable} type veth peer name eth0 netns {}\naddr add {ROUTER}/32 dev {cable}\nlink set {cable} up\n\
             route add {address}/32 dev {cable}\n",
            file.display()
        );
        fed(&mut ip(&[]), &outside)?;
        let inside = format!(
            "link set lo up\naddr add {address}/32 dev eth0\nlink set eth0 up\nroute add {ROUTER}/32 dev eth0\n\
             route add {MESH_NETWORK} via {ROUTER}\nroute add {TARGET_NETWORK} via {ROUTER}\n"
        );
        fed(self.command(party, OsStr::new("ip")).args(["-batch", "-"]), &inside)
    }

    /// A command that runs `program` in the namespace of `party`, as the process that is started.
    pub fn command(&self, party: Party, program: &OsStr) -> Command {
        let mut command = self.enter(party);
        command.arg("--").arg(program);
        command
    }

    /// The beginning of such a command, to which options of `nsenter` may be added.
    pub fn enter(&self, party: Party) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.file(party).display()));
        command
    }

    /// Cuts a link under the name `id`.
    ///
    /// # Errors
    /// When the rules are refused.
    pub fn cut(&mut self, id: u64, cut: Cut) -> anyhow::Result<()> {
        self.cuts.insert(id, cut);
        self.rule()
    }

    /// Heals the link that was cut under the name `id`.
    ///
    /// # Errors
    /// When the rules are refused.
    pub fn heal(&mut self, id: u64) -> anyhow::Result<()> {
        self.cuts.remove(&id);
        self.rule()
    }

    fn file(&self, party: Party) -> PathBuf {
        self.dir.join(party.to_string())
    }

    /// Puts the rules of all cuts in force at once.
    fn rule(&self) -> anyhow::Result<()> {
        let mut text = String::from(
            "table inet chaos\ndelete table inet chaos\n\
             table inet chaos { chain links { type filter hook forward priority 0; policy accept;\n",
        );
        for cut in self.cuts.values() {
            let (there, back) = (
                format!("ip saddr {} ip daddr {}", cut.from, cut.to),
                format!("ip saddr {} ip daddr {}", cut.to, cut.from),
            );
            match cut.kind {
                FaultKind::Drop => write!(text, "{there} drop\n{back} drop\n")?,
                FaultKind::OneWay => writeln!(text, "{there} drop")?,
                FaultKind::Reject => {
                    for way in [there, back] {
                        writeln!(text, "{way} meta l4proto tcp reject with tcp reset")?;
                    }
                }
                FaultKind::Kill | FaultKind::Freeze => anyhow::bail!("a {:?} does not cut a link", cut.kind),
            }
        }
        text.push_str("}\n}\n");
        fed(Command::new("nft").args(["-f", "-"]), &text)
    }
}

fn ip(args: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(args).args(["-batch", "-"]);
    command
}

/// Runs a command to its end.
fn run(command: &mut Command) -> anyhow::Result<()> {
    fed(command, "")
}

/// Runs a command to its end with `input` on its standard input.
fn fed(command: &mut Command, input: &str) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{name}` cannot be run"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A command that does not want its input says why when it ends.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "`{name}` failed: {}", said.trim().replace('\n', "; "));
    Ok(())
}
