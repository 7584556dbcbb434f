//! `ryggrad completions`: what a shell needs to complete commands and flags.
//!
//! Made from the commands themselves, so that it can't lag behind them. Only prints: where the
//! file belongs is the user's choice.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::exit::Code;
use crate::output::Output;

/// Prints a completion script for a shell
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ryggrad completions bash > ~/.local/share/bash-completion/completions/ryggrad
  ryggrad completions zsh > ~/.zfunc/_ryggrad            with ~/.zfunc in $fpath
  ryggrad completions fish > ~/.config/fish/completions/ryggrad.fish
  ryggrad completions powershell >> $PROFILE")]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for all that `command` can do.
pub fn run(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<Code> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    let mut output = Output::stdout();
    output.line(&String::from_utf8(script)?)?;
    output.flush()?;
    Ok(Code::Ok)
}
