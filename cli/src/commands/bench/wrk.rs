//! `wrk`, the foreign HTTP client that the bare one is held against.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::bare_client::Message;

const SECONDS: u32 = 2;

/// The tool with its script.
pub struct Wrk {
    script: PathBuf,
}

impl Wrk {
    /// Writes a script that posts one message again and again. `None` if wrk is not installed.
    pub async fn prepare(folder: &Path, message: &Message) -> anyhow::Result<Option<Self>> {
        // It has no option that succeeds; that it starts is enough.
        if Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().await.is_err() {
            return Ok(None);
        }
        let body = folder.join("body.json");
        std::fs::write(&body, &message.body).context("cannot write wrk's body")?;
        let mut lines =
            vec!["wrk.method = \"POST\"".to_owned(), format!("wrk.body = io.open([[{}]], \"rb\"):read(\"*a\")", body.display())];
        for (name, value) in message.headers() {
            lines.push(format!("wrk.headers[\"{name}\"] = \"{value}\""));
        }
        let script = folder.join("post.lua");
        std::fs::write(&script, lines.join("\n")).context("cannot write wrk's script")?;
        Ok(Some(Self { script }))
    }

    /// Posts for a while over that many connections.
    pub async fn run(&self, sink: &str, connections: usize) -> anyhow::Result<()> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "wrk"]);
        command.args([format!("-d{SECONDS}s"), format!("-c{connections}"), format!("-t{}", connections.min(2)), "-s".to_owned()]);
        let output =
            command.arg(&self.script).arg(sink).stdin(Stdio::null()).kill_on_drop(true).output().await.context("cannot run wrk")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        ensure!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "wrk met errors: {}", said.trim());
        Ok(())
    }
}
