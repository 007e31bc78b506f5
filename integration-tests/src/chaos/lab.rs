//! The laboratory: stores, collectors, probes and targets as processes, each on its own network, and the way to ask them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use sonde_ops::client::{Access, Client};
use sonde_ops::error::{CliError, Kind};
use sonde_proto::model::id::{CheckId, RegionId};
use sonde_proto::wire;
use uuid::Uuid;

use super::clock;
use super::config;
use super::enter::{SHM, program};
use super::net::Net;
use super::options::Options;
use super::part::Part;
use super::party::{Party, port};
use super::stores::{self, Asker, Postgres};

/// Patience with anything that starts on a busy machine.
pub const START_MAX: Duration = Duration::from_secs(120);
/// Distance between two looks at a condition.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// Distance between two slots of a check and region.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How long a run of a check may take. Short, so that a cut cable to a target keeps few runs waiting.
const TIMEOUT: Duration = Duration::from_millis(300);
/// Checks that are created at the same time.
const CREATED_AT_ONCE: usize = 8;
/// Targets; several, so that a probe that runs a whole region has ports enough.
const TARGETS: u8 = 4;

/// Everything of one range. All processes end when it is dropped.
#[derive(Debug)]
pub struct Lab {
    /// The network.
    pub net: Net,
    /// Every part.
    pub parts: BTreeMap<Party, Part>,
    /// Region of each probe.
    pub regions_of: BTreeMap<Party, RegionId>,
    /// Every region.
    pub regions: BTreeSet<RegionId>,
    /// The checks; each runs in every region.
    pub checks: Vec<CheckId>,
    /// Asks the engine.
    pub engine: Asker,
    postgres: Postgres,
    dir: PathBuf,
}

