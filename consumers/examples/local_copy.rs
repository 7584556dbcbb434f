//! Keeps a copy of one municipality's units in a JSON file: the shortest program that does it right.
//!
//!     cargo run --release --example local_copy -- --kommune 0301 --file units.json
//!
//! The file is replaced whole, together with the positions behind it, so that a crash at any moment
//! leaves a copy that is right and knows how far it is.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Parser;
use ryggrad_consumers::{Change, Event, Plan, Positions, State, Step, Store, state};
use ryggrad_log::Connection;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Parser)]
struct Args {
    /// Kafka
    #[arg(long, env = "KAFKA_BOOTSTRAP", default_value = "127.0.0.1:9092")]
    kafka: String,
    /// Number of the municipality
    #[arg(long)]
    kommune: String,
    /// Where the copy is kept
    #[arg(long)]
    file: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
struct Contents {
    positions: Option<Positions>,
    units: BTreeMap<String, Value>,
}

/// The copy: what the file holds, and what it will hold after the next commit.
struct Units {
    file: PathBuf,
    kommune: String,
    contents: Contents,
}

impl Units {
    fn open(file: PathBuf, kommune: String) -> anyhow::Result<Self> {
        let contents = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Contents::default(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { file, kommune, contents })
    }

    fn is_here(&self, event: &Event) -> bool {
        event.attributes.as_ref().and_then(|attributes| attributes.extensions.get("kommunenummer")) == Some(&self.kommune)
    }
}

impl Store for Units {
    type Error = io::Error;

    fn positions(&mut self) -> io::Result<Option<Positions>> {
        Ok(self.contents.positions.clone())
    }

    fn begin_anew(&mut self) -> io::Result<()> {
        self.contents = Contents::default();
        Ok(())
    }

    fn apply(&mut self, changes: Vec<Change>) -> io::Result<()> {
        for change in changes {
            match change {
                Change::Put { key, event } if self.is_here(&event) => {
                    self.contents.units.insert(key, event.data().unwrap_or_default());
                }
                // It is gone, or has moved to another municipality.
                Change::Put { key, .. } | Change::Remove { key, .. } => {
                    self.contents.units.remove(&key);
                }
                Change::Undecodable { record, .. } => eprintln!("{record}; it stays as it was"),
            }
        }
        Ok(())
    }

    fn commit(&mut self, positions: &Positions) -> io::Result<()> {
        self.contents.positions = Some(positions.clone());
        let fresh = self.file.with_extension("fresh");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(&self.contents)?)?;
        file.sync_all()?;
        fs::rename(fresh, &self.file)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let connection = Connection::new(args.kafka);
    let open = |is_anew| {
        let plan = Plan { group: Some(format!("units-of-{}", args.kommune)), is_anew, ..Plan::of("grunndata.virksomhet.v1") };
        Ok::<_, anyhow::Error>(State::open(&connection, plan, Units::open(args.file.clone(), args.kommune.clone())?))
    };
    let mut state = match open(false)?.await {
        // Away for months: what was deleted meanwhile is told no more, so all is read again.
        Err(gap @ state::Error::Gap { .. }) => {
            eprintln!("{gap}");
            open(true)?.await?
        }
        opened => opened?,
    };
    loop {
        tokio::select! {
            step = state.next() => match step? {
                Step::CaughtUp => println!("caught up"),
                Step::Away { reason } => eprintln!("{reason}"),
                Step::Applied { .. } => {}
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    state.close().await?;
    Ok(())
}
