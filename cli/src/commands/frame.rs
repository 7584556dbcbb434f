//! What commands with subcommands have in common: one of these, how to print, how to connect.

use clap::{Args, Subcommand};

use crate::output::FormatOption;

/// A command line of such a command.
#[derive(Debug, Args)]
pub struct Frame<C: Subcommand, O: Args> {
    /// What to do.
    #[command(subcommand)]
    pub command: C,
    /// How to print.
    #[command(flatten)]
    pub format: FormatOption,
    /// How to connect.
    #[command(flatten)]
    pub options: O,
}
