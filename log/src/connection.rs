//! How to reach a cluster, and the client settings that every client shares.
//!
//! Must never show the password of a key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig as TlsConfig, RootCertStore};
use serde::{Deserialize, Serialize};

/// Whether what is said to Kafka can be read on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// It can, and nobody shows who it is.
    #[default]
    Plaintext,
    /// It cannot, and the certificate says who we are.
    Tls,
}

/// The password of a private key. Does not print.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct KeyPassword(String);

impl fmt::Debug for KeyPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPassword(…)")
    }
}

/// Why Kafka cannot be reached as the settings say.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSecurity {
    /// Files are given and TLS is not.
    #[error("certificates for Kafka are given, and they are used with security = \"tls\" only")]
    NotTls,
    /// One of certificate and key.
    #[error("Kafka's certificate_file and key_file go together: one of them is missing")]
    Half,
    /// A file that does not hold what it should.
    #[error("{} holds no {what} (PEM) that can be read", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// The cause.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Files that do not fit together, or an authority that is none.
    #[error("the certificates for Kafka cannot be used")]
    Rejected(#[from] rustls::Error),
    /// Something that only librdkafka can do.
    #[error(
        "changing ACLs and quotas needs a key without a password, a ca_file, and neither SASL nor other settings for TLS than [kafka]'s"
    )]
    NotOurs,
}

/// Where Kafka is and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// `host:port`, several separated by commas.
    pub bootstrap: String,
    /// With or without TLS.
    #[serde(default)]
    pub security: Security,
    /// Whom brokers' certificates must come from (PEM); the system's authorities if there is none.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Our certificate with its chain (PEM).
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// Its private key (PEM).
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// The key's password, if it has one.
    #[serde(default, skip_serializing)]
    pub key_password: Option<KeyPassword>,
    /// librdkafka settings passed through, for TLS and SASL, e.g. `security.protocol`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl Connection {
    /// A plain connection.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            security: Security::Plaintext,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            key_password: None,
            settings: BTreeMap::new(),
        }
    }

    /// The same with the identity that a local authority has issued.
    pub fn with_identity(self, identity: &crate::Identity) -> Self {
        Self {
            security: Security::Tls,
            ca_file: Some(identity.ca_file.clone()),
            certificate_file: Some(identity.certificate_file.clone()),
            key_file: Some(identity.key_file.clone()),
            ..self
        }
    }

    /// Whether the files are there and hold what they should: librdkafka's own words for it help nobody.
    pub fn check(&self) -> Result<(), InvalidSecurity> {
        if self.security == Security::Plaintext {
            let given = [&self.ca_file, &self.certificate_file, &self.key_file];
            return if given.iter().any(|file| file.is_some()) { Err(InvalidSecurity::NotTls) } else { Ok(()) };
        }
        self.ca_file.as_deref().map(certificates).transpose()?;
        match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(_)) if self.key_password.is_some() => certificates(certificate).map(drop),
            (Some(certificate), Some(key)) => {
                let builder = builder()?.with_root_certificates(RootCertStore::empty());
                builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?)?;
                Ok(())
            }
            (None, None) => Ok(()),
            _ => Err(InvalidSecurity::Half),
        }
    }

    /// TLS for what librdkafka has no calls for; none where there is no TLS.
    pub(crate) fn tls(&self) -> Result<Option<Arc<TlsConfig>>, InvalidSecurity> {
        if self.settings.keys().any(|name| ["security.", "sasl.", "ssl."].iter().any(|prefix| name.starts_with(prefix))) {
            return Err(InvalidSecurity::NotOurs);
        }
        self.check()?;
        if self.security == Security::Plaintext {
            return Ok(None);
        }
        let (None, Some(ca)) = (&self.key_password, &self.ca_file) else { return Err(InvalidSecurity::NotOurs) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate)?;
        }
        let builder = builder()?.with_root_certificates(roots);
        Ok(Some(Arc::new(match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(key)) => builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?)?,
            _ => builder.with_no_client_auth(),
        })))
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config.set("client.id", "ryggrad");
        // A broker that restarts is found again within a second rather than ten.
        config.set("reconnect.backoff.max.ms", "1000");
        config.set("topic.metadata.refresh.interval.ms", "60000");
        if self.security == Security::Tls {
            config.set("security.protocol", "ssl").set("ssl.endpoint.identification.algorithm", "https");
            let files = [
                ("ssl.ca.location", &self.ca_file),
                ("ssl.certificate.location", &self.certificate_file),
                ("ssl.key.location", &self.key_file),
            ];
            for (name, file) in files {
                if let Some(file) = file {
                    config.set(name, file.display().to_string());
                }
            }
            if let Some(KeyPassword(password)) = &self.key_password {
                config.set("ssl.key.password", password);
            }
        }
        for (name, value) in &self.settings {
            config.set(name, value);
        }
        config
    }
}

fn builder() -> Result<rustls::ConfigBuilder<TlsConfig, rustls::WantsVerifier>, rustls::Error> {
    TlsConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider())).with_safe_default_protocol_versions()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, InvalidSecurity> {
    let failed = |source| InvalidSecurity::File { path: path.to_owned(), what: "certificate", source };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if found.is_empty() { Err(failed(rustls::pki_types::pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, InvalidSecurity> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| InvalidSecurity::File { path: path.to_owned(), what: "private key", source })
}

/// How long producers of many records let a batch grow.
pub const LINGER_MS: u32 = 2;
/// How producers of many records compress.
pub const COMPRESSION: &str = "lz4";

impl Connection {
    /// A producer of many records: the publisher's settings but for its transactions, and so
    /// those of the bare producer that it is measured against.
    pub(crate) fn bulk_producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", COMPRESSION)
            .set("linger.ms", LINGER_MS.to_string())
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.kbytes", "65536");
        config
    }
}

/// Takes what librdkafka says on the side. Errors that matter come back from the calls
/// themselves, so that here they are only of interest to those who look closely.
pub(crate) struct Listener;

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => tracing::error!(facility, message, "librdkafka"),
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // What the caller sees is a broker that does not answer: only this tells why.
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::SSL | RDKafkaErrorCode::Authentication)) {
            tracing::warn!(%error, reason, "Kafka and this client do not accept each other's certificates: compare [kafka] with who issued the broker's");
            return;
        }
        // The end of a partition is no error; it is asked for.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::debug!(%error, reason, "librdkafka");
        }
    }
}

impl ConsumerContext for Listener {}
