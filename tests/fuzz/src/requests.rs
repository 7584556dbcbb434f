//! What callers ask for about subscriptions and watch lists, and the addresses and headers that they name.
//!
//! Laws: what is taken is within every limit, and what is refused says so; no secret, no value of a header and no key of a
//! watch list gets into a fault; an address that is taken is public, and means what a reader sees.

use std::net::IpAddr;

use ryggrad_bridge_core::egress::{Allowance, EgressPolicy, check_address, check_url};
use ryggrad_bridge_core::headers::{HEADERS_MAX, check_header};
use ryggrad_bridge_core::network::{Cidr, Range, range_of};
use ryggrad_bridge_core::own_headers::{HEADERS_BYTES_MAX, HeadersChange, OwnHeaders};
use ryggrad_bridge_core::patch::Patch;
use ryggrad_bridge_core::replay::ReplayRequest;
use ryggrad_bridge_core::rewind::{Point, RewindRequest};
use ryggrad_bridge_core::role::Roles;
use ryggrad_bridge_core::settings::{BATCH_EVENTS, Channel, IN_FLIGHT, PATIENCE_MS, Settings};
use ryggrad_bridge_core::subscription::{Fault, Rotation, Subscription, parse};
use ryggrad_bridge_core::watch_list::keys::{FAULTS_MAX, Form, parse_change, parse_set};
use ryggrad_bridge_core::watch_list::{parse_new, parse_patch};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::identifiers::KeyDomain;
use serde_json::{Value, json};

use crate::parts::{choose, json, seed, tells_nothing_of};

fn catalogue() -> &'static Catalogue {
    Catalogue::built_in()
}

/// Whether it was taken; what was refused has a fault at least, and tells no secret of the request.
fn taken<T>(body: &Value, asked: Result<T, Vec<Fault>>) -> Option<T> {
    match asked {
        Ok(made) => Some(made),
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a word");
            let told = faults.iter().map(|fault| fault.detail.as_str()).collect::<Vec<_>>().join("\n");
            let headers = body.get("headers").and_then(Value::as_object).into_iter().flat_map(|headers| headers.values());
            for secret in headers.chain(body.get("secret")).filter_map(Value::as_str) {
                tells_nothing_of(&told, secret.as_bytes());
            }
            None
        }
    }
}

fn within_limits(settings: &Settings) {
    assert!(BATCH_EVENTS.contains(&(settings.batch_events_max as u64)));
    assert!(PATIENCE_MS.contains(&settings.retry_horizon_ms) && PATIENCE_MS.contains(&settings.disable_after_ms));
    assert!(settings.in_flight_max.is_none_or(|most| IN_FLIGHT.contains(&(most as u64))));
    assert!(settings.attempts_per_minute_max.is_none_or(|most| (1..=600_000).contains(&most)));
}

pub(crate) fn subscription(input: &[u8]) -> bool {
    let Some((parser, text)) = choose(input, 6) else { return false };
    let Some(body) = json(text) else { return false };
    let policy = EgressPolicy::default();
    match parser {
        0 => taken(&body, parse(&body, catalogue(), &policy)).is_some_and(|new| {
            assert!(!new.types.is_empty() && new.types.len() <= 32 && !new.topics.is_empty());
            assert!(new.topics.iter().all(|topic| catalogue().topic(topic).is_some()));
            assert!(new.description.is_none_or(|text| text.chars().count() <= 200));
            assert_eq!(new.sink.is_some(), new.channel == Channel::Webhook);
            assert!(new.sink.is_none_or(|sink| check_url(&sink, &policy).is_ok()));
            assert!(new.channel == Channel::Webhook || (new.secret.is_none() && new.headers.names().is_empty()));
            within_limits(&new.delivery);
            true
        }),
        1 => {
            let before = example();
            taken(&body, Patch::parse(&body, &before, catalogue(), &policy)).is_some_and(|patch| {
                let after = patch.apply(before.clone());
                assert_eq!(
                    (after.id, after.organisation, after.channel, &after.start),
                    (before.id, before.organisation, before.channel, &before.start)
                );
                assert_eq!((&after.from, after.delivery.order), (&before.from, before.delivery.order));
                assert!(after.sink.is_some_and(|sink| check_url(&sink, &policy).is_ok()));
                within_limits(&after.delivery);
                true
            })
        }
        2 => taken(&body, Rotation::parse(&body)).is_some(),
        3 => taken(&body, RewindRequest::parse(&body)).is_some_and(|asked| point(&asked.to)),
        4 => taken(&body, ReplayRequest::parse(&body)).is_some_and(|asked| {
            assert!((1..=600_000).contains(&asked.events_per_minute_max));
            assert_eq!(
                asked.narrowing().is_some(),
                asked.filters.is_some() || (!asked.types.is_empty() && !asked.types.contains(&"*".to_owned()))
            );
            point(&asked.from) && asked.to.as_ref().is_none_or(point)
        }),
        _ => Roles::parse(&body).is_ok_and(|roles| {
            let again = serde_json::to_value(&roles).unwrap();
            assert_eq!(Roles::parse(&again), Ok(roles));
            true
        }),
    }
}

