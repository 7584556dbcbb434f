//! Options of `create` and `update`, and the JSON that they become.
//!
//! What is not given is left out, so that the bridge's defaults count; the bridge checks.

use clap::{ArgGroup, Args};
use ryggrad_consumers::duration_ms;
use serde_json::{Map, Value, json};

use crate::client::{Token, subscription_start};

/// What `create` is given.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Where to send events: the endpoint's URL. Not with --channel pull, websocket or kafka.
    #[arg(long, value_name = "URL", required_unless_present = "channel")]
    sink: Option<String>,
    /// How events get there: posted, fetched, over a WebSocket that the receiver opens, or written to a Kafka topic of its
    /// own [default: webhook].
    #[arg(long, value_name = "CHANNEL", value_parser = ["webhook", "pull", "websocket", "kafka"])]
    channel: Option<String>,
    /// Event types, exact or a prefix ending in `.*`; several with commas, or repeated.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', default_value = "no.ryggrad.*")]
    types: Vec<String>,
    /// Only events for which this CloudEvents SQL expression is true; may be repeated, and all count.
    /// Try it with ryggrad filter eval.
    #[arg(long = "filter", value_name = "CESQL", allow_hyphen_values = true)]
    filter: Vec<String>,
    /// A file with a list of filters; those of --filter come behind it.
    #[arg(long, value_name = "FILE", value_parser = filters_file)]
    filters: Option<Value>,
    /// Of these, only events whose key this watch list holds.
    #[arg(long, value_name = "ID")]
    watch_list: Option<String>,
    /// Where to start: now, beginning, a time (RFC 3339), or how long ago (15m, 2h, 1d).
    #[arg(long, value_name = "WHEN", default_value = "now", value_parser = subscription_start)]
    start: String,
    /// What it is for, in words that colleagues understand.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A signing secret of your own (whsec_…); the bridge draws one otherwise.
    #[arg(long, value_name = "SECRET", env = "RYGGRAD_WEBHOOK_SECRET", hide_env_values = true)]
    secret: Option<Token>,
    #[command(flatten)]
    delivery: DeliveryOptions,
}

/// What `update` is given.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true).args(["sink", "types", "filter", "filters", "watch_list", "description", "secret", "delivery"]))]
pub struct UpdateArgs {
    /// The subscription's id, as `list` shows it.
    pub id: String,
    /// Where to send events from now on, also those that are being retried.
    #[arg(long, visible_alias = "url", value_name = "URL")]
    sink: Option<String>,
    /// Event types from now on; several with commas, or repeated.
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    types: Option<Vec<String>>,
    /// Only events for which this CloudEvents SQL expression is true; may be repeated, and all count.
    /// Try it with ryggrad filter eval.
    #[arg(long = "filter", value_name = "CESQL", allow_hyphen_values = true)]
    filter: Vec<String>,
    /// A file with a list of filters; those of --filter come behind it. An empty list takes all away.
    #[arg(long, value_name = "FILE", value_parser = filters_file)]
    filters: Option<Value>,
    /// Only events whose key this watch list holds, from now on; none takes the list away.
    #[arg(long, value_name = "ID")]
    watch_list: Option<String>,
    /// What it is for; an empty text takes the description away.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Another signing secret (whsec_…), which signs alone from now on; see also rotate-secret.
    #[arg(long, value_name = "SECRET")]
    secret: Option<Token>,
    #[command(flatten)]
    delivery: DeliveryOptions,
}

