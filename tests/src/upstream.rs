//! The simulated registry as a process, and its control calls.

use std::io::Read;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use flate2::read::GzDecoder;
use reqwest::{Client, Method, Response};
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

/// What a gzip file holds.
pub fn gunzip(bytes: &[u8]) -> std::io::Result<String> {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).map(|_| text)
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

    /// Orders something at the control interface, and returns its answer.
    pub async fn order(&self, path: &str) -> Value {
        let text = self.control(Method::POST, path).await.unwrap_or_else(|| panic!("{path} was refused"));
        serde_json::from_str(&text).expect("JSON")
    }

    /// Nothing changes from now on.
    pub async fn pause(&self) {
        self.control(Method::POST, "pause").await.expect("paused");
    }

    /// Makes changes now.
    pub async fn change(&self, count: u32) {
        self.control(Method::POST, &format!("changes?count={count}")).await.expect("changed");
    }

    /// Makes changes of one kind (any, edit, creation, deletion, removal) now: the units they struck.
    pub async fn change_as(&self, kind: &str, count: u32, silent: bool) -> Vec<String> {
        let answer = self.control(Method::POST, &format!("changes?count={count}&kind={kind}&silent={silent}")).await.expect("changed");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let changed = answer["changed"].as_array().expect("a list");
        changed.iter().map(|number| number.as_str().expect("a number").to_owned()).collect()
    }

    /// Deletes a unit. False if that can't be.
    pub async fn delete(&self, number: &str, silent: bool) -> bool {
        self.control(Method::POST, &format!("units/{number}/delete?silent={silent}")).await.is_some()
    }

    /// Removes a unit for legal reasons. False if that can't be.
    pub async fn remove(&self, number: &str, silent: bool) -> bool {
        self.control(Method::POST, &format!("units/{number}/remove?silent={silent}")).await.is_some()
    }

    /// Every unit has one more member from now on, which the feed does not tell.
    pub async fn new_field(&self, name: &str) {
        self.control(Method::POST, &format!("new-field?name={name}")).await.expect("a new field");
    }

    /// Dumps show the registry as it is now, until [`Self::thaw`].
    pub async fn freeze(&self) {
        self.control(Method::POST, "dumps/freeze").await.expect("frozen");
    }

    /// Dumps show the registry as it is.
    pub async fn thaw(&self) {
        self.control(Method::POST, "dumps/thaw").await.expect("thawed");
    }

    /// The feeds show changes only so long after look-ups and dumps do.
    pub async fn feed_lag(&self, lag: Duration) {
        self.control(Method::POST, &format!("feed-lag?ms={}", lag.as_millis())).await.expect("set");
    }

    /// A bulk download of one list (enheter, underenheter), as it arrives.
    pub async fn download(&self, list: &str) -> Response {
        self.try_download(list).await.expect("it answers")
    }

    /// The same, where the connection may break before anything has come.
    pub async fn try_download(&self, list: &str) -> reqwest::Result<Response> {
        self.client.get(format!("{}/{list}/lastned", self.base_url())).send().await
    }

    /// The rows of a bulk download that is whole.
    pub async fn dump(&self, list: &str) -> Vec<Value> {
        let bytes = self.download(list).await.bytes().await.expect("a body");
        serde_json::from_str(&gunzip(&bytes).expect("gzip")).expect("an array")
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
