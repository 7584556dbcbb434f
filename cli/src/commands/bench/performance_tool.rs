//! Kafka's own producer benchmark, `org.apache.kafka.tools.ProducerPerformance`: what the bare
//! library is held against.
//!
//! It takes text payloads and sends neither keys nor headers. To move the same bytes, a payload
//! here is a record's value, key and headers in one, each byte that is not printable ASCII
//! replaced by `?`: the same length, and about as compressible.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use ryggrad_log::bench::{COMPRESSION, LINGER_MS};
use ryggrad_schemas::EncodedRecord;
use tokio::process::Command;

/// Payloads in the file; the tool picks from them at random.
const PAYLOADS_MAX: usize = 5_000;

/// The tool with its payloads.
pub struct PerformanceTool {
    jars: PathBuf,
    payloads: PathBuf,
}

impl PerformanceTool {
    /// Writes the payloads into a folder.
    pub fn prepare(jars: &Path, folder: &Path, records: &[EncodedRecord]) -> anyhow::Result<Self> {
        let payloads = folder.join("payloads.txt");
        let stride = records.len().div_ceil(PAYLOADS_MAX).max(1);
        let text: Vec<Vec<u8>> = records.iter().step_by(stride).map(payload).collect();
        std::fs::write(&payloads, text.join(&b'\n')).context("cannot write the payloads")?;
        Ok(Self { jars: std::path::absolute(jars)?, payloads })
    }

    /// Records a second, as the tool tells.
    pub async fn run(&self, bootstrap: &str, topic: &str, records: usize) -> anyhow::Result<f64> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "java", "-Xmx1g", "-XX:-UsePerfData", "-cp"])
            .arg(self.jars.join("*"))
            .args(["org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--throughput", "-1"])
            .args(["--num-records", &records.to_string(), "--payload-file"])
            .arg(&self.payloads)
            .arg("--producer-props")
            .arg(format!("bootstrap.servers={bootstrap}"))
            .args(["acks=all", "enable.idempotence=true"])
            .args([format!("compression.type={COMPRESSION}"), format!("linger.ms={LINGER_MS}")])
            // librdkafka's defaults, and the queue that both of our producers have.
            .args(["batch.size=1000000", "buffer.memory=67108864"]);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.context("cannot run java (is a JRE installed?)")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "Kafka's ProducerPerformance failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        ensure!(
            !said.contains("Exception"),
            "Kafka's ProducerPerformance failed: {}",
            said.lines().find(|line| line.contains("Exception")).unwrap_or_default()
        );
        rate(&said).with_context(|| format!("Kafka's ProducerPerformance tells no rate: {}", said.trim()))
    }
}

fn payload(record: &EncodedRecord) -> Vec<u8> {
    let value = record.value.iter().flatten();
    let headers = record.headers.iter().flat_map(|(name, value)| name.bytes().chain(value.bytes()));
    let bytes = value.copied().chain(record.key.bytes()).chain(headers);
    bytes.map(|byte| if matches!(byte, b' '..=b'~') { byte } else { b'?' }).collect()
}

/// The rate in its last line: `50000 records sent, 56179.8 records/sec (…), …, 3 ms 50th, …`.
fn rate(said: &str) -> Option<f64> {
    let last = said.lines().rfind(|line| line.contains("50th"))?;
    last.split(", ").nth(1)?.split_once(" records/sec")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_line() {
        let said = "1 records sent, 7.0 records/sec (0.01 MB/sec), 1 ms avg latency, 2 ms max latency.\n\
                    50000 records sent, 56179.775281 records/sec (107.15 MB/sec), 3.0 ms avg latency, 9 ms max latency, 3 ms 50th, 5 ms 95th.\n";
        assert_eq!(rate(said), Some(56_179.775_281));
        assert_eq!(rate("nothing"), None);
    }

    #[test]
    fn a_payload_has_the_length_of_value_key_and_headers_and_no_line_ends() {
        let headers = [("a", "b")].into_iter().collect();
        let record =
            EncodedRecord { topic: String::new(), partition: None, key: "k".to_owned(), value: Some(b"x\n\xc3".to_vec()), headers };
        assert_eq!(payload(&record), b"x??kab");
        assert_eq!(payload(&record).len(), record.size_bytes());
    }
}
