//! Real brokers for tests: one shared by all tests of a binary, and brokers of one's own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::mpsc;

use ryggrad_log::{Connection, LocalBroker, LocalBrokerOptions};
use tempfile::TempDir;

/// Kafka's jars, where `./ryggrad test` put them.
pub fn jars() -> PathBuf {
    std::env::var_os("RYGGRAD_KAFKA_JARS").map(PathBuf::from).expect("run the tests with ./ryggrad test, which fetches Kafka's jars")
}

/// Starts a broker of one's own in a temporary folder.
pub async fn own() -> (LocalBroker, TempDir) {
    own_with(&[]).await
}

/// The same with further settings.
pub async fn own_with(settings: &[(&str, &str)]) -> (LocalBroker, TempDir) {
    let folder = TempDir::new().expect("a temporary folder");
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = LocalBrokerOptions { settings, ..LocalBrokerOptions::new(jars(), folder.path()) };
    (LocalBroker::start(options).await.expect("the broker starts"), folder)
}

/// Changes settings of a topic that is in use, with Kafka's own tool: the product never does.
pub fn configure(broker: &LocalBroker, topic: &str, settings: &[(&str, String)]) {
    let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let output = Command::new("java")
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(jars().join("*"))
        .args(["kafka.admin.ConfigCommand", "--bootstrap-server", &broker.address(), "--alter"])
        .args(["--entity-type", "topics", "--entity-name", topic, "--add-config", &settings.join(",")])
        .output()
        .expect("java runs");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

/// The broker that all tests of this binary share. Each test uses topics of its own.
pub fn shared() -> &'static Connection {
    static SHARED: LazyLock<Connection> = LazyLock::new(|| {
        let (tell, told) = mpsc::sync_channel(1);
        // The broker dies with the thread that started it, so that thread stays.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let (broker, folder) = runtime.block_on(own());
            tell.send(broker.connection()).expect("somebody waits");
            loop {
                std::thread::park();
                let _ = (&broker, &folder);
            }
        });
        told.recv().expect("the shared broker starts")
    });
    &SHARED
}
