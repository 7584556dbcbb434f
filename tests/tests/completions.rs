//! Completion scripts: every shell gets one, and it knows every command that `--help` shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use ryggrad_tests::process::command;

const SHELLS: [&str; 4] = ["bash", "zsh", "fish", "powershell"];

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.trim().is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().expect("a name").to_owned()).collect()
}

#[test]
fn every_shell_gets_a_script_that_knows_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let (code, text, said) = command(folder.path(), arguments);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{arguments:?}");
        text
    };
    let commands = commands(&run(&["--help"]));
    assert!(commands.len() > 10 && commands.iter().any(|name| name == "completions"), "{commands:?}");
    for shell in SHELLS {
        let script = run(&["completions", shell]);
        for name in &commands {
            assert!(script.contains(name.as_str()), "the script for {shell} does not know {name}");
        }
        for known in ["development-egress", "enhetsregisteret", "changes-per-second"] {
            assert!(script.contains(known), "the script for {shell} does not know {known}");
        }
    }
    let (code, _, said) = command(folder.path(), &["completions", "tcsh"]);
    assert_eq!(code, Some(2), "{said}");
}
