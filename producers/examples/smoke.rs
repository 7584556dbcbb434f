#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::print_stdout)]
use prometheus_client::registry::Registry;
use ryggrad_log::*;
use ryggrad_producers::*;
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;
#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args[1].as_str() {
        "broker" => {
            let jars = std::env::var("RYGGRAD_KAFKA_JARS").unwrap();
            let b = LocalBroker::start(LocalBrokerOptions::new(jars, std::path::Path::new("/tmp/smoke/broker"))).await.unwrap();
            let c = b.connection();
            topics::ensure(&c, &ryggrad_schemas::Catalogue::built_in().topics, 1).await.unwrap();
            std::fs::write("/tmp/smoke/bootstrap", &c.bootstrap).unwrap();
            println!("up {}", c.bootstrap);
            std::future::pending::<()>().await
        }
        "produce" => {
            let c = Connection::new(std::fs::read_to_string("/tmp/smoke/bootstrap").unwrap());
            let config: ProducerConfig = serde_json::from_str(&args[2]).unwrap();
            let mut reg = Registry::default();
            let t = Telemetry::register(&mut reg);
            let stop = CancellationToken::new();
            let secs: u64 = args[3].parse().unwrap();
            let (s, t2) = (stop.clone(), t.clone());
            tokio::spawn(async move {
                let mut h = t2.status().subscribe();
                loop {
                    tokio::select! { _ = h.changed() => println!("[{}] {}", std::process::id(), h.borrow_and_update().to_string().replace('\n', " | ")), _ = tokio::time::sleep(std::time::Duration::from_secs(secs)) => { s.cancel(); return } }
                    }
            });
            let (s, _) = (stop.clone(), ());
            tokio::spawn(async move { tokio::time::sleep(std::time::Duration::from_secs(secs)).await; s.cancel() });
            let end = run(config, c, Seal::new(&[7; 32]), t, stop).await;
            println!("[{}] END {end:?}", std::process::id());
            let mut out = String::new();
            prometheus_client::encoding::text::encode(&mut out, &reg).unwrap();
            println!("{}", out.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join("\n"));
        }
        "check" => {
            let c = Connection::new(std::fs::read_to_string("/tmp/smoke/bootstrap").unwrap());
            let mut seen: BTreeMap<(String, u64), u32> = BTreeMap::new();
            let (mut tomb, mut ids) = (0, std::collections::BTreeSet::new());
            for p in 0..6 {
                let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
                for r in read_to_end(&c, "grunndata.virksomhet.v1", p, 10_000_000, 60_000).await.unwrap() {
                    let Some(v) = &r.value else { tomb += 1; continue };
                    let e: ryggrad_schemas::virksomhet::VirksomhetEndret = ryggrad_schemas::avro::decode(v).unwrap();
                    let pos: u64 = e.posisjon.parse().unwrap();
                    assert!(ids.insert(r.header("ce_id").unwrap().to_owned()), "ce_id twice at {pos}");
                    *seen.entry((e.kilde.clone(), pos)).or_default() += 1;
                    if let Some(prev) = last.insert((e.kilde, e.organisasjonsnummer), pos) { assert!(prev < pos) }
                }
            }
            let dup = seen.values().filter(|n| **n > 1).count();
            for feed in ["enheter", "underenheter"] {
                let mine: Vec<u64> = seen.keys().filter(|(k, _)| k.ends_with(&format!("/{feed}"))).map(|(_, p)| *p).collect();
                println!("{feed}: {} events {:?}..{:?}", mine.len(), mine.first(), mine.last());
                std::fs::write(format!("/tmp/smoke/{feed}.seen"), mine.iter().map(|p| p.to_string()).collect::<Vec<_>>().join("\n")).unwrap();
            }
            println!("duplicates {dup} tombstones {tomb}");
            for t in ["ryggrad.removed", "ryggrad.quarantine"] { println!("{t} {}", read_to_end(&c, t, 0, 1000000, 60000).await.unwrap().len()); }
            let ps = read_to_end(&c, "ryggrad.source-positions", 0, 1000000, 60000).await.unwrap();
            for r in ps.iter().rev().take(4) { println!("{:?} {}", r.key, String::from_utf8_lossy(r.value.as_ref().unwrap())); }
        }
        _ => panic!(),
    }
}