impl Lab {
    /// Starts everything, creates the checks and waits until each is measured in every region.
    ///
    /// # Errors
    /// When a part does not start; its log is shown.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let dir = Path::new(SHM).join("lab");
        fs::create_dir_all(&dir)?;
        let net = Net::create(&dir.join("net"))?;
        net.add(Party::Postgres)?;
        let postgres = Postgres::create(&net, &dir)?;
        let mut lab = Self {
            net,
            parts: BTreeMap::new(),
            regions_of: BTreeMap::new(),
            regions: config::regions(options.regions)?,
            checks: Vec::new(),
            engine: Asker::default(),
            postgres,
            dir,
        };
        lab.start_stores().await?;
        for number in 0..TARGETS {
            lab.add(Party::Target(number))?;
        }
        lab.start_collectors(options).await?;
        lab.start_probes(options).await?;
        lab.create_checks(options.checks()).await?;
        lab.wait_for_load().await?;
        Ok(lab)
    }

    /// Starts a part that is down.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn raise(&mut self, party: Party) -> anyhow::Result<()> {
        let command = self.command(party)?;
        self.part(party).start(command)
    }

    /// A part.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn part(&mut self, party: Party) -> &mut Part {
        self.parts.get_mut(&party).expect("the laboratory has this part")
    }

    /// Every party of which the role allows faults.
    pub fn parties(&self) -> Vec<Party> {
        self.parts.keys().copied().filter(|party| party.role().is_some()).collect()
    }

    /// A connection to the admin port of collector `number`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn admin(&self, number: u8) -> anyhow::Result<Client> {
        Client::connect(&self.access(number)).await.map_err(|fault| sentence(&fault))
    }

    /// How to reach the admin port of collector `number`.
    pub fn access(&self, number: u8) -> Access {
        Access {
            endpoint: format!("https://{}:{}", Party::Collector(number).address(), port::ADMIN),
            ca: config::ca_dir(&self.dir).join("ca.pem"),
            key_file: self.dir.join("admin.key"),
        }
    }

    /// Connection URL of Postgres.
    pub fn postgres_url(&self) -> String {
        Postgres::url(&self.dir)
    }

    fn command(&self, party: Party) -> anyhow::Result<Command> {
        match party {
            Party::Engine => stores::engine(&self.net, &self.dir),
            Party::Postgres => self.postgres.serve(&self.net),
            Party::Collector(_) => {
                let mut command = self.net.command(party, program("sonde-collector")?.as_os_str());
                command.args(["serve", "--config"]).arg(config::file(&self.dir, party));
                Ok(command)
            }
            Party::Probe(_) => {
                let mut command = self.net.command(party, program("sonde-probe")?.as_os_str());
                command.args(["run", "--config"]).arg(config::file(&self.dir, party));
                Ok(command)
            }
            Party::Target(_) => {
                let mut command = self.net.command(party, program("sonde-chaos")?.as_os_str());
                command.arg("target").arg(format!("{}:{}", party.address(), port::TARGET));
                Ok(command)
            }
        }
    }

    /// Gives a party its network, unless it has one, and starts it.
    fn add(&mut self, party: Party) -> anyhow::Result<()> {
        if party != Party::Postgres {
            self.net.add(party)?;
        }
        self.parts.insert(party, Part::new(party, &self.dir));
        self.raise(party)
    }

    async fn start_stores(&mut self) -> anyhow::Result<()> {
        self.add(Party::Postgres)?;
        self.add(Party::Engine)?;
        until(self, "Postgres is ready", async |lab| Ok(lab.postgres.is_ready().then_some(()))).await?;
        self.postgres.create_database(&self.net)?;
        until(self, "the engine answers", async |lab| {
            let asked = lab.engine.rows("SELECT 1 FORMAT TabSeparated").await;
            // The database of the product is not there yet, which is an answer too.
            Ok(asked.map_or_else(|fault| fault.to_string().contains("refused"), |_| true).then_some(()))
        })
        .await
    }

    async fn start_collectors(&mut self, options: &Options) -> anyhow::Result<()> {
        for number in 0..u8::try_from(options.collectors)? {
            let party = Party::Collector(number);
            config::write_collector(&self.dir, party, options.collectors)?;
            self.net.add(party)?;
            if number == 0 {
                let mut command = self.net.command(party, program("sonde-collector")?.as_os_str());
                command.args(["bootstrap", "--config"]).arg(config::file(&self.dir, party));
                let said = command.arg("--admin-key-file").arg(self.dir.join("admin.key")).output()?;
                anyhow::ensure!(said.status.success(), "bootstrap: {}", String::from_utf8_lossy(&said.stderr).trim());
            }
            self.parts.insert(party, Part::new(party, &self.dir));
            self.raise(party)?;
            until(self, "a collector answers", async |lab| Ok(lab.admin(number).await.ok().map(drop))).await?;
        }
        Ok(())
    }

    async fn start_probes(&mut self, options: &Options) -> anyhow::Result<()> {
        let admin = self.admin(0).await?;
        let mut number: u8 = 0;
        for region in self.regions.clone() {
            let request = wire::CreateRegionRequest { name: region.as_str().to_owned() };
            admin.create_region(request).await.map_err(|fault| sentence(&fault))?;
            for _ in 0..options.probes {
                let party = Party::Probe(number);
                let request = wire::CreateJoinTokenRequest {
                    region: region.as_str().to_owned(),
                    name: party.to_string(),
                    ttl_s: 0,
                };
                let token = admin.create_join_token(request).await.map_err(|fault| sentence(&fault))?;
                config::write_probe(&self.dir, party, options.collectors, &token.join_string)?;
                self.regions_of.insert(party, region.clone());
                self.add(party)?;
                number += 1;
            }
        }
        let wanted = usize::from(number);
        until(self, "every probe is live", async |lab| Ok((lab.live_probes().await? == wanted).then_some(()))).await
    }

    /// Number of probes that the mesh calls live; 0 when nobody answers.
    ///
    /// # Errors
    /// Never at present.
    pub async fn live_probes(&self) -> anyhow::Result<usize> {
        for number in 0..u8::try_from(self.collectors())? {
            let Ok(admin) = self.admin(number).await else { continue };
            let Ok(list) = admin.list_probes(wire::ListProbesRequest::default()).await else { continue };
            return Ok(list.probes.iter().filter(|probe| probe.state == "live").count());
        }
        Ok(0)
    }

    /// Number of collectors.
    pub fn collectors(&self) -> usize {
        self.parts.keys().filter(|party| matches!(party, Party::Collector(_))).count()
    }

    async fn create_checks(&mut self, count: usize) -> anyhow::Result<()> {
        let admin = self.admin(0).await?;
        let regions: Vec<String> = self.regions.iter().map(|region| region.as_str().to_owned()).collect();
        let create = |number: usize| {
            let (admin, definition) = (admin.clone(), definition(number, &regions));
            async move { create_check(&admin, definition).await }
        };
        self.checks = futures::stream::iter(0..count).map(create).buffered(CREATED_AT_ONCE).try_collect().await?;
        Ok(())
    }

    async fn wait_for_load(&mut self) -> anyhow::Result<()> {
        let wanted = u64::try_from(self.checks.len() * self.regions.len())?;
        until(self, "every check is measured in every region", async |lab| {
            let query = "SELECT uniqExact(check_id, region) FROM samples WHERE slot_at > now64() - 4";
            Ok((lab.engine.number(query).await? == wanted).then_some(()))
        })
        .await
    }
}

