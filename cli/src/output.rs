//! What commands print: data on stdout as a table or as one JSON object a line; all else on stderr.
//!
//! Whoever reads stdout may stop at any time: that ends the command and is no failure. Must never
//! let text from outside steer the terminal.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Write};

use comfy_table::{Table, presets};
use serde_json::Value;

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON object a line, for programs.
    #[value(alias = "json")]
    Ndjson,
}

/// `-o table|ndjson`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct FormatOption {
    /// How to print data.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table, value_name = "FORMAT", global = true)]
    pub format: Format,
}

/// Why nothing can be printed any more; used as `output::Error`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reader has gone.
    #[error("the reader of the output has gone")]
    Closed,
    /// The disk is full, or the like.
    #[error("cannot write the output")]
    Io(#[source] io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe { Self::Closed } else { Self::Io(error) }
    }
}

/// Where data goes.
pub struct Output {
    writer: Box<dyn Write + Send>,
}

impl Output {
    /// Standard output, buffered: flush when a reader may be waiting.
    pub fn stdout() -> Self {
        Self::to(BufWriter::new(io::stdout()))
    }

    /// Any other place.
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        Self { writer: Box::new(writer) }
    }

    /// One line of text.
    pub fn line(&mut self, text: &str) -> Result<(), Error> {
        Ok(writeln!(self.writer, "{}", text.trim_end())?)
    }

    /// One JSON object on a line.
    pub fn object(&mut self, value: &Value) -> Result<(), Error> {
        Ok(writeln!(self.writer, "{value}")?)
    }

    /// A table with a header line. Nothing but the header if there are no rows.
    pub fn table(&mut self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<(), Error> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header.iter().copied());
        for row in rows {
            table.add_row(row.iter().map(|cell| printable(cell)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for line in table.lines() {
            self.line(&line)?;
        }
        Ok(())
    }

    /// Names and values, one pair a line.
    pub fn pairs(&mut self, pairs: impl IntoIterator<Item = (String, String)>) -> Result<(), Error> {
        let pairs: Vec<_> = pairs.into_iter().collect();
        let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in pairs {
            self.line(&format!("{name:width$}  {}", printable(&value)))?;
        }
        Ok(())
    }

    /// Hands everything to the reader.
    pub fn flush(&mut self) -> Result<(), Error> {
        Ok(self.writer.flush()?)
    }
}

/// Says something that is not data, on stderr.
pub fn note(text: impl Display) {
    // Nobody listens there any more: the command goes on all the same.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Text without control characters: a name in a registry must not move the cursor.
pub fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// A member of a JSON object as a cell: a text as it is, nothing for null, else compact JSON.
pub fn cell(object: &Value, member: &str) -> String {
    match object.get(member) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::{Arc, Mutex};

    /// A place that a test can look into.
    #[derive(Clone, Default)]
    pub(crate) struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_table_has_columns_and_no_noise() {
        let page = Page::default();
        let mut output = Output::to(page.clone());
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        output.table(&["ID", "NAVN"], [row(["1", "Åse\u{1b}[2J AS"]), row(["1000", "B"])]).unwrap();
        assert_eq!(page.text(), "ID    NAVN\n1     Åse [2J AS\n1000  B\n");
    }

    #[test]
    fn pairs_are_aligned() {
        let page = Page::default();
        Output::to(page.clone()).pairs([("id".to_owned(), "1".to_owned()), ("state".to_owned(), String::new())]).unwrap();
        assert_eq!(page.text(), "id     1\nstate\n");
    }

    #[test]
    fn cells_show_json_as_people_read_it() {
        let object = json!({"a": "x", "b": null, "c": ["y", "z"], "d": {"e": 1.50}, "f": true});
        for (member, expected) in [("a", "x"), ("b", ""), ("missing", ""), ("c", "y z"), ("d", r#"{"e":1.5}"#), ("f", "true")] {
            assert_eq!(cell(&object, member), expected);
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_told_from_a_full_disk() {
        assert!(matches!(Error::from(io::Error::from(ErrorKind::BrokenPipe)), Error::Closed));
        assert!(matches!(Error::from(io::Error::from(ErrorKind::StorageFull)), Error::Io(_)));
    }
}
