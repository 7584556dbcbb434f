//! Opening, checking and reading the store.
//!
//! sled 0.34 needs care (see the rules in ARCHITECTURE.md): a kill during open leaves a snapshot
//! that the next open would trip over; damage shows as an error or as a panic. A directory that
//! can't be opened is moved aside, never deleted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ryggrad_bridge_core::cursor::{Cursor, Place};
use ryggrad_bridge_core::machine::{DeadLetter, Numbering};

use crate::entry::{self, Entry, SubscriptionId};

const META: &str = "meta";
const STATE: &str = "state";
const ANSWERS: &str = "answers";
const HEADS: &str = "heads";
/// The tree of a form that had no numbers.
const OLD_CURSORS: &str = "cursors";
const CLUSTER_ID: &str = "cluster_id";
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// An open store.
#[derive(Clone)]
pub struct Store {
    pub(crate) db: sled::Db,
    pub(crate) state: sled::Tree,
    pub(crate) answers: sled::Tree,
    pub(crate) heads: sled::Tree,
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

/// Which cluster a store belonged to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// This one, before.
    Before,
    /// None: the store is new.
    Now,
    /// Another one, whose cursors have been copied to this folder.
    Instead(PathBuf),
}

/// What is stored of one subscription.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored {
    /// Its cursors.
    pub cursors: BTreeMap<Place, Cursor>,
    /// Its numbers so far.
    pub numbering: Option<Numbering>,
    /// Events set aside, and when (milliseconds since 1970).
    pub dead_letters: Vec<(DeadLetter, u64)>,
    /// Something of it can't be read: what is left is not the whole truth.
    pub damaged: bool,
}

impl Stored {
    /// Takes in an entry of the subscription; none is one that can't be read.
    fn take(&mut self, entry: Option<Entry>) {
        match entry {
            Some(Entry::Cursor { place, cursor, .. }) => drop(self.cursors.insert(place, cursor)),
            Some(Entry::Numbering { numbering, .. }) => self.numbering = Some(numbering),
            Some(Entry::DeadLetter { letter, at_ms, .. }) => self.dead_letters.push((letter, at_ms)),
            Some(Entry::Live { .. }) => {}
            None => self.damaged = true,
        }
    }
}

/// Everything that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Where the tail is.
    pub live: BTreeMap<Place, i64>,
    /// By subscription.
    pub subscriptions: BTreeMap<SubscriptionId, Stored>,
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

    /// Binds the store to a cluster. What belongs to another cluster is set aside, since its
    /// offsets mean nothing here.
    pub fn bind_to_cluster(&self, cluster_id: &str) -> Result<Bound, OpenError> {
        match self.meta.get(CLUSTER_ID)? {
            Some(stored) if stored == cluster_id.as_bytes() => Ok(Bound::Before),
            Some(_) => self.begin_anew(cluster_id).map(Bound::Instead),
            None => {
                self.meta.insert(CLUSTER_ID, cluster_id.as_bytes())?;
                self.sync()?;
                Ok(Bound::Now)
            }
        }
    }

    /// Everything that is stored.
    pub fn load(&self) -> Result<Loaded, OpenError> {
        let mut loaded = Loaded::default();
        for found in &self.state {
            let (key, value) = found?;
            match entry::parse(&key, &value) {
                Ok(Entry::Live { place, to }) => drop(loaded.live.insert(place, to)),
                Err(None) => tracing::error!("a stored position of the tail is damaged and left out"),
                Err(Some(subscription)) => loaded.subscriptions.entry(subscription).or_default().take(None),
                Ok(entry) => {
                    if let Some(subscription) = entry.subscription() {
                        loaded.subscriptions.entry(subscription).or_default().take(Some(entry));
                    }
                }
            }
        }
        Ok(loaded)
    }

    /// What is stored of one subscription.
    pub fn read(&self, subscription: SubscriptionId) -> Result<Stored, OpenError> {
        let mut stored = Stored::default();
        for prefix in entry::OF_SUBSCRIPTIONS.map(|kind| [&[kind][..], &subscription].concat()) {
            for found in self.state.scan_prefix(prefix) {
                let (key, value) = found?;
                stored.take(entry::parse(&key, &value).ok());
            }
        }
        Ok(stored)
    }

    fn begin_anew(&self, cluster_id: &str) -> Result<PathBuf, OpenError> {
        self.sync()?;
        let aside = free_name(&self.path, "foreign");
        copy_folder(&self.path, &aside).map_err(|source| OpenError::Io { doing: "set aside", path: self.path.clone(), source })?;
        self.state.clear()?;
        self.answers.clear()?;
        self.heads.clear()?;
        self.meta.insert(CLUSTER_ID, cluster_id.as_bytes())?;
        self.sync()?;
        Ok(aside)
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
        let (state, answers) = (db.open_tree(STATE)?, db.open_tree(ANSWERS)?);
        let (heads, meta) = (db.open_tree(HEADS)?, db.open_tree(META)?);
        // Reads every page once, so that damage shows here and not in the middle of the work.
        for entry in state.iter().chain(answers.iter()).chain(heads.iter()).chain(meta.iter()) {
            entry?;
        }
        Ok::<_, sled::Error>(Store { db, state, answers, heads, meta, path: path.to_owned() })
    }));
    match opened {
        Ok(Ok(store)) if store.db.tree_names().iter().any(|name| name == OLD_CURSORS.as_bytes()) => {
            Err(Damage::Broken("it was written by an older version".to_owned()))
        }
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
    let aside = free_name(path, "damaged");
    fs::rename(path, &aside).and_then(|()| fs::create_dir_all(path)).map_err(|source| OpenError::Io {
        doing: "move aside",
        path: path.to_owned(),
        source,
    })?;
    Ok(aside)
}

fn free_name(path: &Path, why: &str) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let free = (1..).map(|number| path.with_file_name(format!("{name}.{why}-{number}"))).find(|aside| !aside.exists());
    free.unwrap_or_else(|| path.with_extension(why))
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
