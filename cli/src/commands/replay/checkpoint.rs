//! How far a replay to files is: what makes it resumable after a SIGKILL.
//!
//! Written only after the bytes that it vouches for are on disk, whole or not at all. Must never
//! be taken for that of another replay: it holds what was asked.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use ryggrad_log::Stretch;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

/// What was asked: a checkpoint fits only the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Kafka's id of the cluster.
    pub cluster: String,
    /// The topic that is read.
    pub topic: String,
    /// The partitions asked for; none named means all.
    pub partitions: Vec<i32>,
    /// As it was typed.
    pub from: String,
    /// As it was typed.
    pub to: String,
    /// Patterns of keys.
    pub keys: Vec<String>,
    /// Patterns of types.
    pub types: Vec<String>,
    /// Names and patterns of headers.
    pub headers: Vec<(String, String)>,
    /// The expression that has to be true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// Records at most.
    pub limit: Option<u64>,
    /// `ndjson`, `avro` or `topic NAME`.
    pub target: String,
}

/// How far a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Partition number.
    pub partition: i32,
    /// The next offset to read.
    pub next: i64,
    /// The first offset that is not read any more, fixed when the replay began.
    pub to: i64,
}

impl Reached {
    /// What is left to read.
    pub fn stretch(self) -> Stretch {
        Stretch { partition: self.partition, from: self.next, to: self.to }
    }
}

/// How much of a file counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// What is in it: `lines`, `undecodable`, or `schema ID`.
    pub part: String,
    /// Its name, in the checkpoint's folder.
    pub name: String,
    /// Bytes that are good.
    pub bytes: u64,
}

/// What became of the records so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Read.
    pub read: u64,
    /// Selected and written.
    pub written: u64,
    /// Of these, kept as they are because they could not be decoded.
    pub undecodable: u64,
    /// Left out because their key was removed for legal reasons.
    pub withheld: u64,
    /// Tombstones left out, which an Avro container has no place for.
    pub tombstones_left_out: u64,
    /// Left out because an earlier replay had written them.
    pub replayed_before: u64,
}

impl Counts {
    /// Adds what came since.
    pub fn add(&mut self, other: Self) {
        self.read += other.read;
        self.written += other.written;
        self.undecodable += other.undecodable;
        self.withheld += other.withheld;
        self.tombstones_left_out += other.tombstones_left_out;
        self.replayed_before += other.replayed_before;
    }
}

/// How far a replay is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    version: u32,
    /// What was asked.
    pub asked: Asked,
    /// By partition.
    pub reached: Vec<Reached>,
    /// By part.
    pub files: Vec<Written>,
    /// So far.
    pub counts: Counts,
    /// Whether nothing is left to do.
    pub is_complete: bool,
}

impl Checkpoint {
    /// Before the first record.
    pub fn new(asked: Asked, stretches: &[Stretch]) -> Self {
        let reached = stretches.iter().map(|stretch| Reached { partition: stretch.partition, next: stretch.from, to: stretch.to });
        Self { version: VERSION, asked, reached: reached.collect(), files: Vec::new(), counts: Counts::default(), is_complete: false }
    }

    /// Where the checkpoint of a file lies.
    pub fn path_of(file: &Path) -> PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(".checkpoint");
        PathBuf::from(name)
    }

    /// Reads one; none if there is none.
    pub fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read the checkpoint {}", path.display()))?,
        };
        let checkpoint: Self = serde_json::from_slice(&text).with_context(|| format!("{} is no checkpoint of a replay", path.display()))?;
        anyhow::ensure!(checkpoint.version == VERSION, "{} is of version {}, this is {VERSION}", path.display(), checkpoint.version);
        Ok(Some(checkpoint))
    }

    /// Writes it so that after a crash there is either the old or the new one.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }

    /// What was asked otherwise than now, by name; nothing if it is the same replay.
    pub fn differences(&self, now: &Asked) -> Vec<&'static str> {
        let then = &self.asked;
        let parts = [
            ("the cluster", then.cluster == now.cluster),
            ("the topic", then.topic == now.topic),
            ("--partition", then.partitions == now.partitions),
            ("--from", then.from == now.from),
            ("--to", then.to == now.to),
            ("--key", then.keys == now.keys),
            ("--type", then.types == now.types),
            ("--header", then.headers == now.headers),
            ("--limit", then.limit == now.limit),
            ("--format", then.target == now.target),
        ];
        parts.into_iter().filter(|(_, is_same)| !is_same).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn asked() -> Asked {
        Asked {
            cluster: "c".to_owned(),
            topic: "t".to_owned(),
            partitions: Vec::new(),
            from: "beginning".to_owned(),
            to: "end".to_owned(),
            keys: Vec::new(),
            types: Vec::new(),
            headers: vec![("a".to_owned(), "b".to_owned())],
            sql: None,
            limit: None,
            target: "ndjson".to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = Checkpoint::path_of(&folder.path().join("x.ndjson"));
        assert!(path.ends_with("x.ndjson.checkpoint"));
        assert_eq!(Checkpoint::read(&path).unwrap(), None);
        let mut checkpoint = Checkpoint::new(asked(), &[Stretch { partition: 3, from: 5, to: 9 }]);
        checkpoint.files.push(Written { part: "lines".to_owned(), name: "x.ndjson".to_owned(), bytes: 7 });
        checkpoint.counts.add(Counts { read: 2, written: 1, ..Counts::default() });
        for _ in 0..2 {
            checkpoint.write(&path).unwrap();
            assert_eq!(Checkpoint::read(&path).unwrap(), Some(checkpoint.clone()));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        std::fs::write(&path, "{}").unwrap();
        assert!(Checkpoint::read(&path).is_err());
    }

    #[test]
    fn another_replay_is_told_by_what_differs() {
        let checkpoint = Checkpoint::new(asked(), &[]);
        assert!(checkpoint.differences(&asked()).is_empty());
        let other = Asked { to: "5".to_owned(), keys: vec!["k".to_owned()], ..asked() };
        assert_eq!(checkpoint.differences(&other), ["--to", "--key"]);
    }
}
