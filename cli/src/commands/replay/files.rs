//! Writing pieces into files, with a checkpoint that lags behind by a moment and never lies.
//!
//! A checkpoint is written after the bytes that it vouches for are synced, on a thread beside, so
//! that writing goes on meanwhile. What lies behind it after a SIGKILL is cut off at `--resume`.
//! Must never write over a file that it did not make.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use ryggrad_schemas::avro_container::{self, Marker};
use uuid::Uuid;

use super::checkpoint::{Checkpoint, Written};
use super::render::{Part, Piece};
use crate::exit::{Code, Stop};

/// How much work a SIGKILL may cost, in time; and how much is left to be synced in the end.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(250);

/// The files of one replay.
pub struct Files {
    path: PathBuf,
    checkpoint_path: PathBuf,
    checkpoint: Checkpoint,
    /// In the order of the checkpoint's.
    open: Vec<(Part, File)>,
    marker: Marker,
    keeper: Keeper,
    kept: Instant,
    scratch: Vec<u8>,
}

fn refused(what: String, remedy: &str) -> Stop {
    Stop { code: Code::Refused, what, remedy: Some(remedy.to_owned()) }
}

/// How a file's replay stands.
pub enum Found {
    /// Nothing is there yet.
    Nothing,
    /// A part of the same replay.
    Begun(Box<Checkpoint>),
}

/// Looks at what is there. Refuses what another replay, or nobody known, has written.
pub fn look(path: &Path, asked: &super::checkpoint::Asked, resume: bool) -> anyhow::Result<Found> {
    let checkpoint = Checkpoint::read(&Checkpoint::path_of(path))?;
    let (shown, exists) = (path.display(), path.symlink_metadata().is_ok());
    match (checkpoint, resume) {
        (None, _) if !exists => Ok(Found::Nothing),
        (None, false) => Err(refused(format!("{shown} exists"), "name another file, or remove it").into()),
        (None, true) => {
            Err(refused(format!("{shown} has no checkpoint beside it"), "it is not known what it holds; begin anew in another file").into())
        }
        (Some(_), false) => Err(refused(
            format!("{shown} was begun before"),
            "--resume goes on with it; to begin anew, remove it and its .checkpoint or name another file",
        )
        .into()),
        (Some(checkpoint), true) => {
            let differences = checkpoint.differences(asked);
            if differences.is_empty() {
                return Ok(Found::Begun(Box::new(checkpoint)));
            }
            Err(refused(
                format!("the checkpoint of {shown} is of another replay: {} differ", differences.join(", ")),
                "ask for the same, or begin anew in another file",
            )
            .into())
        }
    }
}

impl Files {
    /// Goes on where the checkpoint is; a new one begins.
    pub fn open(path: &Path, checkpoint: Checkpoint) -> anyhow::Result<Self> {
        let checkpoint_path = Checkpoint::path_of(path);
        let mut open = Vec::new();
        for written in &checkpoint.files {
            let part = part_of(&written.part).with_context(|| format!("the checkpoint names an unknown part {}", written.part))?;
            let file = beside(path, &written.name);
            let reopened = reopen(&file, written.bytes).with_context(|| format!("cannot go on with {}", file.display()))?;
            open.push((part, reopened));
        }
        // The same in every run, so that a container goes on with the marker in its head.
        let marker = *Uuid::new_v5(&Uuid::NAMESPACE_URL, serde_json::to_string(&checkpoint.asked)?.as_bytes()).as_bytes();
        let mut files = Self {
            path: path.to_owned(),
            checkpoint_path,
            checkpoint,
            open,
            marker,
            keeper: Keeper::start()?,
            kept: Instant::now(),
            scratch: Vec::new(),
        };
        files.keep_now()?;
        if files.checkpoint.asked.target == "ndjson" {
            files.index(Part::Lines)?;
        }
        Ok(files)
    }

    /// Writes a piece and, now and then, a checkpoint.
    pub fn take(&mut self, piece: &Piece) -> anyhow::Result<()> {
        // All files before the first byte: a checkpoint on the way knows this piece whole or not.
        let indexes = piece.parts.iter().map(|(part, ..)| self.index(*part)).collect::<anyhow::Result<Vec<_>>>()?;
        for ((part, bytes, records), index) in piece.parts.iter().zip(indexes) {
            match part {
                Part::Lines | Part::Undecodable => self.write(index, bytes)?,
                Part::Schema(id) => {
                    let mut framed = std::mem::take(&mut self.scratch);
                    framed.clear();
                    if self.checkpoint.files.get(index).is_some_and(|written| written.bytes == 0) {
                        avro_container::write_head(*id, &self.marker, &mut framed)?;
                    }
                    avro_container::write_block(*records, bytes, &self.marker, &mut framed);
                    self.write(index, &framed)?;
                    self.scratch = framed;
                }
            }
        }
        for (partition, next) in &piece.next {
            if let Some(reached) = self.checkpoint.reached.iter_mut().find(|reached| reached.partition == *partition) {
                reached.next = *next;
            }
        }
        self.checkpoint.counts.add(piece.counts);
        if self.kept.elapsed() >= CHECKPOINT_EVERY {
            let work = self.work()?;
            if self.keeper.offer(work)? {
                self.kept = Instant::now();
            }
        }
        Ok(())
    }

