//! Texts that are too long or too private for an argument: from a file, or from stdin.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

use crate::exit::Stop;

/// All of a file, or of stdin for `-`. `what` says what the file is to be, for whoever has named another.
pub fn read(file: &Path, what: &str) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("stdin cannot be read as text")?;
        return Ok(text);
    }
    let unreadable = |error| Stop::usage(format!("{} cannot be read: {error}", file.display()), format!("give {what}, or - for stdin"));
    Ok(std::fs::read_to_string(file).map_err(unreadable)?)
}