fn point(point: &Point) -> bool {
    let Point::Offsets(offsets) = point else { return true };
    assert!((1..=1_024).contains(&offsets.len()) && offsets.iter().all(|(place, offset)| *offset >= 0 && place.partition >= 0));
    assert!(offsets.keys().all(|place| !catalogue().is_protected(&place.topic)));
    true
}

fn example() -> Subscription {
    let topic = &catalogue().events[0].topic;
    serde_json::from_value(json!({
        "id": uuid::Uuid::from_u128(7), "organisation": "312345676", "types": ["no.ryggrad.grunndata.*"], "sink": "https://m.example.org/",
        "description": null, "start": "now", "state": "active", "reason": null, "created_at": "2026-01-01T00:00:00Z", "from": {topic: [0]},
        "sealed_secret": "00",
    }))
    .unwrap()
}

pub(crate) fn subscription_seeds() -> Vec<Vec<u8>> {
    let whole = json!({
        "types": ["no.ryggrad.grunndata.*"], "sink": "https://mottak.example.org/h?x=1", "description": "d", "start": "now", "watch_list": uuid::Uuid::from_u128(7),
        "filters": [{"suffix": {"type": ".v1"}}], "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "headers": {"X-Key": "abc123def456"},
        "format": "batch", "batch_events_max": 7.0, "in_flight_max": 2, "attempts_per_minute_max": 60, "verify": "auto", "order": "key",
        "retry_horizon_ms": 60000, "on_exhausted": "park", "disable_after_ms": null,
    });
    let patch = json!({"state": "paused", "headers": null, "filters": null, "watch_list": null, "description": null, "format": "binary"});
    let topic = &catalogue().events[0].topic;
    let offsets = json!([{"topic": topic, "partition": 0, "offset": 1.2e1}]);
    vec![
        seed(0, whole.to_string()),
        seed(0, r#"{"types":["*"],"channel":"websocket","start":"beginning"}"#),
        seed(1, patch.to_string()),
        seed(1, r#"{"sink":"https://n.example.org/","secret":"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}"#),
        seed(2, r#"{"overlap_s":3600}"#),
        seed(3, json!({"to": offsets, "preview": true}).to_string()),
        seed(3, r#"{"to":"beginning"}"#),
        seed(4, json!({"from": "2026-01-01T00:00:00Z", "to": offsets, "types": ["no.*", "a"], "events_per_minute_max": 60}).to_string()),
        seed(5, r#"["subscribe","operate"]"#),
    ]
}

pub(crate) fn address(input: &[u8]) -> bool {
    let Some((parser, rest)) = choose(input, 5) else { return false };
    let text = String::from_utf8_lossy(rest);
    match parser {
        0 => url(&text),
        1 => text.parse::<Cidr>().is_ok_and(|cidr| {
            assert_eq!(cidr.to_string().parse(), Ok(cidr));
            let (network, _) = text.split_once('/').unwrap();
            assert!(cidr.contains(network.parse().unwrap()));
            true
        }),
        2 => {
            let Some(body) = json(rest) else { return false };
            serde_json::from_value::<Allowance>(body).is_ok_and(|allowance| {
                let again: Allowance = serde_json::from_value(serde_json::to_value(&allowance).unwrap()).unwrap();
                assert_eq!(again, allowance);
                // Whatever is opened: metadata and link-local addresses stay shut.
                let host = String::from(allowance.host.clone());
                let policy = EgressPolicy { allow: vec![allowance.clone()], development: true, ..EgressPolicy::default() };
                for shut in ["169.254.169.254", "fe80::1", "fd00:ec2::254", "::ffff:169.254.169.254", "0.0.0.0"] {
                    assert!(check_address(shut.parse().unwrap(), allowance.port, &host, &policy).is_err(), "{shut}");
                }
                true
            })
        }
        3 => {
            let Some(body) = json(rest) else { return false };
            let mut faults = Vec::new();
            let change = HeadersChange::parse(&body, &mut faults);
            let made = change
                .filter(|_| faults.is_empty())
                .ok_or(faults)
                .and_then(|change| OwnHeaders::default().changed(change).map_err(|fault| vec![fault]));
            taken(&json!({"headers": body}), made).is_some_and(|headers| {
                let sent: Vec<_> = headers.reveal().collect();
                assert!(
                    sent.len() <= HEADERS_MAX
                        && sent.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= HEADERS_BYTES_MAX
                );
                assert!(sent.iter().all(|(name, value)| check_header(name, value).is_ok() && !value.contains(['\r', '\n'])));
                let again = OwnHeaders::from_text(&headers.to_text()).unwrap();
                assert!(again.reveal().eq(headers.reveal()));
                true
            })
        }
        _ => text.parse::<IpAddr>().is_ok_and(|address| {
            // An address is of the same range however it is written.
            if let IpAddr::V4(inner) = address {
                assert_eq!(range_of(IpAddr::V6(inner.to_ipv6_mapped())), range_of(address));
            }
            let open = check_address(address, 443, &text, &EgressPolicy::default()).is_ok();
            assert_eq!(open, range_of(address) == Range::Public);
            true
        }),
    }
}

fn url(text: &str) -> bool {
    let Ok(url) = check_url(text, &EgressPolicy::default()) else { return false };
    assert_eq!((url.scheme(), url.port_or_known_default()), ("https", Some(443)));
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
    // Written anew, it means the same.
    assert_eq!(check_url(url.as_str(), &EgressPolicy::default()).as_ref(), Ok(&url));
    let host = url.host_str().unwrap();
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        assert_eq!(range_of(address), Range::Public, "{address}");
    } else {
        assert!(host.contains('.') && !host.ends_with('.') && !host.ends_with(".localhost") && !host.ends_with(".internal"));
    }
    // What a reader takes for the host is the host, where it is written plainly.
    let authority = text.split_once("://").unwrap().1.split(['/', '?', '#']).next().unwrap();
    let seen = authority.strip_suffix(":443").unwrap_or(authority).to_ascii_lowercase();
    if seen.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'-')) && !seen.contains("xn--") {
        assert_eq!(host, seen, "it is called elsewhere than it says");
    }
    true
}

pub(crate) fn address_seeds() -> Vec<Vec<u8>> {
    vec![
        seed(0, "https://mottak.example.org:443/hendelser/a%20b?x=y"),
        seed(0, "https://8.8.8.8/"),
        seed(0, "https://[2606:4700::1111]/x"),
        seed(0, "HTTPS://Blåbær.example.org"),
        seed(1, "10.20.0.0/16"),
        seed(1, "fd12::/48"),
        seed(2, r#"{"host":"*.helse.example","port":8443,"cidr":"10.0.0.0/8","ca_file":"a.pem"}"#),
        seed(3, r#"{"X-Key":"abc123def456","x-other":null,"x_y":"a b"}"#),
        seed(4, "100.64.0.1"),
        seed(4, "2001:db8::1"),
    ]
}

const DOMAIN: KeyDomain = KeyDomain::Organisasjonsnummer;

pub(crate) fn watch_list(input: &[u8]) -> bool {
    let Some((parser, body)) = choose(input, 5) else { return false };
    match parser {
        0 => quiet(body, parse_set(body, Form::Json, DOMAIN)).is_some_and(|keys| {
            let listed: Vec<String> = serde_json::from_slice(body).expect("a set is taken that is no list of texts");
            keys_hold(&keys, listed.iter().map(String::as_str));
            true
        }),
        1 => quiet(body, parse_set(body, Form::Lines, DOMAIN)).is_some_and(|keys| {
            let text = std::str::from_utf8(body).unwrap();
            keys_hold(&keys, text.split_whitespace());
            true
        }),
        2 => quiet(body, parse_change(body, DOMAIN)).is_some_and(|change| {
            assert!(change.add.is_sorted() && change.remove.is_sorted());
            assert!(change.add.iter().all(|key| !change.remove.contains(key)));
            true
        }),
        3 => json(body).is_some_and(|asked| quiet(body, parse_new(&asked)).is_some()),
        _ => json(body).is_some_and(|asked| quiet(body, parse_patch(&asked)).is_some()),
    }
}

fn keys_hold<'k>(keys: &[u64], listed: impl Iterator<Item = &'k str>) {
    assert!(keys.is_sorted() && keys.windows(2).all(|two| two[0] != two[1]) && keys.iter().all(|key| *key < 1 << 40));
    let mut expected: Vec<u64> = listed.map(|key| key.parse().unwrap()).collect();
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(keys, expected);
    let lines: String = keys.iter().map(|key| format!("{key:09}\n")).collect();
    assert_eq!(parse_set(lines.as_bytes(), Form::Lines, DOMAIN).as_deref(), Ok(keys), "in the other form it is another set");
}

fn quiet<T>(body: &[u8], asked: Result<T, Vec<Fault>>) -> Option<T> {
    match asked {
        Ok(made) => Some(made),
        Err(faults) => {
            assert!(!faults.is_empty() && faults.len() <= FAULTS_MAX + 1);
            tells_nothing_of(&format!("{faults:?}"), body);
            None
        }
    }
}

pub(crate) fn watch_list_seeds() -> Vec<Vec<u8>> {
    vec![
        seed(0, r#"["312345676", "923609016", "3\u00312345676"]"#),
        seed(1, "312345676\r\n\n 923609016\n312345676"),
        seed(2, r#"{"add": ["312345676"], "remove": ["923609016"]}"#),
        seed(3, r#"{"domain":"organisasjonsnummer","description":"ours"}"#),
        seed(4, r#"{"description":null}"#),
    ]
}
