//! Keys and certificates in files.
//!
//! Must never read more than a key can take, and warns where others may read one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};

use super::config::AuthConfig;
use super::error::CredentialsError;
use super::key::{Algorithm, SigningKey};

const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The client's key; `rsa` is what RSA keys are used with where nothing says otherwise.
pub(super) fn key(auth: &AuthConfig, rsa: Algorithm) -> Result<SigningKey, CredentialsError> {
    let path = &auth.key_file;
    let text = read(path).map_err(unreadable("key_file", path))?;
    warn_if_others_may_read(path);
    let key = SigningKey::read(text.expose_secret(), auth.algorithm, rsa);
    key.map_err(|source| CredentialsError::Key { file: path.display().to_string(), source })
}

/// The name of the client's key with the issuer.
pub(super) fn key_id(auth: &AuthConfig, key: &SigningKey) -> Result<String, CredentialsError> {
    let named = auth.key_id.as_deref().or(key.id()).filter(|id| !id.is_empty());
    named.map(str::to_owned).ok_or_else(|| CredentialsError::NoKeyId { file: auth.key_file.display().to_string() })
}

/// A chain of certificates as a header has it (`x5c`), the client's own first.
pub(super) fn certificates(path: &Path) -> Result<Vec<String>, CredentialsError> {
    let text = read(path).map_err(unreadable("certificate_file", path))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.expose_secret().as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain.iter().map(|certificate| STANDARD.encode(certificate)).collect()),
        _ => Err(CredentialsError::Certificate { file: path.display().to_string() }),
    }
}

fn read(path: &Path) -> io::Result<SecretString> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    let text = SecretString::from(text);
    if text.expose_secret().len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn unreadable<'p>(setting: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> CredentialsError + 'p {
    move |source| CredentialsError::File { setting, file: path.display().to_string(), source }
}

#[cfg(unix)]
fn warn_if_others_may_read(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or_default();
    if mode & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "others may read this key; let its owner alone: chmod 600");
    }
}

#[cfg(not(unix))]
fn warn_if_others_may_read(_path: &Path) {}
