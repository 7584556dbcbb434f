//! The real binary, or a client's, as a process that can be killed at any moment.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::wait;

/// The binary that was built together with this test.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let release = test.parent().and_then(Path::parent).expect("target/release/deps/test");
    let binary = release.join("ryggrad");
    assert!(binary.is_file(), "{} is missing; run the tests with ./ryggrad test", binary.display());
    binary
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it has an address").port()
}

/// A short command, run to its end: exit code, stdout and stderr. Without any environment.
pub fn command(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output =
        Command::new(binary()).args(arguments).current_dir(folder).env_clear().stdin(Stdio::null()).output().expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A running `ryggrad`.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the binary; what it says goes to `<folder>/<name>.log`.
    pub fn start(folder: &Path, name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(arguments);
        Self::run(folder, name, command)
    }

    /// The same with any other program.
    pub fn run(folder: &Path, name: &str, command: Command) -> Self {
        Self::run_with(folder, name, command, &[])
    }

    /// The same with something in its environment.
    pub fn run_with(folder: &Path, name: &str, mut command: Command, environment: &[(&str, PathBuf)]) -> Self {
        let log = folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).expect("a log file");
        let errors = out.try_clone().expect("the log file twice");
        let child = command
            .current_dir(folder)
            // Nothing of the surroundings may leak in.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RUST_LOG", std::env::var("RYGGRAD_TEST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .env("RUST_BACKTRACE", "1")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .spawn()
            .expect("the program starts");
        Self { child, log }
    }

    /// SIGKILL, in the middle of whatever it does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and the exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.exit_code(30).await
    }

    /// Sends a signal, by its short name.
    pub fn signal(&self, name: &str) {
        Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill runs");
    }

    /// Waits for the end.
    pub async fn exit_code(&mut self, timeout_s: u64) -> Option<i32> {
        let child = &mut self.child;
        let log = self.log.clone();
        wait::until(&format!("the end of a process that logs to {}", log.display()), timeout_s, || {
            let ended = child.try_wait().expect("it can be waited for");
            async move { ended }
        })
        .await
        .code()
    }

    /// Its exit code, if it has ended by itself.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().expect("it can be waited for").map(|status| status.code())
    }

    /// The most memory that it ever had, in MiB, as long as it runs.
    pub fn peak_memory_mib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(peak.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let said = self.said();
            let tail: Vec<&str> = said.lines().rev().take(30).collect();
            println!("--- end of {} ---", self.log.display());
            tail.into_iter().rev().for_each(|line| println!("{line}"));
        }
    }
}
