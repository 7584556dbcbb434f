//! A certificate authority for a broker on this machine: `up --secure`, tests, trials.
//!
//! Its key lies beside the broker's data, so that it must never vouch for anything beyond this machine. A
//! certificate's subject begins with `CN=`, which is the principal: an organisation's number or a service's name.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// How long a certificate is good. Those of `up` are made anew at each start.
const LIFE_DAYS: i64 = 90;
const AUTHORITY_LIFE_DAYS: i64 = 3_650;

/// Files of somebody whom the authority vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The authority's certificate.
    pub ca_file: PathBuf,
    /// The certificate.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// This installation has none.
    #[error("there is no certificate authority in {}", .0.display())]
    None(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot use {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

/// The authority.
pub struct LocalAuthority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl LocalAuthority {
    /// The authority in a folder.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let path = folder.join("authority.key");
        if !path.is_file() {
            return Err(AuthorityError::None(folder.to_owned()));
        }
        let pem = fs::read_to_string(&path).map_err(|source| AuthorityError::Io { path, source })?;
        // An issuer is its name and its key alone.
        Ok(Self { issuer: Issuer::new(authority(), KeyPair::from_pem(&pem)?), folder: folder.to_owned() })
    }

    /// The same, made if it is not there.
    pub fn open_or_make(folder: &Path) -> Result<Self, AuthorityError> {
        if !folder.join("authority.key").is_file() {
            fs::create_dir_all(folder).map_err(|source| AuthorityError::Io { path: folder.to_owned(), source })?;
            let key = KeyPair::generate()?;
            let certificate = lasting(authority(), AUTHORITY_LIFE_DAYS).self_signed(&key)?;
            write(&folder.join("authority.pem"), &certificate.pem())?;
            write(&folder.join("authority.key"), &key.serialize_pem())?;
        }
        Self::open(folder)
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whom to trust.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    /// A fresh certificate for a client, written into a folder under its name.
    pub fn issue(&self, principal: &str, folder: &Path) -> Result<Identity, AuthorityError> {
        fs::create_dir_all(folder).map_err(|source| AuthorityError::Io { path: folder.to_owned(), source })?;
        let (certificate, key) = self.make(principal, &[], ExtendedKeyUsagePurpose::ClientAuth)?;
        let file = |ending| folder.join(format!("{principal}.{ending}"));
        let identity = Identity { ca_file: folder.join("authority.pem"), certificate_file: file("pem"), key_file: file("key") };
        if identity.ca_file != self.ca_file() {
            fs::copy(self.ca_file(), &identity.ca_file).map_err(|source| AuthorityError::Io { path: identity.ca_file.clone(), source })?;
        }
        write(&identity.certificate_file, &certificate)?;
        write(&identity.key_file, &key)?;
        Ok(identity)
    }

    /// Key and certificate of the broker in one file, as Kafka wants them.
    pub(crate) fn broker_file(&self) -> Result<PathBuf, AuthorityError> {
        let (certificate, key) = self.make(BROKER, &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth)?;
        let path = self.folder.join("broker.pem");
        write(&path, &format!("{key}{certificate}"))?;
        Ok(path)
    }

    fn make(&self, principal: &str, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Result<(String, String), AuthorityError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = lasting(CertificateParams::new(names)?, LIFE_DAYS);
        params.distinguished_name = name(principal);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // The broker is a client too: of its own controller.
        params.extended_key_usages = vec![usage, ExtendedKeyUsagePurpose::ClientAuth];
        params.extended_key_usages.dedup();
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

/// The broker's own principal.
pub(crate) const BROKER: &str = "broker";

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Ryggrad local authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // Java writes a subject from its end: this one begins with the principal.
    name.push(DnType::OrganizationName, "Ryggrad");
    name.push(DnType::CommonName, common_name);
    name
}

fn lasting(mut params: CertificateParams, days: i64) -> CertificateParams {
    let today: Zoned = Timestamp::now().to_zoned(TimeZone::UTC);
    let day = |date: jiff::civil::Date| date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs());
    // From yesterday on, for clocks that are behind.
    params.not_before = day(today.date().saturating_sub(1.day()));
    params.not_after = day(today.date().saturating_add(days.days()));
    params
}

fn write(path: &Path, text: &str) -> Result<(), AuthorityError> {
    let fresh = path.with_extension("new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.and_then(|()| fs::rename(&fresh, path)).map_err(|source| AuthorityError::Io { path: path.to_owned(), source })
}
