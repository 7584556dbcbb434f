//! What upstream would answer: pages of updates and documents, byte for byte, from the simulator.
//!
//! Everything is fetched before anything is measured. There are no removals for legal reasons
//! among the changes: their marks stand in a topic that a benchmark must not write to.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ryggrad_detect::batch::Batch;
use ryggrad_detect::enhetsregisteret::{Answer, Feed, read_document, read_page};
use ryggrad_detect::feed::{Step, arrange, chunks};
use ryggrad_schemas::EncodedRecord;
use ryggrad_schemas::catalogue::{EventType, Source};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::simulate::{EnhetsregisteretArgs, Simulator};

/// One feed as upstream answers it.
#[derive(Debug, Default)]
pub struct FeedPages {
    /// Position -> the page that follows it, as the product asks for it.
    pub pages: BTreeMap<u64, Vec<u8>>,
    /// Items in all pages, each once.
    pub items: usize,
}

/// A registry's answers.
#[derive(Debug)]
pub struct Population {
    /// By name of the feed.
    pub feeds: BTreeMap<String, FeedPages>,
    /// Key -> document.
    pub documents: HashMap<String, Vec<u8>>,
    page_items_max: usize,
}

/// Where the time of making records goes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stages {
    /// Pages read and brought into order.
    pub pages: Duration,
    /// Documents read, typed and fingerprinted.
    pub documents: Duration,
    /// Events mapped, encoded and made records of.
    pub events: Duration,
}

impl Population {
    /// A registry with that many items in its feeds: three fifths new units, the rest changes.
    pub async fn fetch(source: &Source, events: usize, page_items_max: usize) -> anyhow::Result<Self> {
        let units = (events * 3 / 5).max(1);
        let args = EnhetsregisteretArgs {
            units: u32::try_from(units)?,
            changes_per_second: 0.0,
            removals: 0.0,
            state: None,
            ..EnhetsregisteretArgs::for_demo(0, 0.0, std::path::PathBuf::new())
        };
        let simulator = Simulator::bind(args).await?;
        let port = simulator.address().port();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(simulator.serve(stop.clone()));
        let fetched = Self::fetch_from(port, source, events - units, page_items_max).await;
        stop.cancel();
        serving.await.context("the simulator failed")??;
        let population = fetched?;
        let found: usize = population.feeds.values().map(|feed| feed.items).sum();
        ensure!(found == events, "the simulator tells of {found} changes instead of {events}");
        Ok(population)
    }

    async fn fetch_from(port: u16, source: &Source, changes: usize, page_items_max: usize) -> anyhow::Result<Self> {
        let base = format!("http://{}:{port}", Ipv4Addr::LOCALHOST);
        let client = loopback_client()?;
        client.post(format!("{base}/_simulator/changes?count={changes}")).send().await?.error_for_status()?;
        let units = client.get(format!("{base}/_simulator/units")).send().await?.error_for_status()?.text().await?;
        let documents = units.lines().map(document).collect::<anyhow::Result<_>>()?;
        let mut feeds = BTreeMap::new();
        for feed in &source.feeds {
            let mut fetched = FeedPages::default();
            let mut after = 0;
            loop {
                let address = format!(
                    "{base}/enhetsregisteret/api/oppdateringer/{feed}?oppdateringsid={}&includeChanges=true&page=0&size={page_items_max}&sort=id,ASC",
                    after + 1
                );
                let page = client.get(address).send().await?.error_for_status()?.bytes().await?.to_vec();
                let steps = steps(feed, &page, after, page_items_max)?;
                fetched.pages.insert(after, page);
                fetched.items += steps.iter().map(|step| step.items.len()).sum::<usize>();
                let Some(last) = steps.last() else { break };
                after = last.position;
            }
            feeds.insert(feed.clone(), fetched);
        }
        Ok(Self { feeds, documents, page_items_max })
    }

    /// All records that the product makes of it, position records included, in its transactions'
    /// order; and where the time goes. One thread.
    pub fn records(
        &self,
        source: &Source,
        event_type: &EventType,
        transaction_events_max: usize,
    ) -> anyhow::Result<(Vec<EncodedRecord>, Stages)> {
        let (mut records, mut stages) = (Vec::new(), Stages::default());
        for (name, fetched) in &self.feeds {
            let feed = Feed::new(source, event_type, name)?;
            let mut base = None;
            for (after, page) in &fetched.pages {
                let steps = timed(&mut stages.pages, || steps(name, page, *after, self.page_items_max))?;
                for chunk in chunks(steps, transaction_events_max) {
                    let answers = timed(&mut stages.documents, || self.answers(&chunk))?;
                    timed(&mut stages.events, || {
                        let mut batch = Batch::assemble(base, &chunk, |item| feed.event(item, answers.get(item.key.as_str())));
                        records.extend(batch.take_records(source, name, Vec::new()));
                        base = Some(batch.next);
                    });
                }
            }
        }
        Ok((records, stages))
    }

    fn answers(&self, chunk: &[Step<ryggrad_detect::enhetsregisteret::Change>]) -> anyhow::Result<BTreeMap<String, Answer>> {
        let mut answers = BTreeMap::new();
        for item in chunk.iter().flat_map(|step| &step.items).filter(|item| Feed::needs_look_up(item)) {
            if !answers.contains_key(&item.key) {
                let document = self.documents.get(&item.key).context("a unit has no document")?;
                answers.insert(item.key.clone(), read_document(&item.key, document)?);
            }
        }
        Ok(answers)
    }
}

/// A client for this machine's own servers.
pub fn loopback_client() -> anyhow::Result<reqwest::Client> {
    // Fails only if a provider is there already, and any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(60)).tcp_nodelay(true);
    builder.build().context("cannot prepare an HTTP client")
}

fn steps(feed: &str, page: &[u8], after: u64, items_max: usize) -> anyhow::Result<Vec<Step<ryggrad_detect::enhetsregisteret::Change>>> {
    let kind = super::memory_source::kind(feed);
    Ok(arrange(read_page(kind, page)?, after, items_max)?.steps)
}

fn document(line: &str) -> anyhow::Result<(String, Vec<u8>)> {
    let unit: Value = serde_json::from_str(line)?;
    let key = unit["organisasjonsnummer"].as_str().context("a unit without a number")?;
    Ok((key.to_owned(), unit["document"].to_string().into_bytes()))
}

fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let made = work();
    *sum += started.elapsed();
    made
}
