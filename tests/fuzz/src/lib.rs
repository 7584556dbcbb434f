//! Every parser of foreign input behind one form: bytes in, laws held, taken or refused.
//!
//! A law that is broken is a panic: that is what the ordinary test here (`tests/laws.rs`) and the
//! coverage-guided fuzzer (`libfuzzer/`) look for. docs/FUZZING.md says which laws there are. Must never
//! reach the network, a file or a clock, nor keep anything from one input to the next that could change what
//! it says.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a law that is broken is a panic, as in any test")]

mod access;
mod answers;
mod cursors;
mod disclosures;
mod documents;
mod feeds;
mod filters;
mod issuers;
mod parts;
mod records;
mod requests;
mod sockets;
mod stored;
mod tokens;

/// One group of parsers.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What it goes by.
    pub name: &'static str,
    /// Whose words it parses.
    pub parses: &'static str,
    /// Parses, and holds every law. Whether the input was taken.
    pub run: fn(&[u8]) -> bool,
    /// Inputs that are taken.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "token",
        parses: "access tokens of an issuer, and the headers that carry them",
        run: tokens::token,
        seeds: tokens::token_seeds,
    },
    Target { name: "proof", parses: "proofs of possession", run: tokens::proof, seeds: tokens::proof_seeds },
    Target { name: "issuer", parses: "issuers' descriptions, keys and answers", run: issuers::run, seeds: issuers::seeds },
    Target {
        name: "cursor",
        parses: "cursors, conditions and sealed values that callers bring back",
        run: cursors::run,
        seeds: cursors::seeds,
    },
    Target { name: "stored", parses: "what the cursor store gives back", run: stored::store, seeds: stored::store_seeds },
    Target {
        name: "facts",
        parses: "what Kafka's own topics give back: facts, definitions, positions",
        run: stored::facts,
        seeds: stored::fact_seeds,
    },
    Target { name: "socket", parses: "messages on a WebSocket, in both subprotocols", run: sockets::run, seeds: sockets::seeds },
    Target { name: "answer", parses: "answers of webhooks' endpoints", run: answers::run, seeds: answers::seeds },
    Target { name: "filters", parses: "filters of every dialect", run: filters::filters, seeds: filters::filter_seeds },
    Target { name: "cesql", parses: "expressions in CloudEvents SQL", run: filters::cesql, seeds: filters::cesql_seeds },
    Target { name: "request", parses: "requests about subscriptions", run: requests::subscription, seeds: requests::subscription_seeds },
    Target { name: "address", parses: "addresses, networks and own headers", run: requests::address, seeds: requests::address_seeds },
    Target { name: "watch-list", parses: "watch lists and their keys", run: requests::watch_list, seeds: requests::watch_list_seeds },
    Target {
        name: "access",
        parses: "members, delegations, grants, relations, blocks, and looks at disclosures",
        run: access::run,
        seeds: access::seeds,
    },
    Target { name: "json", parses: "JSON of anybody, without building values", run: documents::json, seeds: documents::json_seeds },
    Target {
        name: "document",
        parses: "documents of a registry, into events and back",
        run: documents::document,
        seeds: documents::document_seeds,
    },
    Target { name: "feed", parses: "pages of a registry's feed", run: feeds::page, seeds: feeds::page_seeds },
    Target { name: "dump", parses: "a registry's dump that comes in pieces", run: feeds::dump, seeds: feeds::dump_seeds },
    Target { name: "record", parses: "records of event topics: headers and framed Avro", run: records::run, seeds: records::seeds },
    Target {
        name: "disclosure",
        parses: "chains of records of disclosures, and names of topics",
        run: disclosures::run,
        seeds: disclosures::seeds,
    },
];

/// The target of that name.
pub fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
