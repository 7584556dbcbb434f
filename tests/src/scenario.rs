//! A whole Ryggrad for one test: broker, upstream, producer, bridge, each a process of its own.

use std::path::PathBuf;

use reqwest::Method;
use ryggrad_log::{Connection, LocalBroker};
use tempfile::TempDir;

use crate::bridge::Caller;
use crate::broker;
use crate::process::{Process, free_port};
use crate::upstream::Upstream;
use crate::wait;

/// The organisation that tests speak for.
pub const ORGANISATION: &str = "312345676";
/// Another one.
pub const OTHER_ORGANISATION: &str = "212345679";
/// What tests use as the operator's token.
pub const OPERATOR_TOKEN: &str = "rygop_0123456789abcdef0123456789abcdef";

/// The parts that all tests need; the others are started as the test goes.
pub struct Scenario {
    /// The broker.
    pub broker: LocalBroker,
    /// The folder of everything.
    pub folder: TempDir,
    bridge_port: u16,
}

impl Scenario {
    /// A broker and an empty folder.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same with further settings of the broker.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let (broker, folder) = broker::own_with(settings).await;
        std::fs::create_dir_all(folder.path().join("data")).expect("a data folder");
        std::fs::write(folder.path().join("data/operator.token"), OPERATOR_TOKEN).expect("the operator's token");
        Self { broker, folder, bridge_port: free_port() }
    }

    /// How to reach the broker.
    pub fn connection(&self) -> Connection {
        self.broker.connection()
    }

    /// The data folder of bridge and producer.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts a simulated registry.
    pub async fn upstream(&self, arguments: &[&str]) -> Upstream {
        Upstream::start(self.folder.path(), arguments).await
    }

    /// Starts a producer that follows the whole feed. Starting it again takes over.
    pub fn producer(&self, upstream: &Upstream, arguments: &[&str]) -> Process {
        self.producer_at(upstream, free_port(), arguments)
    }

    /// The same, with health and metrics on a port that is known.
    pub fn producer_at(&self, upstream: &Upstream, port: u16, arguments: &[&str]) -> Process {
        let (kafka, base_url, listen) = (self.broker.address(), upstream.base_url(), format!("127.0.0.1:{port}"));
        let own = ["produce", "--kafka", &kafka, "--data", "data", "--base-url", &base_url, "--listen", &listen, "--start", "beginning"];
        Process::start(self.folder.path(), "producer", &[&own[..], &["--poll-interval-ms", "100"], arguments].concat())
    }

    /// Starts the bridge; the same port and folder every time.
    pub fn bridge(&self, arguments: &[&str]) -> Process {
        self.strict_bridge(&[&["--development-egress"], arguments].concat())
    }

    /// The same without the flag that opens addresses of this machine.
    pub fn strict_bridge(&self, arguments: &[&str]) -> Process {
        let (kafka, listen) = (self.broker.address(), format!("127.0.0.1:{}", self.bridge_port));
        let own = ["bridge", "--kafka", &kafka, "--data", "data", "--listen", &listen];
        Process::start(self.folder.path(), "bridge", &[&own[..], arguments].concat())
    }

    /// Starts a bridge beside the first, on a port of its own; it logs to `<name>.log`.
    pub fn bridge_beside(&self, name: &str, kafka: &str, data: &str) -> Process {
        let listen = format!("127.0.0.1:{}", free_port());
        Process::start(self.folder.path(), name, &["bridge", "--kafka", kafka, "--data", data, "--listen", &listen])
    }

    /// Where the bridge listens.
    pub fn bridge_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.bridge_port)
    }

    /// The operator at the bridge, once it is ready.
    pub async fn operator(&self) -> Caller {
        let operator = Caller::new(&self.bridge_url(), Some(OPERATOR_TOKEN)).at_kafka(self.connection());
        operator.ready().await;
        operator
    }

    /// Waits until the bridge knows of this many removed keys.
    pub async fn knows_removed(&self, keys: usize) {
        let caller = Caller::new(&self.bridge_url(), None);
        let line = format!("ryggrad_bridge_removed_keys {keys}");
        wait::until("the bridge knows of the removal", 10, || async {
            let metrics = caller.raw(Method::GET, "/metrics", &[], "").await.text;
            metrics.lines().any(|found| found == line).then_some(())
        })
        .await;
    }

    /// A subscriber at the bridge.
    pub async fn subscriber(&self, organisation: &str) -> Caller {
        let operator = self.operator().await;
        let token = operator.issue_token(organisation).await;
        operator.with_token(Some(&token))
    }
}
