//! The state file: what it takes to build the very same registry again after a restart.
//!
//! It holds options and a count, never units. It is written before new changes can be seen, so a
//! crash may only bring changes nobody saw, never take back one somebody did.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{
    act::{Act, Order},
    registry::RegistryOptions,
};

/// Raised whenever a change to this module would make other units of the same seed.
const FORMAT: u32 = 1;
/// Orders a state can hold: the file is written as a whole with every change.
const ORDERS_AT_MOST: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    pub(super) options: RegistryOptions,
    pub(super) started_at_unix_ms: i64,
    pub(super) changes_made: u64,
    /// Changes that did not just fall to it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    orders: Vec<Order>,
    /// After how many changes the dumps were frozen, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) frozen_after: Option<u64>,
}

impl State {
    /// A registry that starts now.
    pub(super) fn fresh(options: RegistryOptions) -> Self {
        Self {
            format: FORMAT,
            options,
            started_at_unix_ms: Timestamp::now().as_millisecond(),
            changes_made: 0,
            orders: Vec::new(),
            frozen_after: None,
        }
    }

    /// The same state with dumps that were frozen after so many changes, or live ones.
    pub(super) fn with_frozen(&self, frozen_after: Option<u64>) -> Self {
        Self { frozen_after, ..self.clone() }
    }

    /// Counts `count` changes more. False if there is no room to remember them in.
    #[must_use]
    pub(super) fn note(&mut self, act: &Act, silent: bool, count: u64) -> bool {
        let after = self.changes_made;
        self.changes_made += count;
        if (*act == Act::Any && !silent) || count == 0 {
            return true;
        }
        let is_full = self.orders.len() == ORDERS_AT_MOST;
        match self.orders.last_mut() {
            Some(last) if last.end() == after && last.act == *act && last.silent == silent => last.count += count,
            _ if is_full => return false,
            _ => self.orders.push(Order { after, count, act: act.clone(), silent }),
        }
        true
    }

    /// All changes in their order: what each was, and whether it was silent.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&Act, bool)> {
        let mut orders = self.orders.iter().peekable();
        (0..self.changes_made).map(move |change| {
            while orders.next_if(|order| order.end() <= change).is_some() {}
            match orders.peek() {
                Some(order) if order.after <= change => (&order.act, order.silent),
                _ => (&Act::Any, false),
            }
        })
    }
}

/// The file's state if there is one; else a fresh one. The file's options win over `asked`.
pub(super) fn load_or_fresh(path: &Path, asked: RegistryOptions) -> anyhow::Result<State> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::fresh(asked)),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    // A broken file is an error, not a fresh start: ids would jump backwards.
    let state: State = serde_json::from_str(&text).with_context(|| format!("{} is no simulator state", path.display()))?;
    ensure!(state.format == FORMAT, "{} has format {}, this simulator writes {FORMAT}", path.display(), state.format);
    state.options.check()?;
    if state.options != asked {
        warn!(
            file = %path.display(),
            asked = ?asked,
            used = ?state.options,
            "the state file's options differ from those asked for; the file's are used"
        );
    }
    Ok(state)
}

/// Replaces the file as a whole, and is done only when it is on the disk.
pub(super) fn save(path: &Path, state: &State) -> anyhow::Result<()> {
    let context = || format!("write {}", path.display());
    let mut temporary = PathBuf::from(path);
    temporary.as_mut_os_string().push(".new");
    let mut file = File::create(&temporary).with_context(context)?;
    file.write_all(&serde_json::to_vec_pretty(state)?).with_context(context)?;
    file.sync_all().with_context(context)?;
    fs::rename(&temporary, path).with_context(context)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(context)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn options(seed: u64) -> RegistryOptions {
        RegistryOptions { seed, units: 10, changes_per_second: 2.5, deletions: 0.02, removals: 0.005 }
    }

    #[test]
    fn the_files_state_wins_and_survives_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.json");
        let mut state = load_or_fresh(&path, options(1)).expect("no file is a fresh start");
        state.changes_made = 42;
        save(&path, &state).expect("saved");
        assert_eq!(load_or_fresh(&path, options(2)).expect("read again"), state);
    }

    #[test]
    fn orders_stand_where_they_were_given() {
        let mut state = State::fresh(options(1));
        for (act, silent, count) in
            [(Act::Any, false, 2), (Act::Edit, true, 1), (Act::Edit, true, 2), (Act::Any, true, 1), (Act::Any, false, 1)]
        {
            assert!(state.note(&act, silent, count));
        }
        assert_eq!(state.orders.len(), 2);
        let json = serde_json::to_string(&state).expect("JSON");
        let state: State = serde_json::from_str(&json).expect("read again");
        let changes: Vec<_> = state.changes().map(|(act, silent)| (act.clone(), silent)).collect();
        let usual = (Act::Any, false);
        let edit = (Act::Edit, true);
        assert_eq!(changes, [usual.clone(), usual.clone(), edit.clone(), edit.clone(), edit, (Act::Any, true), usual]);
    }

    #[test]
    fn a_broken_file_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.json");
        fs::write(&path, "{").expect("written");
        assert!(load_or_fresh(&path, options(1)).is_err());
    }
}
