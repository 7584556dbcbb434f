//! Programs of others: stock clients in Python and JavaScript, which `./ryggrad test` installs.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs a Python client to its end; one JSON value a line of what it printed.
pub async fn python(script: &str, arguments: &[&str], input: String) -> Vec<Value> {
    let python = std::env::var_os("RYGGRAD_TEST_PYTHON").expect("run the tests with ./ryggrad test, which installs the Python clients");
    let mut command = Command::new(python);
    command.env_clear().env("PYTHONUTF8", "1");
    run(command, script, arguments, input).await
}

/// The same for one in JavaScript.
pub async fn node(script: &str, arguments: &[&str], input: String) -> Vec<Value> {
    let modules = std::env::var_os("RYGGRAD_TEST_NODE").expect("run the tests with ./ryggrad test, which installs the JavaScript clients");
    let mut command = Command::new("node");
    command.env("NODE_PATH", Path::new(&modules).join("node_modules"));
    run(command, script, arguments, input).await
}

async fn run(mut command: Command, script: &str, arguments: &[&str], input: String) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
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