/// Creates a check, also when Postgres is slow for a while; the same request twice makes one check.
async fn create_check(admin: &Client, definition: wire::CheckDefinition) -> anyhow::Result<CheckId> {
    let request_id = Uuid::new_v4().to_string();
    let request = wire::CreateCheckRequest { definition: Some(definition), paused: false, request_id };
    let begin = clock::moment();
    loop {
        match admin.create_check(request.clone()).await {
            Ok(check) => return Ok(check.id.parse()?),
            Err(fault) if fault.kind == Kind::Unavailable && begin.elapsed() < START_MAX => {
                tokio::time::sleep(LOOK_PERIOD).await;
            }
            Err(fault) => return Err(sentence(&fault)),
        }
    }
}

fn definition(number: usize, regions: &[String]) -> wire::CheckDefinition {
    let target = Party::Target(u8::try_from(number % usize::from(TARGETS)).expect("there are few targets"));
    let tcp =
        wire::TcpCheck { host: target.address().to_string(), port: u32::from(port::TARGET), ..Default::default() };
    let micros = |length: Duration| u64::try_from(length.as_micros()).expect("it is short");
    wire::CheckDefinition {
        name: format!("check-{number}"),
        kind: Some(wire::CheckKind { kind: Some(wire::check_kind::Kind::Tcp(tcp)) }),
        interval_us: micros(INTERVAL),
        timeout_us: micros(TIMEOUT),
        regions: regions.to_vec(),
        ..Default::default()
    }
}

/// An error of the admin API as one sentence.
pub fn sentence(fault: &CliError) -> anyhow::Error {
    anyhow::anyhow!("the admin API answered: {}", fault.message)
}

/// Looks until `condition` yields a value; a part that ends meanwhile ends the wait.
///
/// # Errors
/// When the condition fails, a part ends, or [`START_MAX`] is over.
pub async fn until<T>(
    lab: &mut Lab,
    what: &str,
    mut condition: impl AsyncFnMut(&Lab) -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begin = clock::moment();
    loop {
        if let Some(value) = condition(lab).await? {
            return Ok(value);
        }
        for part in lab.parts.values_mut() {
            if let Some(status) = part.ended() {
                anyhow::bail!("{} ended ({status}) before {what}: {}", part.party, part.log_end(2_000));
            }
        }
        anyhow::ensure!(begin.elapsed() < START_MAX, "after {} s still not: {what}", START_MAX.as_secs());
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}
