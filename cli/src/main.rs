//! The one binary: every part of Ryggrad behind a command.
//!
//! Thin: parses, sets up logging and signals, runs one command, turns its outcome into an exit
//! code and a sentence. Data goes to stdout, everything else to stderr.

mod client;
mod commands;
mod exit;
mod keys;
mod output;
mod settings;
mod simulate;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use commands::{
    access, bench, bridge, completions, consume, credentials, filter, listen, offsets, produce, replay, sources, subscriptions, tokens,
    topics, trial, up, watch_lists,
};
use exit::Code;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Parsing and rendering documents is mostly allocation; the system's allocator made `bench
/// publish` half as fast and `bench deliver` a quarter slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The event streaming backbone for Norwegian health
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "\
EXAMPLES
  ryggrad up --demo              a broker, a simulated registry, the bridge and the producer
  ryggrad listen                 receive signed events and see them verified
  ryggrad consume --from 15m     read the topic itself
  ryggrad replay TOPIC --from 2h what stood there, again
  ryggrad subscriptions list     who gets what

EXIT CODES
  0 done   1 failed   2 wrong usage   3 not found or refused by the bridge
  4 bridge or Kafka cannot be reached   5 a check found a difference"
)]
struct Cli {
    /// How logs on stderr look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "RYGGRAD_LOG")]
    log: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::UpArgs),
    Bridge(bridge::BridgeArgs),
    Produce(produce::ProduceArgs),
    Consume(consume::Args),
    Listen(listen::Args),
    Replay(Box<replay::Args>),
    /// Shows and resets how far consumer groups have read
    #[command(after_help = offsets::EXAMPLES)]
    Offsets(offsets::Args),
    /// Creates, shows and controls subscriptions
    #[command(after_help = subscriptions::EXAMPLES)]
    Subscriptions(Box<subscriptions::Args>),
    /// Creates and fills watch lists, which narrow subscriptions to keys
    #[command(after_help = watch_lists::EXAMPLES)]
    WatchLists(watch_lists::Args),
    /// Enters and stops organisations that take part, and tells what they lack
    #[command(after_help = access::members::EXAMPLES)]
    Members(access::members::Args),
    /// Lets suppliers act for organisations
    #[command(after_help = access::delegations::EXAMPLES)]
    Delegations(access::delegations::Args),
    /// Opens event types to organisations
    #[command(after_help = access::grants::EXAMPLES)]
    Grants(access::grants::Args),
    /// Says which patients a receiver follows. For controllers
    #[command(after_help = access::persons::RELATION_EXAMPLES)]
    Relations(access::persons::RelationArgs),
    /// Keeps what is about a person from receivers. For controllers
    #[command(after_help = access::persons::BLOCK_EXAMPLES)]
    Blocks(access::persons::BlockArgs),
    /// Shows what was disclosed of protected data, and checks the records. For controllers
    #[command(after_help = access::disclosures::EXAMPLES)]
    Disclosures(access::disclosures::Args),
    /// Lets Kafka itself allow what these say, and nothing else. Needs the operator's token and certificate
    #[command(after_help = access::kafka::EXAMPLES)]
    Access(access::kafka::Args),
    /// Shows who has changed any of these
    #[command(after_help = access::history::EXAMPLES)]
    AccessHistory(access::history::Args),
    /// Issues and revokes access tokens. Needs the operator's token
    #[command(after_help = tokens::EXAMPLES)]
    Tokens(tokens::Args),
    /// Shows the bridge's keys, and has one take over from another
    #[command(after_help = commands::keys::EXAMPLES)]
    Keys(commands::keys::Args),
    /// Lists, creates and checks the catalogue's topics
    #[command(after_help = topics::EXAMPLES)]
    Topics(topics::Args),
    /// Publishes made-up measurements, so that protected data can be tried
    #[command(after_help = trial::EXAMPLES)]
    Trial(trial::Args),
    /// Shows how registries are followed, and gives orders to their producers
    #[command(after_help = sources::EXAMPLES)]
    Sources(sources::Args),
    /// Tries out who a producer is at HelseID or Maskinporten
    #[command(subcommand)]
    Credentials(credentials::CredentialsCommand),
    /// Tries filters of subscriptions out, before they are used
    #[command(subcommand)]
    Filter(filter::FilterCommand),
    /// Measures, against the raw library in the same run
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Plays a registry, for trials and tests
    #[command(subcommand)]
    Simulate(SimulateCommand),
    Completions(completions::CompletionsArgs),
}