    /// Makes everything durable and gives the last checkpoint.
    pub fn finish(mut self, is_complete: bool) -> anyhow::Result<Checkpoint> {
        self.checkpoint.is_complete = is_complete;
        self.keep_now()?;
        Ok(self.checkpoint)
    }

    fn write(&mut self, index: usize, bytes: &[u8]) -> anyhow::Result<()> {
        let (Some((_, file)), Some(written)) = (self.open.get_mut(index), self.checkpoint.files.get_mut(index)) else {
            anyhow::bail!("a file was never opened");
        };
        file.write_all(bytes).with_context(|| format!("cannot write {}", written.name))?;
        written.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Which file a part has. A new one stands in the checkpoint before it is made, so that none
    /// is ever left over.
    fn index(&mut self, part: Part) -> anyhow::Result<usize> {
        if let Some(index) = self.open.iter().position(|(known, _)| *known == part) {
            return Ok(index);
        }
        let plain = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_first = !self.open.iter().any(|(known, _)| matches!(known, Part::Schema(_)));
        let name = match part {
            Part::Lines => plain,
            Part::Undecodable => format!("{plain}.undecodable.ndjson"),
            Part::Schema(_) if is_first => plain,
            Part::Schema(id) => format!("{plain}.schema-{id}.avro"),
        };
        let file = beside(&self.path, &name);
        anyhow::ensure!(file.symlink_metadata().is_err(), refused(format!("{} exists", file.display()), "remove it, or name another file"));
        self.checkpoint.files.push(Written { part: name_of(part), name, bytes: 0 });
        self.keeper.settle()?;
        self.checkpoint_without_last()?;
        let made = File::options().write(true).create_new(true).open(&file).with_context(|| format!("cannot make {}", file.display()))?;
        self.open.push((part, made));
        Ok(self.open.len() - 1)
    }

    /// The new file's entry, with what is durable of the others.
    fn checkpoint_without_last(&mut self) -> anyhow::Result<()> {
        for (_, file) in &self.open {
            file.sync_data()?;
        }
        self.checkpoint.write(&self.checkpoint_path).with_context(|| format!("cannot write {}", self.checkpoint_path.display()))
    }

    fn work(&self) -> io::Result<Work> {
        let files = self.open.iter().map(|(_, file)| file.try_clone()).collect::<io::Result<_>>()?;
        Ok(Work { files, checkpoint: self.checkpoint.clone(), path: self.checkpoint_path.clone() })
    }

    fn keep_now(&mut self) -> anyhow::Result<()> {
        let work = self.work()?;
        self.keeper.settle()?;
        self.keeper.offer(work)?;
        self.keeper.settle()
    }
}

fn beside(path: &Path, name: &str) -> PathBuf {
    path.with_file_name(name)
}

fn name_of(part: Part) -> String {
    match part {
        Part::Lines => "lines".to_owned(),
        Part::Undecodable => "undecodable".to_owned(),
        Part::Schema(id) => format!("schema {id}"),
    }
}

fn part_of(name: &str) -> Option<Part> {
    match name {
        "lines" => Some(Part::Lines),
        "undecodable" => Some(Part::Undecodable),
        other => other.strip_prefix("schema ")?.parse().ok().map(Part::Schema),
    }
}

/// A file of an earlier run, cut to what counts.
fn reopen(path: &Path, bytes: u64) -> anyhow::Result<File> {
    let mut file = File::options().write(true).create(bytes == 0).truncate(false).open(path)?;
    let found = file.metadata()?.len();
    if found < bytes {
        let what = format!("it has {found} bytes, its checkpoint says {bytes}");
        return Err(refused(what, "somebody has changed it; begin anew in another file").into());
    }
    file.set_len(bytes)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

/// One checkpoint and the files that it vouches for.
struct Work {
    files: Vec<File>,
    checkpoint: Checkpoint,
    path: PathBuf,
}

impl Work {
    fn done(&self) -> io::Result<()> {
        self.files.iter().try_for_each(File::sync_data)?;
        self.checkpoint.write(&self.path)
    }
}

/// A thread that syncs files and writes checkpoints, one at a time.
struct Keeper {
    work: SyncSender<Work>,
    outcomes: Receiver<io::Result<()>>,
    is_busy: bool,
}

impl Keeper {
    fn start() -> io::Result<Self> {
        let (work, waiting) = sync_channel::<Work>(1);
        let (tell, outcomes) = sync_channel(1);
        std::thread::Builder::new().name("replay-checkpoints".to_owned()).spawn(move || {
            while let Ok(work) = waiting.recv() {
                if tell.send(work.done()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { work, outcomes, is_busy: false })
    }

    /// Takes work if it has none; whether it did.
    fn offer(&mut self, work: Work) -> anyhow::Result<bool> {
        if self.is_busy {
            match self.outcomes.try_recv() {
                Ok(outcome) => outcome.context("cannot write the checkpoint")?,
                Err(_) => return Ok(false),
            }
        }
        self.work.send(work).context("the thread that writes checkpoints has ended")?;
        self.is_busy = true;
        Ok(true)
    }

    /// Waits for what it is doing.
    fn settle(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.is_busy) {
            self.outcomes.recv().context("the thread that writes checkpoints has ended")?.context("cannot write the checkpoint")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::Counts;
    use super::super::checkpoint::tests::asked;
    use super::*;
    use ryggrad_log::Stretch;

    fn piece(text: &str, next: i64) -> Piece {
        let counts = Counts { read: 1, written: 1, ..Counts::default() };
        Piece { parts: vec![(Part::Lines, text.as_bytes().to_vec(), 1)], next: vec![(0, next)], counts }
    }

    #[test]
    fn what_lies_behind_the_checkpoint_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.ndjson");
        let stretches = [Stretch { partition: 0, from: 5, to: 9 }];
        assert!(matches!(look(&path, &asked(), true).unwrap(), Found::Nothing));
        let mut files = Files::open(&path, Checkpoint::new(asked(), &stretches)).unwrap();
        files.take(&piece("one\n", 6)).unwrap();
        files.keep_now().unwrap();
        files.take(&piece("two\n", 7)).unwrap();
        // As a SIGKILL would.
        drop(files);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");

        assert!(look(&path, &asked(), false).is_err(), "an existing file is refused");
        let Found::Begun(checkpoint) = look(&path, &asked(), true).unwrap() else { panic!("it was begun") };
        assert_eq!((checkpoint.reached[0].stretch(), checkpoint.is_complete), (Stretch { partition: 0, from: 6, to: 9 }, false));
        let mut files = Files::open(&path, *checkpoint).unwrap();
        files.take(&piece("2\n", 9)).unwrap();
        let checkpoint = files.finish(true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n2\n");
        assert_eq!((checkpoint.counts.written, checkpoint.files[0].bytes), (2, 6));
    }

    #[test]
    fn foreign_and_damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.ndjson");
        std::fs::write(&path, "mine").unwrap();
        assert!(look(&path, &asked(), false).is_err() && look(&path, &asked(), true).is_err());
        assert!(Files::open(&path, Checkpoint::new(asked(), &[])).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");

        let path = folder.path().join("y.ndjson");
        let mut files = Files::open(&path, Checkpoint::new(asked(), &[])).unwrap();
        files.take(&piece("one\n", 6)).unwrap();
        files.finish(false).unwrap();
        let other = super::super::checkpoint::Asked { to: "7".to_owned(), ..asked() };
        assert!(look(&path, &other, true).is_err());
        std::fs::write(&path, "").unwrap();
        let Found::Begun(checkpoint) = look(&path, &asked(), true).unwrap() else { panic!("it was begun") };
        assert!(Files::open(&path, *checkpoint).is_err(), "it is shorter than its checkpoint");
    }

    #[test]
    fn each_schema_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.avro");
        let asked = super::super::checkpoint::Asked { target: "avro".to_owned(), ..asked() };
        let mut files = Files::open(&path, Checkpoint::new(asked, &[])).unwrap();
        let id = ryggrad_schemas::manifest::all()[0].id;
        let parts = vec![(Part::Undecodable, b"{}\n".to_vec(), 1), (Part::Schema(id), vec![1], 1)];
        files.take(&Piece { parts, ..Piece::default() }).unwrap();
        let written = files.finish(true).unwrap().files;
        assert_eq!(written.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["x.avro.undecodable.ndjson", "x.avro"]);
        assert!(std::fs::read(&path).unwrap().starts_with(b"Obj\x01"));
    }
}
