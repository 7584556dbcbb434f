//! The simulated registry as a process, and its control calls.

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::Value;

use crate::process::{Process, free_port};
use crate::wait;

/// Lets reqwest find its cryptography, once.
fn use_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// An HTTP client that gives up in the end.
pub fn client() -> Client {
    use_ring();
    Client::builder().timeout(Duration::from_secs(60)).build().expect("an HTTP client")
}

/// A simulated Enhetsregisteret.
pub struct Upstream {
    /// The process.
    pub process: Process,
    client: Client,
    port: u16,
}

impl Upstream {
    /// Starts it on a free port.
    pub async fn start(folder: &Path, arguments: &[&str]) -> Self {
        let port = free_port();
        let port_text = port.to_string();
        let process = Process::start(folder, "upstream", &[&["simulate", "enhetsregisteret", "--port", &port_text], arguments].concat());
        let upstream = Self { process, client: client(), port };
        wait::until("the simulator answers", 30, || async { upstream.control(Method::GET, "status").await }).await;
        upstream
    }

    /// The API's base address.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/enhetsregisteret/api", self.port)
    }

    async fn control(&self, method: Method, path: &str) -> Option<String> {
        let response = self.client.request(method, format!("http://127.0.0.1:{}/_simulator/{path}", self.port)).send().await.ok()?;
        if response.status().is_success() { response.text().await.ok() } else { None }
    }

    /// Nothing changes from now on.
    pub async fn pause(&self) {
        self.control(Method::POST, "pause").await.expect("paused");
    }

    /// Makes changes now.
    pub async fn change(&self, count: u32) {
        self.control(Method::POST, &format!("changes?count={count}")).await.expect("changed");
    }

    /// Makes the next answers faulty.
    pub async fn fault(&self, fault: Value) {
        let address = format!("http://127.0.0.1:{}/_simulator/faults", self.port);
        let response =
            self.client.post(address).header("content-type", "application/json").body(fault.to_string()).send().await.expect("it answers");
        assert!(response.status().is_success(), "{fault} was refused: {}", response.text().await.unwrap_or_default());
    }

    /// No faults from now on.
    pub async fn clear_faults(&self) {
        self.control(Method::DELETE, "faults").await.expect("cleared");
    }

    /// How many faults have not struck yet.
    pub async fn faults_left(&self) -> u64 {
        let text = self.control(Method::GET, "faults").await.expect("faults");
        let faults: Value = serde_json::from_str(&text).expect("JSON");
        let faults = faults.as_array().or_else(|| faults["faults"].as_array()).expect("a list of faults").clone();
        faults.iter().filter_map(|fault| fault["count"].as_u64()).sum()
    }

    /// Every unit as upstream has it now.
    pub async fn units(&self) -> Vec<Value> {
        let text = self.control(Method::GET, "units").await.expect("units");
        text.lines().map(|line| serde_json::from_str(line).expect("a unit a line")).collect()
    }

    /// One item of a feed as upstream sends it to who asks for changes.
    pub async fn item(&self, feed: &str, id: u64) -> Value {
        let member = if feed == "enheter" { "oppdaterteEnheter" } else { "oppdaterteUnderenheter" };
        let address = format!("{}/oppdateringer/{feed}?oppdateringsid={id}&includeChanges=true&size=1", self.base_url());
        let text = self.client.get(address).send().await.expect("it answers").text().await.expect("a body");
        let page: Value = serde_json::from_str(&text).expect("JSON");
        page["_embedded"][member][0].clone()
    }

    /// Every item of a feed, oldest first: (id, organisasjonsnummer, endringstype).
    pub async fn feed(&self, feed: &str) -> Vec<(u64, String, String)> {
        let member = if feed == "enheter" { "oppdaterteEnheter" } else { "oppdaterteUnderenheter" };
        let mut items = Vec::new();
        loop {
            let after = items.last().map_or(0, |(id, _, _): &(u64, String, String)| *id);
            let address = format!("{}/oppdateringer/{feed}?oppdateringsid={}&size=10000", self.base_url(), after + 1);
            let text = self.client.get(address).send().await.expect("it answers").text().await.expect("a body");
            let page: Value = serde_json::from_str(&text).expect("JSON");
            let found = page["_embedded"][member].as_array().cloned().unwrap_or_default();
            let before = items.len();
            for item in found {
                let id = item["oppdateringsid"].as_u64().expect("an id");
                // A page may repeat an item when it was asked to.
                if items.last().is_none_or(|(last, _, _)| *last < id) {
                    let text = |member: &str| item[member].as_str().expect("a text").to_owned();
                    items.push((id, text("organisasjonsnummer"), text("endringstype")));
                }
            }
            if items.len() == before {
                return items;
            }
        }
    }
}
