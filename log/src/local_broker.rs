//! A real one-node Apache Kafka (KRaft) on this machine, for development, tests and benchmarks.
//!
//! The jars are resolved beforehand (`./ryggrad` does it); this module formats the data folder,
//! starts the broker and waits until it answers. The broker dies with its parent, however the
//! parent ends: `setpriv` asks the kernel for it.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::local_authority::BROKER;
use crate::{AuthorityError, Connection, Identity, LocalAuthority, cluster_id};

/// How hard the broker tries to keep data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As production does: the operating system's page cache, which survives a killed broker.
    PageCache,
    /// Every append is forced to disk, which survives a power cut too; slow.
    EveryAppend,
}

/// Where the broker lives.
#[derive(Debug, Clone)]
pub struct LocalBrokerOptions {
    /// Folder with Kafka's jars.
    pub jars: PathBuf,
    /// Folder for its data, log and settings; kept between runs.
    pub data: PathBuf,
    /// Port for clients; 0 picks a free one.
    pub port: u16,
    /// Further broker settings, e.g. shortened lags in tests.
    pub settings: Vec<(String, String)>,
    /// How hard to keep data.
    pub durability: Durability,
    /// Mutual TLS and ACLs, by the authority in this folder, which is made if it is not there.
    pub authority: Option<PathBuf>,
    /// Whether its code is compiled as well as in production, which costs time in its first minute.
    pub compiles_fully: bool,
    /// How long to wait for the broker to answer.
    pub start_timeout_ms: u64,
}

impl LocalBrokerOptions {
    /// Options with a free port.
    pub fn new(jars: impl Into<PathBuf>, data: impl Into<PathBuf>) -> Self {
        Self {
            jars: jars.into(),
            data: data.into(),
            port: 0,
            settings: Vec::new(),
            durability: Durability::PageCache,
            authority: None,
            compiles_fully: false,
            start_timeout_ms: 60_000,
        }
    }
}

