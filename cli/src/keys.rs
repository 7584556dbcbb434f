//! Keys and tokens in files of their own, readable by their owner only.
//!
//! A file is made whole or not at all, and replaced by `ryggrad keys` alone: whoever loses the seal's key
//! loses what it sealed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use ryggrad_bridge_core::asymmetric::{SigningKey, SigningKeys};

/// The key in a file of 64 hexadecimal digits; a new one if there is no file.
pub fn seal_key(path: &Path) -> anyhow::Result<[u8; 32]> {
    let text = read_or_make(path, || hexadecimal(&rand::random::<[u8; 32]>()))?;
    let mut key = [0; 32];
    let digits = text.trim().as_bytes();
    if digits.len() != 64 {
        bail!("{} holds no key: 64 hexadecimal digits are expected", path.display());
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        *byte =
            u8::from_str_radix(pair, 16).with_context(|| format!("{} holds no key: 64 hexadecimal digits are expected", path.display()))?;
    }
    Ok(key)
}

/// The keys of asymmetric signatures in a file, in their text form; a new one if there is no file.
pub fn signing_keys(path: &Path) -> anyhow::Result<SigningKeys> {
    let fresh = fresh_signing_key()?;
    let text = read_or_make(path, || fresh.reveal())?;
    text.parse().with_context(|| format!("{} holds no signing key", path.display()))
}

/// A new key of asymmetric signatures.
pub fn fresh_signing_key() -> anyhow::Result<SigningKey> {
    Ok(SigningKey::from_seed(&rand::random::<[u8; 32]>())?)
}

/// The token in a file that is to be shown; a new random one if there is no file.
pub fn token(path: &Path) -> anyhow::Result<String> {
    tokens(path)?.into_iter().next().with_context(|| format!("{} holds no token", path.display()))
}

/// The tokens in a file, one a line, the newest first; a new random one if there is no file.
pub fn tokens(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = read_or_make(path, fresh_token)?;
    let tokens: Vec<String> = text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    if tokens.is_empty() || tokens.iter().any(|token| token.len() < 16) {
        bail!("{} holds no token of at least 16 characters", path.display());
    }
    Ok(tokens)
}

/// A new random token.
pub fn fresh_token() -> String {
    format!("rygop_{}", hexadecimal(&rand::random::<[u8; 32]>()))
}

/// Writes a file for its owner's eyes only, replacing what is there.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let doing = || format!("cannot write {}", path.display());
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let written = create(&fresh).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.and_then(|()| fs::rename(&fresh, path)).with_context(doing)
}

fn read_or_make(path: &Path, make: impl FnOnce() -> String) -> anyhow::Result<String> {
    if !path.exists() {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        // Two that start at once: a hard link never replaces, so both read the same in the end.
        let fresh = path.with_extension(format!("new-{}", std::process::id()));
        write_private(&fresh, &make())?;
        let linked = fs::hard_link(&fresh, path);
        let _ = fs::remove_file(&fresh);
        if !path.exists() {
            linked.with_context(|| format!("cannot create {}", path.display()))?;
        }
    }
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_read_back_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/seal.key");
        let key = seal_key(&path).unwrap();
        assert_eq!(seal_key(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let signing = folder.path().join("deep/signing.key");
        let key = signing_keys(&signing).unwrap();
        assert_eq!(signing_keys(&signing).unwrap().reveal(), key.reveal());
        assert_eq!(fs::metadata(&signing).unwrap().permissions().mode() & 0o777, 0o600);
        for path in [&path, &signing] {
            fs::write(path, "short").unwrap();
        }
        assert!(seal_key(&path).is_err() && signing_keys(&signing).is_err());
        assert_eq!(fs::read_dir(folder.path().join("deep")).unwrap().count(), 2, "nothing is left lying about");
    }
}