/// How a webhook is delivered. `default` brings the bridge's own choice back.
#[derive(Debug, Args)]
#[group(id = "delivery", multiple = true)]
#[command(next_help_heading = "Delivery (webhooks)")]
struct DeliveryOptions {
    /// What must not overtake what [default: key].
    #[arg(long, value_name = "ORDER", value_parser = ["key", "partition", "none", "default"])]
    order: Option<String>,
    /// How events are carried [default: structured].
    #[arg(long = "format", value_name = "FORMAT", value_parser = ["structured", "binary", "batch", "default"])]
    event_format: Option<String>,
    /// Most events of one batch, 1 to 1000 [default: 100].
    #[arg(long, value_name = "COUNT", value_parser = count)]
    batch_events_max: Option<Value>,
    /// What happens to an event that waiting does not cure [default: block].
    #[arg(long, value_name = "POLICY", value_parser = ["block", "park", "skip", "default"])]
    on_exhausted: Option<String>,
    /// How long an event is tried before that, 1m to 30d [default: 3d].
    #[arg(long, value_name = "DURATION", value_parser = milliseconds)]
    retry_horizon: Option<Value>,
    /// Most attempts a minute, 1 to 600000 [default: no limit].
    #[arg(long, value_name = "COUNT", value_parser = count)]
    attempts_per_minute_max: Option<Value>,
    /// Most attempts at the same time, 1 to 64 [default: the bridge's limit].
    #[arg(long, value_name = "COUNT", value_parser = count)]
    in_flight_max: Option<Value>,
    /// Disables the subscription when every attempt has failed for so long, 1m to 30d [default: 5d].
    #[arg(long, value_name = "DURATION", value_parser = milliseconds)]
    disable_after: Option<Value>,
    /// A header of your own on every delivery; may be repeated. "NAME:" takes it away.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, Token)>,
    /// Whether the endpoint is asked for its agreement; none is for development [default: auto].
    #[arg(long, value_name = "HOW", value_parser = ["auto", "none"])]
    verify: Option<String>,
}

