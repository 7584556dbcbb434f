//! The bridge that a benchmark measures: at work in this process, or reached in another.
//!
//! It has the product's default settings but for what a benchmark says. Must never be reached by
//! anything but the benchmark.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use ryggrad_bridge::BridgeConfig;
use ryggrad_schemas::Catalogue;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ground::Ground;
use crate::commands::bridge;
use crate::settings::Settings;
use crate::{client, keys};

/// A synthetic number.
pub const ORGANISATION: &str = "312345676";
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Calls to the API at the same time.
const CALLS_MAX: usize = 16;

/// A bridge's API, as one organisation sees it.
pub struct Api {
    base: String,
    operator: Arc<client::Bridge>,
    client: client::Bridge,
    token: client::Token,
}

impl Api {
    /// Waits until the bridge at an address is ready, and gets a token from it. `lives` says why
    /// it never will be.
    pub async fn connect(base: &str, operator_token_file: &Path, mut lives: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let operator = client::Bridge::new(base, keys::token(operator_token_file)?.parse()?)?;
        let deadline = Instant::now() + READY_TIMEOUT;
        while let Err(error) = operator.get(&["readyz"]).await {
            lives()?;
            ensure!(Instant::now() < deadline, "the bridge does not get ready: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self::issued(base.to_owned(), Arc::new(operator), &json!({"organisation": ORGANISATION})).await
    }

    async fn issued(base: String, operator: Arc<client::Bridge>, wish: &Value) -> anyhow::Result<Self> {
        let issued = operator.post(&["v1", "tokens"], Some(wish)).await?;
        let token: client::Token = text(&issued, "token")?.parse()?;
        Ok(Self { client: client::Bridge::new(&base, token.clone())?, base, operator, token })
    }

    /// The same bridge, as somebody else sees it.
    pub async fn acting(&self, wish: Value) -> anyhow::Result<Self> {
        Self::issued(self.base.clone(), Arc::clone(&self.operator), &wish).await
    }

    /// What the operator can do.
    pub fn operator(&self) -> &client::Bridge {
        &self.operator
    }

    /// Makes a fact.
    pub async fn make(&self, kind: &str, fact: &Value) -> anyhow::Result<()> {
        self.client.post(&["v1", kind], Some(fact)).await?;
        Ok(())
    }

    /// The organisation's token.
    pub fn token(&self) -> &client::Token {
        &self.token
    }

    /// Makes a subscription and gives its id.
    pub async fn subscribe(&self, wish: &Value) -> anyhow::Result<String> {
        let made = self.client.post(&["v1", "subscriptions"], Some(wish)).await?;
        Ok(text(&made, "id")?.to_owned())
    }

    /// Makes many, several at a time.
    pub async fn subscribe_all(&self, wishes: impl IntoIterator<Item = Value>) -> anyhow::Result<Vec<String>> {
        let calls = stream::iter(wishes).map(|wish| async move { self.subscribe(&wish).await });
        calls.buffer_unordered(CALLS_MAX).try_collect().await
    }

    /// Ends a subscription.
    pub async fn delete(&self, id: &str) -> anyhow::Result<()> {
        self.client.delete(&["v1", "subscriptions", id]).await?;
        Ok(())
    }

    /// Ends many.
    pub async fn delete_all(&self, ids: &[String]) -> anyhow::Result<()> {
        stream::iter(ids).map(Ok).try_for_each_concurrent(CALLS_MAX, |id| self.delete(id)).await
    }
}

/// The bridge, at work in this process.
pub struct RunningBridge {
    api: Api,
    task: JoinHandle<Result<(), ryggrad_bridge::BridgeError>>,
    stop: CancellationToken,
}

impl RunningBridge {
    /// Starts it and waits until it is ready. `adjust` sets what differs from the defaults.
    pub async fn start(ground: &Ground, adjust: impl FnOnce(&mut BridgeConfig)) -> anyhow::Result<Self> {
        Self::start_with(ground, None, adjust).await
    }

    /// Starts it with a catalogue of its own.
    pub async fn start_with(
        ground: &Ground,
        catalogue: Option<&'static Catalogue>,
        adjust: impl FnOnce(&mut BridgeConfig),
    ) -> anyhow::Result<Self> {
        let mut settings = Settings::within(&ground.folder().join("bridge"));
        settings.kafka = ground.connection().clone();
        settings.bridge.listen.set_port(0);
        settings.bridge.development_egress = true;
        // Benchmarks prepare in bulk.
        settings.bridge.organisation_requests_at_once_max = NonZeroU32::MAX;
        adjust(&mut settings.bridge);
        let mut bridge = bridge::bind(&settings).await?;
        if let Some(catalogue) = catalogue {
            bridge = bridge.with_catalogue(catalogue);
        }
        let base = format!("http://{}", bridge.address());
        let stop = CancellationToken::new();
        let task = tokio::spawn(bridge.run(stop.clone()));
        let lives = || {
            ensure!(!task.is_finished(), "the bridge has ended");
            Ok(())
        };
        let api = Api::connect(&base, &settings.operator_token_file, lives).await?;
        Ok(Self { api, task, stop })
    }

    /// Its API.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Ends it as `ryggrad bridge` ends.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.task.await.context("the bridge failed")??)
    }
}

fn text<'a>(answer: &'a Value, member: &str) -> anyhow::Result<&'a str> {
    answer.get(member).and_then(Value::as_str).with_context(|| format!("the bridge answered without {member}"))
}
