//! Opening, checking and reading the store.
//!
//! sled 0.34 needs care (see the rules in ARCHITECTURE.md): a kill during open leaves a snapshot
//! that the next open would trip over; damage shows as an error or as a panic. A directory that
//! can't be opened is moved aside, never deleted.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ryggrad_bridge_core::cursor::{Cursor, Place};

const META: &str = "meta";
const CURSORS: &str = "cursors";
const CLUSTER_ID: &str = "cluster_id";
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Length of a subscription's id in a key.
const ID_BYTES: usize = 16;
const KEY_BYTES: usize = ID_BYTES + 2 + 4;
const CHECKSUM_BYTES: usize = 4;

/// An open store.
#[derive(Clone)]
pub struct Store {
    pub(crate) db: sled::Db,
    pub(crate) cursors: sled::Tree,
    meta: sled::Tree,
    path: PathBuf,
}

/// What opening found.
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Where a damaged directory was moved to, if there was one.
    pub moved_aside: Option<PathBuf>,
}

/// A cursor as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCursor {
    /// The subscription's id.
    pub subscription: [u8; ID_BYTES],
    /// Topic and partition.
    pub place: Place,
    /// The cursor; `None` if the stored bytes are damaged.
    pub cursor: Option<Cursor>,
}

/// Why no store is open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the directory.
    #[error("the store in {} is in use by another process; only one bridge may run on it", .0.display())]
    InUse(PathBuf),
    /// The directory can't be made, read or moved.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Even a fresh directory does not open.
    #[error("cannot open a fresh store in {}: {reason}", .path.display())]
    Fresh {
        /// Where.
        path: PathBuf,
        /// What sled says.
        reason: String,
    },
    /// The store was made for another Kafka cluster: its offsets mean nothing here.
    #[error("the store in {} belongs to the Kafka cluster {stored}, but this is {found}; use another data folder, or move this one away", .path.display())]
    OtherCluster {
        /// Where.
        path: PathBuf,
        /// The cluster it belongs to.
        stored: String,
        /// The cluster that answered.
        found: String,
    },
    /// The store does not answer.
    #[error("cannot read or write the store")]
    Sled(#[from] sled::Error),
}

impl Store {
    /// Opens a directory, or a fresh one in its place if it is damaged.
    pub fn open(path: &Path) -> Result<Opened, OpenError> {
        fs::create_dir_all(path).map_err(|source| OpenError::Io { doing: "create", path: path.to_owned(), source })?;
        match attempt(path) {
            Ok(store) => Ok(Opened { store, moved_aside: None }),
            Err(Damage::InUse) => Err(OpenError::InUse(path.to_owned())),
            Err(Damage::Broken(reason)) => {
                let aside = move_aside(path)?;
                tracing::error!(path = %path.display(), aside = %aside.display(), reason, "the store is damaged; it was moved aside and a fresh one is used");
                match attempt(path) {
                    Ok(store) => Ok(Opened { store, moved_aside: Some(aside) }),
                    Err(Damage::InUse) => Err(OpenError::InUse(path.to_owned())),
                    Err(Damage::Broken(reason)) => Err(OpenError::Fresh { path: path.to_owned(), reason }),
                }
            }
        }
    }

    /// Binds a fresh store to a cluster, or checks that it is bound to this one.
    pub fn bind_to_cluster(&self, cluster_id: &str) -> Result<(), OpenError> {
        match self.meta.get(CLUSTER_ID)? {
            Some(stored) if stored == cluster_id.as_bytes() => Ok(()),
            Some(stored) => Err(OpenError::OtherCluster {
                path: self.path.clone(),
                stored: String::from_utf8_lossy(&stored).into_owned(),
                found: cluster_id.to_owned(),
            }),
            None => {
                self.meta.insert(CLUSTER_ID, cluster_id.as_bytes())?;
                self.sync()
            }
        }
    }

    /// Every stored cursor.
    pub fn cursors(&self) -> Result<Vec<StoredCursor>, OpenError> {
        let mut found = Vec::new();
        for entry in &self.cursors {
            let (key, value) = entry?;
            if let Some((subscription, place)) = parse_key(&key) {
                found.push(StoredCursor { subscription, place, cursor: parse_value(&value) });
            }
        }
        Ok(found)
    }

    /// Bytes on disk.
    pub fn size_bytes(&self) -> Result<u64, OpenError> {
        Ok(self.db.size_on_disk()?)
    }

    /// Makes everything written so far survive a power cut: sled's own flush is no fsync.
    pub(crate) fn sync(&self) -> Result<(), OpenError> {
        self.db.flush()?;
        let path = self.path.join("db");
        fs::File::open(&path).and_then(|file| file.sync_all()).map_err(|source| OpenError::Io { doing: "sync", path, source })
    }
}

enum Damage {
    InUse,
    Broken(String),
}

fn attempt(path: &Path) -> Result<Store, Damage> {
    remove_half_made_snapshots(path).map_err(|error| Damage::Broken(error.to_string()))?;
    // sled panics on some kinds of damage instead of answering.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let db = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).open()?;
        let (cursors, meta) = (db.open_tree(CURSORS)?, db.open_tree(META)?);
        // Reads every page once, so that damage shows here and not in the middle of the work.
        for entry in cursors.iter().chain(meta.iter()) {
            entry?;
        }
        Ok::<_, sled::Error>(Store { db, cursors, meta, path: path.to_owned() })
    }));
    match opened {
        Ok(Ok(store)) => Ok(store),
        Ok(Err(sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => Err(Damage::InUse),
        Ok(Err(error)) => Err(Damage::Broken(error.to_string())),
        Err(_) => Err(Damage::Broken("sled panicked".to_owned())),
    }
}

fn remove_half_made_snapshots(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn move_aside(path: &Path) -> Result<PathBuf, OpenError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let aside = (1..).map(|number| path.with_file_name(format!("{name}.damaged-{number}"))).find(|aside| !aside.exists());
    let aside = aside.unwrap_or_else(|| path.with_extension("damaged"));
    fs::rename(path, &aside).and_then(|()| fs::create_dir_all(path)).map_err(|source| OpenError::Io {
        doing: "move aside",
        path: path.to_owned(),
        source,
    })?;
    Ok(aside)
}

pub(crate) fn key(subscription: [u8; ID_BYTES], place: Place) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..ID_BYTES].copy_from_slice(&subscription);
    key[ID_BYTES..ID_BYTES + 2].copy_from_slice(&place.topic.to_be_bytes());
    key[ID_BYTES + 2..].copy_from_slice(&place.partition.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<([u8; ID_BYTES], Place)> {
    let (subscription, rest) = key.split_first_chunk::<ID_BYTES>()?;
    let (topic, rest) = rest.split_first_chunk::<2>()?;
    let partition = rest.first_chunk::<4>()?;
    Some((*subscription, Place { topic: u16::from_be_bytes(*topic), partition: i32::from_be_bytes(*partition) }))
}

pub(crate) fn value(cursor: &Cursor) -> Vec<u8> {
    let body = cursor.to_bytes();
    [crc32fast::hash(&body).to_be_bytes().as_slice(), &body].concat()
}

fn parse_value(value: &[u8]) -> Option<Cursor> {
    let (checksum, body) = value.split_first_chunk::<CHECKSUM_BYTES>()?;
    if crc32fast::hash(body).to_be_bytes() != *checksum {
        return None;
    }
    Cursor::from_bytes(body).ok()
}
