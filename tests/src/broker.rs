//! Real brokers for tests: one shared by all tests of a binary, and brokers of one's own.

use std::path::PathBuf;
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
    let folder = TempDir::new().expect("a temporary folder");
    let broker = LocalBroker::start(LocalBrokerOptions::new(jars(), folder.path())).await.expect("the broker starts");
    (broker, folder)
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