#[derive(Debug, Subcommand)]
enum SimulateCommand {
    Enhetsregisteret(simulate::EnhetsregisteretArgs),
    Dump(simulate::DumpArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = start_logging(cli.log, &cli.command).and_then(|()| {
        let runtime = tokio::runtime::Runtime::new()?;
        let outcome = runtime.block_on(run(cli.command));
        // Threads that wait for Kafka must not hold up the end.
        runtime.shutdown_timeout(std::time::Duration::from_millis(500));
        outcome
    });
    outcome.unwrap_or_else(|error| exit::report(&error, &mut std::io::stderr())).into()
}

async fn run(command: Command) -> anyhow::Result<Code> {
    match command {
        Command::Up(args) => up::run(args, stop_on_signal()?).await,
        Command::Bridge(args) => bridge::run(args, stop_on_signal()?).await,
        Command::Produce(args) => produce::run(args, stop_on_signal()?).await,
        Command::Consume(args) => consume::run(args).await,
        Command::Credentials(command) => credentials::run(command).await,
        Command::Listen(args) => listen::run(args).await,
        Command::Offsets(args) => offsets::run(args).await,
        Command::Replay(args) => replay::run(*args, stop_on_signal()?).await,
        Command::Subscriptions(args) => subscriptions::run(*args).await,
        Command::Keys(args) => commands::keys::run(args),
        Command::WatchLists(args) => watch_lists::run(args).await,
        Command::Members(args) => access::members::run(args).await,
        Command::Delegations(args) => access::delegations::run(args).await,
        Command::Grants(args) => access::grants::run(args).await,
        Command::Relations(args) => access::persons::run_relations(args).await,
        Command::Disclosures(args) => access::disclosures::run(args).await,
        Command::Blocks(args) => access::persons::run_blocks(args).await,
        Command::Access(args) => access::kafka::run(args).await,
        Command::AccessHistory(args) => access::history::run(args).await,
        Command::Tokens(args) => tokens::run(args).await,
        Command::Topics(args) => topics::run(args).await,
        Command::Trial(args) => trial::run(args, stop_on_signal()?).await,
        Command::Sources(args) => sources::run(args).await,
        Command::Filter(command) => filter::run(command),
        Command::Bench(command) => bench::run(command, stop_on_signal()?).await,
        Command::Simulate(SimulateCommand::Enhetsregisteret(args)) => {
            simulate::run(args, stop_on_signal()?).await?;
            Ok(Code::Ok)
        }
        Command::Simulate(SimulateCommand::Dump(args)) => {
            tokio::task::spawn_blocking(move || simulate::write_dump_file(&args)).await??;
            Ok(Code::Ok)
        }
        Command::Completions(args) => completions::run(&args, Cli::command()),
    }
}

/// A token that SIGINT or SIGTERM cancels; a second signal ends the process at once.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut interrupts = client::Interrupts::take()?;
    let told = stop.clone();
    tokio::spawn(async move {
        interrupts.next().await;
        told.cancel();
        interrupts.next().await;
        #[expect(clippy::disallowed_methods, reason = "the user insists; everything durable is durable already")]
        std::process::exit(130);
    });
    Ok(stop)
}

/// Logs go to stderr; those of `up` to a file in its data folder, since its terminal shows progress.
fn start_logging(format: LogFormat, command: &Command) -> anyhow::Result<()> {
    let default = if matches!(command, Command::Bridge(_) | Command::Produce(_) | Command::Up(_)) { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let writer = match command {
        Command::Up(args) => BoxMakeWriter::new(args.log_file()?),
        _ => BoxMakeWriter::new(std::io::stderr),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Text => builder.with_target(false).with_ansi(!matches!(command, Command::Up(_))).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
