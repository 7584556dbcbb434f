//! Programs of others: stock clients in Python and JavaScript, which `./ryggrad test` installs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::Process;
use crate::{upstream, wait};

/// Runs a Python client to its end; one JSON value a line of what it printed.
pub async fn python(script: &str, arguments: &[&str], input: String) -> Vec<Value> {
    let python = std::env::var_os("RYGGRAD_TEST_PYTHON").expect("run the tests with ./ryggrad test, which installs the Python clients");
    let mut command = Command::new(python);
    command.env_clear().env("PYTHONUTF8", "1");
    run(command, script, arguments, input).await
}

/// The same for one in JavaScript.
pub async fn node(script: &str, arguments: &[&str], input: String) -> Vec<Value> {
    let mut command = Command::new("node");
    command.env("NODE_PATH", node_modules());
    run(command, script, arguments, input).await
}

/// Starts an issuer in JavaScript on a port, with settings in a file in the folder; once it answers.
pub async fn serve(script: &str, folder: &Path, port: u16, settings: &Value) -> Process {
    let file = folder.join("settings.json");
    std::fs::write(&file, settings.to_string()).expect("settings");
    let mut command = Command::new("node");
    command.arg(scripts().join(script)).arg("serve").arg(port.to_string()).arg(&file);
    let process = Process::run_with(folder, "issuer", command, &[("NODE_PATH", node_modules())]);
    let address = format!("http://127.0.0.1:{port}/.well-known/openid-configuration");
    wait::until("the issuer answers", 30, || async { upstream::client().get(&address).send().await.ok() }).await;
    process
}

fn node_modules() -> PathBuf {
    let modules = std::env::var_os("RYGGRAD_TEST_NODE").expect("run the tests with ./ryggrad test, which installs the JavaScript clients");
    Path::new(&modules).join("node_modules")
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

async fn run(mut command: Command, script: &str, arguments: &[&str], input: String) -> Vec<Value> {
    let script = scripts().join(script);
    command.arg(&script).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = move || {
        let mut child = command.spawn().expect("the client starts");
        let mut stdin = child.stdin.take().expect("its stdin");
        // Both ways at once, or full pipes would wait for each other.
        let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("it ends");
        writing.join().expect("it is written").expect("it was read");
        output
    };
    let output = tokio::task::spawn_blocking(run).await.expect("no panic");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{} failed: {}\n{said}", script.display(), String::from_utf8_lossy(&output.stderr));
    said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}