/// Why no broker runs.
#[derive(Debug, thiserror::Error)]
pub enum LocalBrokerError {
    /// The jars are not where they should be.
    #[error("Kafka's jars are not in {}; run ./ryggrad once, which resolves them", .0.display())]
    NoJars(PathBuf),
    /// A file, a port or a process could not be had.
    #[error("cannot {doing}")]
    Io {
        /// What was tried.
        doing: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Kafka's storage tool refused.
    #[error("Kafka's storage tool could not format {}: {}", .data.display(), .said)]
    Format {
        /// The folder.
        data: PathBuf,
        /// What the tool printed.
        said: String,
    },
    /// No certificates.
    #[error("the broker has no certificate")]
    Authority(#[from] AuthorityError),
    /// The broker ended or did not answer.
    #[error("the broker does not answer; its log is {}", .log.display())]
    NoAnswer {
        /// Where it writes its log.
        log: PathBuf,
    },
}

/// A running broker.
pub struct LocalBroker {
    child: Child,
    port: u16,
    controller_port: u16,
    options: LocalBrokerOptions,
    /// Who starts it may do everything.
    operator: Option<Identity>,
}

impl LocalBroker {
    /// Formats the data folder if it is new, starts the broker and waits until it answers.
    pub async fn start(options: LocalBrokerOptions) -> Result<Self, LocalBrokerError> {
        if !options.jars.join(".complete").is_file() {
            return Err(LocalBrokerError::NoJars(options.jars));
        }
        let port = if options.port == 0 { free_port()? } else { options.port };
        let controller_port = free_port()?;
        Self::launch(options, port, controller_port).await
    }

    /// Starts again on the same port and data, after `kill` or `stop`.
    pub async fn restart(&mut self) -> Result<(), LocalBrokerError> {
        self.kill();
        *self = Self::launch(self.options.clone(), self.port, self.controller_port).await?;
        Ok(())
    }

    async fn launch(options: LocalBrokerOptions, port: u16, controller_port: u16) -> Result<Self, LocalBrokerError> {
        let data = &options.data;
        let (secure, operator) = options.authority.as_deref().map(secure).transpose()?.unzip();
        fs::create_dir_all(data).map_err(|source| io_error(format!("create {}", data.display()), source))?;
        let properties = data.join("server.properties");
        write(&properties, &server_properties(&options, port, controller_port, secure.unwrap_or_default()))?;
        write(&data.join("log4j2.properties"), LOG4J)?;
        if !data.join("log/meta.properties").is_file() {
            format_storage(&options, &properties)?;
        }
        let log_path = data.join("broker.log");
        let log = fs::File::create(&log_path).map_err(|source| io_error(format!("create {}", log_path.display()), source))?;
        let errors = log.try_clone().map_err(|source| io_error("share the broker's log".to_owned(), source))?;
        let child = java(&options, &BROKER_HEAP, "kafka.Kafka", &[&properties.display().to_string()])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|source| io_error("start java (is a JRE installed?)".to_owned(), source))?;
        let mut broker = Self { child, port, controller_port, options, operator };
        broker.wait_until_it_answers(log_path).await?;
        Ok(broker)
    }

    async fn wait_until_it_answers(&mut self, log: PathBuf) -> Result<(), LocalBrokerError> {
        let deadline = Instant::now() + Duration::from_millis(self.options.start_timeout_ms);
        loop {
            if cluster_id(&self.connection(), 1_000).await.is_ok() {
                return Ok(());
            }
            if self.has_ended() || Instant::now() > deadline {
                return Err(LocalBrokerError::NoAnswer { log });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How to reach it; as the operator, if it asks who comes.
    pub fn connection(&self) -> Connection {
        let connection = Connection::new(self.address());
        match &self.operator {
            Some(operator) => connection.with_identity(operator),
            None => connection,
        }
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether the broker's process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL: no chance to say goodbye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and a while to close its logs cleanly.
    pub async fn stop(&mut self, timeout_ms: u64) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        while Instant::now() < deadline {
            if self.has_ended() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.kill();
    }
}

impl Drop for LocalBroker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a broker that is alone needs set, whatever its addresses are. Also what `compose.yaml` sets.
pub const BROKER_SETTINGS: [(&str, &str); 18] = [
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "PLAIN"),
    ("auto.create.topics.enable", "false"),
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("broker.session.timeout.ms", "2000"),
    ("broker.heartbeat.interval.ms", "250"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("log.cleaner.dedupe.buffer.size", "16777216"),
];

/// The broker's memory, as arguments of the JVM.
pub const BROKER_HEAP: [&str; 2] = ["-Xms256m", "-Xmx1g"];

/// Who may do everything at a local broker, beside the broker itself.
const OPERATOR: &str = "operator";

/// How a principal follows from a subject: `CN` must come first, or the subject as a whole is the principal. A
/// name further on does not count, since a comma inside another part could forge one.
pub const PRINCIPAL_RULES: &str = "RULE:^CN=([A-Za-z0-9-]+)(,.*)?$/$1/,DEFAULT";

/// Settings of a broker that asks everybody for a certificate, and the operator's.
fn secure(authority: &Path) -> Result<(Vec<(String, String)>, Identity), LocalBrokerError> {
    let folder = std::path::absolute(authority).map_err(|source| io_error(format!("find {}", authority.display()), source))?;
    let authority = LocalAuthority::open_or_make(&folder)?;
    let operator = authority.issue(OPERATOR, &folder)?;
    let settings = [
        ("listener.security.protocol.map", "CONTROLLER:SSL,PLAIN:SSL".to_owned()),
        ("ssl.client.auth", "required".to_owned()),
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.keystore.location", authority.broker_file()?.display().to_string()),
        ("ssl.truststore.type", "PEM".to_owned()),
        ("ssl.truststore.location", authority.ca_file().display().to_string()),
        ("ssl.principal.mapping.rules", PRINCIPAL_RULES.to_owned()),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
        ("allow.everyone.if.no.acl.found", "false".to_owned()),
        ("super.users", format!("User:{BROKER};User:{OPERATOR}")),
    ];
    Ok((settings.map(|(name, value)| (name.to_owned(), value)).into(), operator))
}

fn server_properties(options: &LocalBrokerOptions, port: u16, controller_port: u16, secure: Vec<(String, String)>) -> String {
    let own = [
        ("controller.quorum.bootstrap.servers", format!("127.0.0.1:{controller_port}")),
        ("listeners", format!("PLAIN://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}")),
        ("advertised.listeners", format!("PLAIN://127.0.0.1:{port}")),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAIN:PLAINTEXT".to_owned()),
        ("log.dirs", options.data.join("log").display().to_string()),
    ];
    let flush = match options.durability {
        Durability::PageCache => None,
        Durability::EveryAppend => Some(("log.flush.interval.messages", "1")),
    };
    let own = own.iter().map(|(name, value)| (*name, value.as_str()));
    // Of a setting that stands twice the last one counts.
    let further = secure.iter().chain(&options.settings).map(|(name, value)| (name.as_str(), value.as_str()));
    let all = BROKER_SETTINGS.into_iter().chain(own).chain(flush).chain(further);
    all.map(|(name, value)| format!("{name}={value}\n")).collect()
}

const LOG4J: &str = "\
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c{1}: %m%n
";

fn format_storage(options: &LocalBrokerOptions, properties: &Path) -> Result<(), LocalBrokerError> {
    let storage = |arguments: &[&str]| {
        java(options, &["-Xmx128m"], "kafka.tools.StorageTool", arguments)
            .output()
            .map_err(|source| io_error("run Kafka's storage tool (is a JRE installed?)".to_owned(), source))
    };
    // What the tool's `random-uuid` would print after another start of a virtual machine. One made of the time
    // never begins with a dash, which the tool would take for an option.
    let id = URL_SAFE_NO_PAD.encode(Uuid::now_v7());
    let formatted = storage(&["format", "-t", &id, "-c", &properties.display().to_string(), "--standalone"])?;
    if formatted.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&formatted.stderr).trim().to_owned();
    Err(LocalBrokerError::Format { data: options.data.clone(), said })
}

fn java(options: &LocalBrokerOptions, limits: &[&str], main: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "java"]).args(limits).args(["-XX:+UseSerialGC", "-XX:-UsePerfData"]);
    if !options.compiles_fully {
        // It lives for minutes: what the second compiler would win, it costs.
        command.arg("-XX:TieredStopAtLevel=1");
    }
    command
        .arg(format!("-Dlog4j2.configurationFile={}", options.data.join("log4j2.properties").display()))
        .arg("-cp")
        .arg(options.jars.join("*"))
        .arg(main)
        .args(arguments);
    command
}

fn free_port() -> Result<u16, LocalBrokerError> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| io_error("find a free port".to_owned(), source))
}

fn write(path: &Path, text: &str) -> Result<(), LocalBrokerError> {
    fs::write(path, text).map_err(|source| io_error(format!("write {}", path.display()), source))
}

fn io_error(doing: String, source: io::Error) -> LocalBrokerError {
    LocalBrokerError::Io { doing, source }
}