impl DeliveryOptions {
    fn into_members(self) -> impl Iterator<Item = (&'static str, Value)> {
        let word = |text: Option<String>| text.map(|text| if text == "default" { Value::Null } else { json!(text) });
        let value = |text: Token| if text.is_empty() { Value::Null } else { json!(text.reveal()) };
        let headers: Map<String, Value> = self.headers.into_iter().map(|(name, text)| (name, value(text))).collect();
        let members = [
            ("order", word(self.order)),
            ("format", word(self.event_format)),
            ("batch_events_max", self.batch_events_max),
            ("on_exhausted", word(self.on_exhausted)),
            ("retry_horizon_ms", self.retry_horizon),
            ("attempts_per_minute_max", self.attempts_per_minute_max),
            ("in_flight_max", self.in_flight_max),
            ("disable_after_ms", self.disable_after),
            ("headers", (!headers.is_empty()).then_some(Value::Object(headers))),
            ("verify", word(self.verify)),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

fn count(text: &str) -> Result<Value, String> {
    match text {
        "default" => Ok(Value::Null),
        _ => text.parse::<u64>().map(Value::from).map_err(|_| "use a whole number, or default".to_owned()),
    }
}

fn milliseconds(text: &str) -> Result<Value, String> {
    match text {
        "default" => Ok(Value::Null),
        _ => duration_ms(text).map(Value::from).map_err(|error| error.to_string()),
    }
}

fn header(text: &str) -> Result<(String, Token), String> {
    let (name, value) = text.split_once(':').ok_or("use NAME: VALUE")?;
    // Every text is a token.
    value.parse().map(|value| (name.trim().to_owned(), value)).map_err(|never: std::convert::Infallible| never.to_string())
}

/// The list in a file; what it means is the bridge's to check.
fn filters_file(path: &str) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"))?;
    match serde_json::from_str(&text) {
        Ok(list @ Value::Array(_)) => Ok(list),
        Ok(_) => Err("it holds no list of filters".to_owned()),
        Err(error) => Err(format!("it is no JSON: {error}")),
    }
}

/// The member `filters`: those of the file, then one for each expression.
fn filters(file: Option<Value>, expressions: Vec<String>) -> Option<Value> {
    if file.is_none() && expressions.is_empty() {
        return None;
    }
    let mut all = if let Some(Value::Array(items)) = file { items } else { Vec::new() };
    all.extend(expressions.into_iter().map(|expression| json!({"sql": expression})));
    Some(Value::Array(all))
}

/// The body of a creation.
pub fn body(create: CreateArgs) -> Value {
    let mut body = json!({ "types": create.types, "start": create.start });
    let secret = create.secret.as_ref().filter(|secret| !secret.is_empty()).map(|secret| json!(secret.reveal()));
    let optional = [
        ("sink", create.sink.map(Value::from)),
        ("channel", create.channel.map(Value::from)),
        ("filters", filters(create.filters, create.filter)),
        ("watch_list", create.watch_list.map(Value::from)),
        ("description", create.description.map(Value::from)),
        ("secret", secret),
    ];
    for (name, value) in optional.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(create.delivery.into_members()) {
        body[name] = value;
    }
    body
}

/// The body of a change.
pub fn patch(update: UpdateArgs) -> Value {
    let mut patch = json!({});
    let description = update.description.map(|text| if text.is_empty() { Value::Null } else { json!(text) });
    let optional = [
        ("sink", update.sink.map(Value::from)),
        ("types", update.types.map(Value::from)),
        ("filters", filters(update.filters, update.filter)),
        ("watch_list", update.watch_list.map(|list| if list == "none" { Value::Null } else { json!(list) })),
        ("description", description),
        ("secret", update.secret.map(|secret| json!(secret.reveal()))),
    ];
    for (name, value) in optional.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(update.delivery.into_members()) {
        patch[name] = value;
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    enum Cli {
        Create(CreateArgs),
        Update(UpdateArgs),
    }

    fn sent(line: &str) -> Result<Value, i32> {
        match Cli::try_parse_from(std::iter::once("x").chain(line.split(' '))) {
            Ok(Cli::Create(create)) => Ok(body(create)),
            Ok(Cli::Update(update)) => Ok(patch(update)),
            Err(error) => Err(error.exit_code()),
        }
    }

    #[test]
    fn what_was_given_is_sent_and_nothing_else() {
        for (line, expected) in [
            ("update s1 --watch-list w1", json!({"watch_list": "w1"})),
            ("update s1 --watch-list none", json!({"watch_list": null})),
            ("create --sink https://h/", json!({"types": ["no.ryggrad.*"], "sink": "https://h/", "start": "now"})),
            (
                "create --sink https://h/ --types a,b.* --types c --start beginning --description d --secret whsec_s",
                json!({"types": ["a", "b.*", "c"], "sink": "https://h/", "start": "beginning", "description": "d", "secret": "whsec_s"}),
            ),
            (
                "create --channel pull --filter urgent --filter limit>9",
                json!({"types": ["no.ryggrad.*"], "channel": "pull", "start": "now", "filters": [{"sql": "urgent"}, {"sql": "limit>9"}]}),
            ),
            ("update s1 --filter urgent", json!({"filters": [{"sql": "urgent"}]})),
            ("create --channel pull", json!({"types": ["no.ryggrad.*"], "channel": "pull", "start": "now"})),
            (
                "create --sink https://h/ --order none --format batch --batch-events-max 7 --on-exhausted park --retry-horizon 1d \
                 --attempts-per-minute-max 60 --in-flight-max 2 --disable-after 10d --header X-Key:k --header a:b:c --verify none",
                json!({
                    "types": ["no.ryggrad.*"], "sink": "https://h/", "start": "now", "order": "none", "format": "batch",
                    "batch_events_max": 7, "on_exhausted": "park", "retry_horizon_ms": 86_400_000, "attempts_per_minute_max": 60,
                    "in_flight_max": 2, "disable_after_ms": 864_000_000, "headers": {"X-Key": "k", "a": "b:c"}, "verify": "none",
                }),
            ),
            ("update s1 --url https://h/", json!({"sink": "https://h/"})),
            (
                "update s1 --types a,b.* --description= --secret whsec_s",
                json!({"types": ["a", "b.*"], "description": null, "secret": "whsec_s"}),
            ),
            (
                "update s1 --order default --in-flight-max default --retry-horizon default --header X-Key:",
                json!({"order": null, "in_flight_max": null, "retry_horizon_ms": null, "headers": {"X-Key": null}}),
            ),
        ] {
            assert_eq!(sent(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn filters_come_from_a_file_and_from_expressions() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("filters.json");
        for (text, expected) in [
            (r#"[{"exact": {"id": "a"}}]"#, Ok(json!([{"exact": {"id": "a"}}, {"sql": "urgent"}]))),
            ("[]", Ok(json!([{"sql": "urgent"}]))),
            ("{}", Err(2)),
            ("[", Err(2)),
        ] {
            std::fs::write(&file, text).unwrap();
            let found = sent(&format!("update s1 --filters {} --filter urgent", file.display()));
            assert_eq!(found.map(|patch| patch["filters"].clone()), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        for line in [
            "update s1",
            "create",
            "create --sink s --start 17",
            "create --sink s --order random",
            "create --sink s --retry-horizon soon",
            "create --sink s --header name",
            "update s1 --in-flight-max many",
            "update s1 --filters no/such/file.json",
        ] {
            assert_eq!(sent(line), Err(2), "{line}");
        }
    }
}
