//! Whom the bridge trusts, and as whom it presents itself.
//!
//! An endpoint's certificate is held against the system's authorities; for a host of the
//! operator's allow-list that names authorities of its own, against those alone. The bridge's own
//! certificate goes to every endpoint that asks for one. Must never accept less than a verified
//! name, and must never print the private key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::TlsConnector;

/// What is wrong with a file, or with the system.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTls {
    /// Cannot be read, or holds something else.
    #[error("{} cannot be read as PEM with {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// The cause.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// It holds nothing.
    #[error("{} holds no certificate", .0.display())]
    Empty(PathBuf),
    /// One of two settings.
    #[error("bridge.client_certificate_file and bridge.client_key_file belong together")]
    Half,
    /// One of two settings.
    #[error("bridge.tls_certificate_file and bridge.tls_key_file belong together")]
    HalfServer,
    /// Refused by the library.
    #[error("the certificates or the key cannot be used")]
    Unfit(#[from] rustls::Error),
}

/// The bridge's own certificate with its chain, and its key.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Trust and identity.
pub struct Tls {
    identity: Option<Identity>,
    /// Made at the first use: whoever calls plain http needs no authorities.
    system: OnceLock<Option<TlsConnector>>,
    pinned: BTreeMap<PathBuf, TlsConnector>,
}

impl Tls {
    /// From files: own certificate and key, and the authorities that some hosts are held against.
    pub fn new<'a>(
        certificate: Option<&Path>,
        key: Option<&Path>,
        ca_files: impl Iterator<Item = &'a PathBuf>,
    ) -> Result<Self, InvalidTls> {
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Identity { chain: certificates(certificate)?, key: private_key(key)? }),
            (None, None) => None,
            _ => return Err(InvalidTls::Half),
        };
        let mut tls = Self { identity, system: OnceLock::new(), pinned: BTreeMap::new() };
        for path in ca_files {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            let connector = tls.connector(builder()?.with_root_certificates(roots))?;
            tls.pinned.insert(path.clone(), connector);
        }
        Ok(tls)
    }

    /// What connects to a host; none if the system has no authorities.
    pub fn connector_for(&self, ca_file: Option<&PathBuf>) -> Option<TlsConnector> {
        if let Some(path) = ca_file {
            return self.pinned.get(path).cloned();
        }
        let made = self.system.get_or_init(|| {
            let made = builder().and_then(|builder| self.connector(builder.with_platform_verifier()?));
            made.inspect_err(|error| tracing::error!(%error, "no endpoint can be called over https: the system's authorities are missing"))
                .ok()
        });
        made.clone()
    }

    fn connector(&self, builder: ConfigBuilder<ClientConfig, WantsClientCert>) -> Result<TlsConnector, InvalidTls> {
        let mut config = match &self.identity {
            Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn builder() -> Result<ConfigBuilder<ClientConfig, rustls::WantsVerifier>, InvalidTls> {
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()?)
}

/// The private key in a PEM file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, InvalidTls> {
    let failed = |source| InvalidTls::File { path: path.to_owned(), what: "a private key", source };
    PrivateKeyDer::from_pem_file(path).map_err(failed)
}

/// The certificates in a PEM file, of which there is at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
    let failed = |source| InvalidTls::File { path: path.to_owned(), what: "certificates", source };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if found.is_empty() { Err(InvalidTls::Empty(path.to_owned())) } else { Ok(found) }
}
