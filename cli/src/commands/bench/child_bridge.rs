//! The bridge in a process of its own, so that its memory is nobody else's.
//!
//! It has the product's default settings but for what a benchmark says, and ends with the benchmark.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};

use super::ground::Ground;
use super::median;
use super::population::loopback_client;
use super::running_bridge::Api;
use crate::settings::Settings;

const SAMPLES: usize = 10;
const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// Memory of a process, in MiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// What it has now (VmRSS).
    pub resident: f64,
    /// The most that it ever had (VmHWM).
    pub peak: f64,
}

/// The bridge. Its process ends with this value.
pub struct ChildBridge {
    api: Api,
    http: reqwest::Client,
    base: String,
    process: u32,
    _child: Child,
}

impl ChildBridge {
    /// Starts it and waits until it is ready. `settings` are names of the environment with their values.
    pub async fn start(ground: &Ground, settings: &[(String, String)]) -> anyhow::Result<Self> {
        let data = ground.folder().join("bridge");
        // Free until now; should somebody be quicker, the bridge says so.
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let listen = format!("{}:{port}", Ipv4Addr::LOCALHOST);
        let log = ground.folder().join("bridge.log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(std::env::current_exe().context("cannot find this program")?);
        command
            .args(["bridge", "--development-egress", "--listen", &listen, "--kafka", &ground.connection().bootstrap, "--data"])
            .arg(&data);
        command.env_clear().env("RUST_LOG", "error").envs(settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?);
        let mut child = command.kill_on_drop(true).spawn().context("cannot start the bridge")?;
        let process = child.id().context("the bridge has ended")?;
        let base = format!("http://{listen}");
        let lives = || {
            let ended = child.try_wait()?;
            ensure!(ended.is_none(), "the bridge has ended: {}", std::fs::read_to_string(&log).unwrap_or_default().trim());
            Ok(())
        };
        let api = Api::connect(&base, &Settings::within(&data).operator_token_file, lives).await?;
        Ok(Self { api, http: loopback_client()?, base, process, _child: child })
    }

    /// Its API.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Where it listens.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The value of a metric that has no labels.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let metrics = self.http.get(format!("{}/metrics", self.base)).send().await?.error_for_status()?.text().await?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("the metrics lack {name}"))?.parse()?)
    }

    /// Its memory, as the median of several looks.
    pub async fn memory_at_rest(&self) -> anyhow::Result<Memory> {
        let (mut resident, mut peak) = (Vec::new(), 0.0);
        for _ in 0..SAMPLES {
            tokio::time::sleep(SAMPLE_EVERY).await;
            let memory = self.memory()?;
            resident.push(memory.resident);
            peak = memory.peak;
        }
        Ok(Memory { resident: median(&resident).context("nothing was measured")?, peak })
    }

    fn memory(&self) -> anyhow::Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process)).context("the bridge has ended")?;
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("the memory is not there")?;
            let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
            anyhow::Ok(kib / 1_024.0)
        };
        Ok(Memory { resident: mib("VmRSS:")?, peak: mib("VmHWM:")? })
    }
}
