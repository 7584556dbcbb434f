//! `ryggrad access-history`: who has changed members, delegations, grants, relations and blocks.

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::print_all;
use crate::client::BridgeOptions;
use crate::exit::Code;
use crate::output::{FormatOption, Output};

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  The latest changes that concern one's organisation, or everyone's for operators:
    ryggrad access-history

  All that is kept at hand, with what was and what is:
    ryggrad access-history --limit 1000 -o ndjson

EXIT CODES
  0 done   2 wrong command line   3 refused   4 bridge not reached";

/// Its command line.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// How many, at most; the newest.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    limit: u16,
    #[command(flatten)]
    format: FormatOption,
    #[command(flatten)]
    options: BridgeOptions,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let bridge = args.options.connect()?;
    let mut output = Output::stdout();
    let limit = args.limit.to_string();
    let mut page = bridge.get_with(&["v1", "access-history"], &[("limit", limit.as_str())]).await?.body;
    let changes: Vec<Value> = match page["changes"].take() {
        Value::Array(changes) => changes.into_iter().map(with_words).collect(),
        _ => Vec::new(),
    };
    print_all(&mut output, args.format.format, &changes, &["at", "who", "change", "kind", "id"], "Nothing was changed yet.")?;
    output.flush()?;
    Ok(Code::Ok)
}

/// A change with who and what of it in a word each.
fn with_words(mut change: Value) -> Value {
    let by = &change["by"];
    let who = ["event", "organisation"].iter().find_map(|name| by[*name].as_str()).unwrap_or("operator");
    let what = match (change["before"].is_null(), change["after"].is_null()) {
        (true, _) => "made",
        (false, true) => "ended",
        (false, false) => "changed",
    };
    let words = (json!(who), json!(what));
    (change["who"], change["change"]) = words;
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_and_what_stand_in_a_word_each() {
        for (by, before, after, who, what) in [
            (json!({"organisation": "312345676", "token": "t"}), json!(null), json!({}), "312345676", "made"),
            (json!({}), json!({}), json!(null), "operator", "ended"),
            (json!({"event": "e-1"}), json!({}), json!({}), "e-1", "changed"),
        ] {
            let change = with_words(json!({"by": by, "before": before, "after": after}));
            assert_eq!((change["who"].as_str(), change["change"].as_str()), (Some(who), Some(what)));
        }
    }
}
