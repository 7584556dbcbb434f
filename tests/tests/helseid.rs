//! The bridge behind an issuer: a real OpenID provider in HelseID's place. A good client gets in; whoever breaks
//! one rule of tokens or proofs does not, and is told no more than its class.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use ryggrad_log::{Appender, topics};
use ryggrad_schemas::catalogue::Latch;
use ryggrad_schemas::virksomhet::{Endringstype, Virksomhet, VirksomhetEndret};
use ryggrad_schemas::{Catalogue, EncodedRecord, Headers, avro};
use ryggrad_tests::bridge::{Caller, Raw};
use ryggrad_tests::channels::Socket;
use ryggrad_tests::helseid::{ALGORITHMS, AUDIENCE, CLAIMS, HelseId, KeyPair, Keys, now_s, proof, sha256};
use ryggrad_tests::process::Process;
use ryggrad_tests::scenario::{OPERATOR_TOKEN, ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::topic::VIRKSOMHET;
use ryggrad_tests::wait;
use serde_json::{Value, json};
use uuid::Uuid;

/// Where the API is for clients; nothing of a request says so.
const PUBLIC_URL: &str = "https://hendelser.example.org/buss";
const LIST: &str = "/v1/subscriptions";
const ALGS: &str = "PS256 PS384 PS512 RS256 RS384 RS512 ES256 ES384";
/// A unit of ORGANISATION, one of another's, and one that the register does not know.
const UNIT: &str = "310000019";
const PART: &str = "310000027";
const STRANGER: &str = "310000035";

/// Broker, provider and keys.
struct Rig {
    scenario: Scenario,
    helseid: HelseId,
    issuer: Keys,
    next: Keys,
    client: Keys,
    thief: Keys,
}

impl Rig {
    async fn start() -> Self {
        let ([issuer, next, client, thief], scenario) = tokio::join!(Keys::make(), Scenario::start());
        let helseid = HelseId::start(&issuer, &client).await;
        Self { scenario, helseid, issuer, next, client, thief }
    }

    /// A bridge that trusts the provider.
    async fn bridge(&self, issuer: &str, settings: &str) -> (Process, Caller) {
        let settings =
            format!("[bridge.trust]\nissuer = \"{issuer}\"\naudience = \"{AUDIENCE}\"\npublic_url = \"{PUBLIC_URL}\"\n{settings}\n");
        std::fs::write(self.scenario.folder.path().join("bridge.toml"), settings).unwrap();
        let bridge = self.scenario.bridge(&["--config", "bridge.toml"]);
        let caller = Caller::new(&self.scenario.bridge_url(), None);
        caller.ready().await;
        (bridge, caller)
    }

    /// What a good client sends for a call, with a token that it has.
    fn headers(&self, alg: &str, method: &str, path: &str, token: &str) -> Vec<(&'static str, String)> {
        let pair = self.client.pair(alg);
        let (header, claims) = proof(&pair, alg, method, &format!("{PUBLIC_URL}{path}"), Some(token));
        vec![("authorization", format!("DPoP {token}")), ("dpop", pair.sign(alg, &header, &claims.to_string()))]
    }

    fn attempt(&self) -> Attempt {
        let (token_key, proof_key) = (self.issuer.pair("ES256"), self.client.pair("ES256"));
        let (proof_header, proof_claims) = proof(&proof_key, "ES256", "GET", &format!("{PUBLIC_URL}{LIST}"), None);
        let now_s = now_s();
        let claims = json!({
            "iss": self.helseid.issuer(), "aud": AUDIENCE, "iat": now_s, "nbf": now_s, "exp": now_s + 60, "jti": Uuid::new_v4(),
            "client_id": "klient", "scope": [format!("{AUDIENCE}/subscribe")], "cnf": {"jkt": proof_key.thumbprint()},
            format!("{CLAIMS}orgnr_parent"): ORGANISATION,
        });
        Attempt {
            token_header: json!({"alg": "ES256", "typ": "at+jwt", "kid": "ES256-1"}),
            claims,
            token_key,
            proof_header,
            proof_claims,
            proof_key,
            thief: self.thief.pair("ES256"),
            mangle: |_| {},
        }
    }
}

/// What is sent, in parts that can be broken.
struct Attempt {
    token_header: Value,
    claims: Value,
    token_key: KeyPair,
    proof_header: Value,
    proof_claims: Value,
    proof_key: KeyPair,
    thief: KeyPair,
    mangle: fn(&mut Vec<(&'static str, String)>),
}

impl Attempt {
    fn headers(&self) -> Vec<(&'static str, String)> {
        let token = self.token_key.sign("ES256", &self.token_header, &self.claims.to_string());
        let mut proof_claims = self.proof_claims.clone();
        if proof_claims.get("ath").is_none() {
            proof_claims["ath"] = json!(sha256(&token));
        }
        let proof = self.proof_key.sign("ES256", &self.proof_header, &proof_claims.to_string());
        let mut headers = vec![("authorization", format!("DPoP {token}")), ("dpop", proof)];
        (self.mangle)(&mut headers);
        headers
    }
}

async fn send(caller: &Caller, method: Method, path: &str, headers: &[(&'static str, String)], body: &str) -> Raw {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    caller.raw(method, path, &headers, body.to_owned()).await
}

/// What a refusal says.
fn challenge(error: &str) -> String {
    let error = if error.is_empty() { String::new() } else { format!("error=\"{error}\", ") };
    format!("DPoP {error}algs=\"{ALGS}\", resource_metadata=\"{PUBLIC_URL}/.well-known/oauth-protected-resource\"")
}

fn body(status: u16) -> Value {
    let (code, title, detail) = match status {
        401 => (
            "unauthorised",
            "A valid token is needed",
            "send an access token of the issuer as WWW-Authenticate says; the operator sees what is wrong",
        ),
        _ => ("forbidden", "This token may not do that", "the token does not allow it; the operator sees why"),
    };
    json!({"type": format!("urn:ryggrad:error:{code}"), "title": title, "status": status, "detail": detail})
}

const TOKEN: (u16, &str) = (401, "invalid_token");
const PROOF: (u16, &str) = (401, "invalid_dpop_proof");
const SCOPE: (u16, &str) = (403, "insufficient_scope");

type Row = (&'static str, (u16, &'static str), &'static str, fn(&mut Attempt));

fn claim(name: &str) -> String {
    format!("{CLAIMS}{name}")
}

/// Without a member.
fn less(value: &mut Value, name: &str) {
    value.as_object_mut().unwrap().remove(name).unwrap();
}

/// What is broken, what is answered, the rule as the operator sees it, and how it is broken.
const WRONG: &[Row] = &[
    ("nothing at all", (401, ""), "no-token", |it| it.mangle = |headers| headers.clear()),
    ("a proof alone", (401, ""), "no-token", |it| it.mangle = |headers| drop(headers.remove(0))),
    ("as a bearer token", TOKEN, "scheme", |it| it.mangle = |headers| headers[0].1 = headers[0].1.replace("DPoP", "Bearer")),
    ("two tokens", TOKEN, "repeated-header", |it| it.mangle = |headers| headers.insert(0, headers[0].clone())),
    ("the operator's token", TOKEN, "local-token", |it| it.mangle = |headers| headers[0].1 = format!("Bearer {OPERATOR_TOKEN}")),
    ("a local token", TOKEN, "local-token", |it| {
        it.mangle = |headers| headers[0].1 = format!("Bearer ryg_{}_0", Uuid::nil().simple());
    }),
    ("a huge token", TOKEN, "token-size", |it| it.claims["fyll"] = json!("x".repeat(17_000))),
    ("no JWS", TOKEN, "token-shape", |it| it.mangle = |headers| headers[0].1 = "DPoP tullball".to_owned()),
    ("five parts", TOKEN, "token-shape", |it| it.mangle = |headers| headers[0].1.push_str(".x.y")),
    ("padding", TOKEN, "token-shape", |it| it.mangle = |headers| headers[0].1.push('=')),
    ("alg none", TOKEN, "token-algorithm", |it| {
        it.token_header["alg"] = json!("none");
        it.mangle = |headers| {
            let end = headers[0].1.rfind('.').unwrap() + 1;
            headers[0].1.truncate(end);
        };
    }),
    ("alg HS256", TOKEN, "token-algorithm", |it| it.token_header["alg"] = json!("HS256")),
    ("alg of another key", TOKEN, "key-algorithm", |it| it.token_header["alg"] = json!("RS256")),
    ("typ of a proof", TOKEN, "token-type", |it| it.token_header["typ"] = json!("dpop+jwt")),
    ("no typ", TOKEN, "token-type", |it| less(&mut it.token_header, "typ")),
    ("crit", TOKEN, "token-critical", |it| it.token_header["crit"] = json!(["exp"])),
    ("no kid", TOKEN, "key-id", |it| less(&mut it.token_header, "kid")),
    ("an unknown kid", TOKEN, "unknown-key", |it| it.token_header["kid"] = json!("en annen")),
    ("the kid of an RSA key", TOKEN, "key-algorithm", |it| it.token_header["kid"] = json!("PS256-1")),
    ("a key of its own", TOKEN, "token-signature", |it| {
        it.token_key = it.thief.clone();
        it.token_header["jwk"] = it.thief.jwk.clone();
    }),
    ("a changed claim", TOKEN, "token-signature", |it| {
        it.mangle = |headers| {
            let parts: Vec<String> = headers[0].1.split('.').map(str::to_owned).collect();
            let header = &parts[0];
            headers[0].1 = format!("{header}.{}.{}", "eyJpc3MiOiJodHRwczovL2EifQ", parts[2]);
        };
    }),
    ("another issuer", TOKEN, "issuer", |it| it.claims["iss"] = json!("https://helseid-sts.nhn.no")),
    ("the issuer with a slash", TOKEN, "issuer", |it| it.claims["iss"] = json!(format!("{}/", it.claims["iss"].as_str().unwrap()))),
    ("no issuer", TOKEN, "issuer", |it| less(&mut it.claims, "iss")),
    ("another audience", TOKEN, "audience", |it| it.claims["aud"] = json!("nhn:annet")),
    ("two audiences", TOKEN, "audience", |it| it.claims["aud"] = json!([AUDIENCE, "nhn:annet"])),
    ("no audience", TOKEN, "audience", |it| less(&mut it.claims, "aud")),
    ("expired", TOKEN, "expired", |it| it.claims["exp"] = json!(now_s() - 10)),
    ("no end", TOKEN, "expired", |it| less(&mut it.claims, "exp")),
    ("not yet", TOKEN, "not-yet-valid", |it| it.claims["nbf"] = json!(now_s() + 30)),
    ("issued ahead", TOKEN, "issued-at", |it| it.claims["iat"] = json!(now_s() + 30)),
    ("no client", TOKEN, "client", |it| less(&mut it.claims, "client_id")),
    ("a number for a scope", TOKEN, "scope-shape", |it| it.claims["scope"] = json!(7)),
    ("no organisation", TOKEN, "organisation", |it| less(&mut it.claims, &claim("orgnr_parent"))),
    ("a wrong check digit", TOKEN, "organisation", |it| it.claims[claim("orgnr_parent")] = json!("312345677")),
    ("a prefixed organisation", TOKEN, "organisation", |it| it.claims[claim("orgnr_parent")] = json!(format!("NO:ORGNR:{ORGANISATION}"))),
    ("bound to nothing", TOKEN, "unbound", |it| less(&mut it.claims, "cnf")),
    ("bound to a certificate", TOKEN, "unbound", |it| it.claims["cnf"] = json!({"x5t#S256": sha256("x")})),
    ("bound to half a thumbprint", TOKEN, "confirmation", |it| it.claims["cnf"] = json!({"jkt": "abc"})),
    ("no scope", SCOPE, "no-role", |it| less(&mut it.claims, "scope")),
    ("another API's scope", SCOPE, "no-role", |it| it.claims["scope"] = json!("nhn:annet/subscribe subscribe nhn:hendelser/subscriber")),
    ("a supplier", SCOPE, "supplier", |it| it.claims[claim("orgnr_supplier")] = json!(OTHER_ORGANISATION)),
    ("another's unit", SCOPE, "child", |it| {
        it.claims[claim("orgnr_parent")] = json!(OTHER_ORGANISATION);
        it.claims[claim("orgnr_child")] = json!(UNIT);
    }),
    ("an unknown unit", SCOPE, "child", |it| it.claims[claim("orgnr_child")] = json!(STRANGER)),
    ("no proof", PROOF, "no-proof", |it| it.mangle = |headers| drop(headers.pop())),
    ("two proofs", PROOF, "proof-shape", |it| it.mangle = |headers| headers.push(headers[1].clone())),
    ("a huge proof", PROOF, "proof-size", |it| it.proof_claims["fyll"] = json!("x".repeat(9_000))),
    ("a proof that is none", PROOF, "proof-shape", |it| it.mangle = |headers| headers[1].1 = "a.b.c".to_owned()),
    ("a proof with crit", PROOF, "proof-critical", |it| it.proof_header["crit"] = json!(["x"])),
    ("a proof of typ JWT", PROOF, "proof-type", |it| it.proof_header["typ"] = json!("JWT")),
    ("a proof of alg none", PROOF, "proof-algorithm", |it| it.proof_header["alg"] = json!("none")),
    ("a proof of alg HS256", PROOF, "proof-algorithm", |it| it.proof_header["alg"] = json!("HS256")),
    ("a proof of ES512", PROOF, "proof-algorithm", |it| it.proof_header["alg"] = json!("ES512")),
    ("a proof without key", PROOF, "proof-key", |it| less(&mut it.proof_header, "jwk")),
    ("a proof with a secret", PROOF, "proof-key-private", |it| it.proof_header["jwk"] = json!({"kty": "oct", "k": "AQAB"})),
    ("a proof with the private key", PROOF, "proof-key-private", |it| it.proof_header["jwk"]["d"] = json!("AQAB")),
    ("a thief's proof", PROOF, "proof-binding", |it| {
        it.proof_key = it.thief.clone();
        it.proof_header["jwk"] = it.thief.jwk.clone();
    }),
    ("a thief's signature", PROOF, "proof-signature", |it| it.proof_key = it.thief.clone()),
    ("a proof of another token", PROOF, "proof-token", |it| it.proof_claims["ath"] = json!(sha256("en annen"))),
    ("a proof without token", PROOF, "proof-token", |it| it.proof_claims["ath"] = Value::Null),
    ("a proof without jti", PROOF, "proof-id", |it| less(&mut it.proof_claims, "jti")),
    ("a proof with a long jti", PROOF, "proof-id", |it| it.proof_claims["jti"] = json!("x".repeat(300))),
    ("a proof of another method", PROOF, "proof-method", |it| it.proof_claims["htm"] = json!("POST")),
    ("a proof of another path", PROOF, "proof-address", |it| it.proof_claims["htu"] = json!(format!("{PUBLIC_URL}/v1/tokens"))),
    ("a proof of another host", PROOF, "proof-address", |it| {
        it.proof_claims["htu"] = json!("https://hendelser.example.com/buss/v1/subscriptions");
    }),
    ("a proof of another scheme", PROOF, "proof-address", |it| {
        it.proof_claims["htu"] = json!("http://hendelser.example.org/buss/v1/subscriptions");
    }),
    ("an old proof", PROOF, "proof-time", |it| it.proof_claims["iat"] = json!(now_s() - 30)),
    ("a proof of tomorrow", PROOF, "proof-time", |it| it.proof_claims["iat"] = json!(now_s() + 86_400)),
    ("a proof of no time", PROOF, "proof-time", |it| less(&mut it.proof_claims, "iat")),
];

/// Refusals by reason, as the metrics have them.
async fn refusals(caller: &Caller) -> BTreeMap<String, u64> {
    let metrics = caller.raw(Method::GET, "/metrics", &[], "").await.text;
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("ryggrad_bridge_token_refusals_total{reason=\"")?.split_once("\"} "));
    lines.map(|(reason, count)| (reason.to_owned(), count.parse().unwrap())).collect()
}

/// A unit of the register below another.
async fn unit(appender: &Appender, number: &str, above: &str) {
    let virksomhet = Virksomhet { overordnet_enhet: Some(above.to_owned()), ..Virksomhet::default() };
    let change = VirksomhetEndret { endringstype: Endringstype::Ny, virksomhet: Some(virksomhet), ..VirksomhetEndret::default() };
    let value = Some(avro::encode(&change).unwrap());
    let headers = Headers::default();
    appender
        .append(&EncodedRecord { topic: VIRKSOMHET.to_owned(), partition: None, key: number.to_owned(), value, headers })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_client_gets_in_and_each_rule_broken_once_keeps_one_out() {
    let rig = Rig::start().await;
    topics::ensure(&rig.scenario.connection(), &Catalogue::opened(Latch::Shut).topics, 1).await.unwrap();
    let appender = Appender::new(&rig.scenario.connection(), 10_000).unwrap();
    unit(&appender, PART, ORGANISATION).await;
    unit(&appender, UNIT, PART).await;
    let (bridge, caller) = rig.bridge(&rig.helseid.issuer(), "leeway_ms = 2000\njwks_refresh_min_ms = 500").await;

    // How to get in is told to anyone.
    let metadata = caller.get("/.well-known/oauth-protected-resource").await;
    let scopes = ["subscribe", "publish", "operate", "audit"].map(|role| format!("{AUDIENCE}/{role}"));
    assert_eq!(
        metadata,
        (
            200,
            json!({
                "resource": PUBLIC_URL, "authorization_servers": [rig.helseid.issuer()], "scopes_supported": scopes,
                "bearer_methods_supported": ["header"], "dpop_signing_alg_values_supported": ALGS.split(' ').collect::<Vec<_>>(),
                "dpop_bound_access_tokens_required": true,
            })
        )
    );

    // Tokens by every algorithm, with proofs by every algorithm; from the provider itself.
    let subscribe = format!("{AUDIENCE}/subscribe");
    for alg in ALGORITHMS {
        let token = rig.helseid.token(alg, &rig.client.pair("ES256"), &subscribe, &format!("{ORGANISATION}:")).await;
        let answer = send(&caller, Method::GET, LIST, &rig.headers("ES256", "GET", LIST, &token), "").await;
        assert_eq!((answer.status, answer.json()["subscriptions"].clone()), (200, json!([])), "{alg}: {}", answer.text);
        let mut attempt = rig.attempt();
        attempt.claims["cnf"]["jkt"] = json!(rig.client.pair(alg).thumbprint());
        let token = attempt.token_key.sign("ES256", &attempt.token_header, &attempt.claims.to_string());
        let answer = send(&caller, Method::GET, LIST, &rig.headers(alg, "GET", LIST, &token), "").await;
        assert_eq!(answer.status, 200, "proof by {alg}: {}", answer.text);
    }

    // A unit of the organisation, some steps down, from the provider itself; and what such a client does.
    wait::until("the bridge knows the units", 20, || async {
        let metrics = caller.raw(Method::GET, "/metrics", &[], "").await.text;
        metrics.lines().any(|line| line == "ryggrad_bridge_units 2").then_some(())
    })
    .await;
    let token = rig.helseid.token("PS256", &rig.client.pair("ES256"), &subscribe, &format!("{ORGANISATION}:{UNIT}")).await;
    let request = json!({"types": ["no.ryggrad.*"], "channel": "pull", "start": "now"}).to_string();
    let mut headers = rig.headers("ES256", "POST", LIST, &token);
    headers.push(("idempotency-key", "en".to_owned()));
    let created = send(&caller, Method::POST, LIST, &headers, &request).await;
    assert_eq!((created.status, created.json()["organisation"].clone()), (201, json!(ORGANISATION)), "{}", created.text);
    // The same request again is a used proof; with a new one it is a repetition.
    assert_eq!(send(&caller, Method::POST, LIST, &headers, &request).await.header("www-authenticate"), challenge("invalid_dpop_proof"));
    let mut again = rig.headers("ES256", "POST", LIST, &token);
    again.push(("idempotency-key", "en".to_owned()));
    let repeated = send(&caller, Method::POST, LIST, &again, &request).await;
    assert_eq!((repeated.header("idempotency-replayed"), repeated.text.as_str()), ("true", created.text.as_str()));
    let lacks = send(&caller, Method::GET, "/v1/tokens", &rig.headers("ES256", "GET", "/v1/tokens", &token), "").await;
    assert_eq!((lacks.status, lacks.json()["missing_role"].clone()), (403, json!("operate")));
    let scoped = challenge("insufficient_scope").replacen("\", ", &format!("\", scope=\"{AUDIENCE}/operate\", "), 1);
    assert_eq!(lacks.header("www-authenticate"), scoped);

    // An operator's scope opens what is the operator's, but for tokens that would open nothing.
    let operator = rig.helseid.token("ES384", &rig.client.pair("ES256"), &format!("{AUDIENCE}/operate"), &format!("{ORGANISATION}:")).await;
    let listed = send(&caller, Method::GET, "/v1/tokens", &rig.headers("ES256", "GET", "/v1/tokens", &operator), "").await;
    assert_eq!((listed.status, listed.json()["tokens"].clone()), (200, json!([])), "{}", listed.text);
    let wish = json!({"organisation": ORGANISATION}).to_string();
    let issued = send(&caller, Method::POST, "/v1/tokens", &rig.headers("ES256", "POST", "/v1/tokens", &operator), &wish).await;
    assert_eq!((issued.status, issued.json()["type"].clone()), (403, json!("urn:ryggrad:error:forbidden")), "{}", issued.text);

    // A WebSocket closes when its token ends.
    let path = format!("{LIST}/{}/socket", created.json()["id"].as_str().unwrap());
    let mut brief = rig.attempt();
    brief.claims["exp"] = json!(now_s() + 2);
    brief.proof_claims["htu"] = json!(format!("{PUBLIC_URL}{path}"));
    let mut headers = brief.headers();
    headers.push(("sec-websocket-protocol", "ryggrad.v1".to_owned()));
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let opened = Instant::now();
    let (mut socket, _) = Socket::open_with_headers(caller.base(), &path, &headers).await.unwrap();
    assert_eq!(socket.next().await.unwrap()["type"], "hello");
    assert_eq!(Socket::open_with_headers(caller.base(), &path, &headers).await.err(), Some(401), "the proof was for one opening");
    assert_eq!(socket.next().await, Err(4401));
    assert!(opened.elapsed() < Duration::from_secs(8), "it closes with its token");

    // Each rule broken once.
    assert!(WRONG.len() >= 40);
    let before = refusals(&caller).await;
    let mut expected = before.clone();
    let mut shown = Vec::new();
    for (what, (status, error), reason, breaking) in WRONG {
        let mut attempt = rig.attempt();
        breaking(&mut attempt);
        let headers = attempt.headers();
        let answer = send(&caller, Method::GET, LIST, &headers, "").await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (*status, challenge(error).as_str()), "{what}");
        assert_eq!(answer.json(), body(*status), "{what}");
        *expected.get_mut(*reason).unwrap_or_else(|| panic!("{reason} is a metric")) += 1;
        shown.extend(headers.iter().filter_map(|(_, value)| value.split('.').nth(2)).filter(|part| part.len() > 40).map(str::to_owned));
    }
    let found = refusals(&caller).await;
    let differ: Vec<_> = expected.iter().filter(|(reason, count)| found[*reason] != **count).collect();
    assert!(differ.is_empty(), "for these reasons, not for others: expected {differ:?} of {found:?}");
    println!("{} ways to be kept out", WRONG.len());

    // A unit that is no longer the organisation's loses what it has opened.
    let mut unit = rig.attempt();
    unit.claims[claim("orgnr_child")] = json!(UNIT);
    unit.proof_claims["htu"] = json!(format!("{PUBLIC_URL}{path}"));
    let mut headers = unit.headers();
    headers.push(("sec-websocket-protocol", "ryggrad.v1".to_owned()));
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (mut socket, _) = Socket::open_with_headers(caller.base(), &path, &headers).await.unwrap();
    assert_eq!(socket.next().await.unwrap()["type"], "hello");
    let (topic, headers) = (VIRKSOMHET.to_owned(), Headers::default());
    appender.append(&EncodedRecord { topic, partition: None, key: UNIT.to_owned(), value: None, headers }).await.unwrap();
    assert_eq!(socket.next().await, Err(4401));

    // And once more a good one: nothing of this was about the others.
    let answer = send(&caller, Method::GET, LIST, &rig.attempt().headers(), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let said = bridge.said();
    assert!(shown.len() > 40 && shown.iter().all(|signature| !said.contains(signature)), "no token is ever logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_and_an_outage_of_the_issuer_is_borne_for_a_while() {
    let mut rig = Rig::start().await;
    let settings = "jwks_cache_ms = 2000\njwks_outage_ms = 4000\njwks_refresh_min_ms = 200";
    let (mut bridge, caller) = rig.bridge(&rig.helseid.issuer(), settings).await;
    let scope = format!("{AUDIENCE}/subscribe");
    let status = async |token: &str| send(&caller, Method::GET, LIST, &rig.headers("ES256", "GET", LIST, token), "").await.status;
    let old = rig.helseid.token("ES256", &rig.client.pair("ES256"), &scope, &format!("{ORGANISATION}:")).await;
    assert_eq!(status(&old).await, 200);

    // New keys: found as soon as a token of theirs comes; the old ones are over.
    let next = rig.next.clone();
    rig.helseid.run(&next, "2").await;
    let new = rig.helseid.token("ES256", &rig.client.pair("ES256"), &scope, &format!("{ORGANISATION}:")).await;
    let status = async |token: &str| send(&caller, Method::GET, LIST, &rig.headers("ES256", "GET", LIST, token), "").await.status;
    wait::until("the new key is known", 5, || async { (status(&new).await == 200).then_some(()) }).await;
    assert_eq!(status(&old).await, 401);

    // Away: the keys serve on, but not for ever.
    rig.helseid.stop();
    let away = Instant::now();
    let status = async |token: &str| send(&caller, Method::GET, LIST, &rig.headers("ES256", "GET", LIST, token), "").await;
    assert_eq!(status(&new).await.status, 200);
    let refused = wait::until("the keys are too old", 20, || async {
        let answer = status(&new).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert!(away.elapsed() > Duration::from_millis(3_500), "they served for {:?}", away.elapsed());
    assert_eq!((refused.status, refused.header("retry-after"), refused.header("www-authenticate")), (503, "2", ""));
    let metrics = caller.raw(Method::GET, "/metrics", &[], "").await.text;
    assert!(
        metrics.lines().any(|line| line.starts_with("ryggrad_bridge_issuer_key_failures_total ") && !line.ends_with(" 0")),
        "{metrics}"
    );

    // Back: as if nothing had been.
    rig.helseid.run(&next, "2").await;
    let status = async |token: &str| send(&caller, Method::GET, LIST, &rig.headers("ES256", "GET", LIST, token), "").await.status;
    wait::until("the issuer is back", 10, || async { (status(&new).await == 200).then_some(()) }).await;
    assert_eq!(bridge.stop().await, Some(0));

    // An issuer that goes by another name is never believed.
    let (_bridge, caller) = rig.bridge(&rig.helseid.issuer().replace("127.0.0.1", "localhost"), "").await;
    let answer = send(&caller, Method::GET, LIST, &rig.headers("ES256", "GET", LIST, &new), "").await;
    assert_eq!(answer.status, 503, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonces_and_bearer_tokens_where_a_deployment_wants_them() {
    let rig = Rig::start().await;
    let (mut bridge, caller) = rig.bridge(&rig.helseid.issuer(), "require_dpop_nonce = true").await;
    let refused = send(&caller, Method::GET, LIST, &rig.attempt().headers(), "").await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, challenge("use_dpop_nonce").as_str()));
    let mut attempt = rig.attempt();
    attempt.proof_claims["nonce"] = json!(refused.header("dpop-nonce"));
    assert_eq!(send(&caller, Method::GET, LIST, &attempt.headers(), "").await.status, 200);
    attempt.proof_claims["nonce"] = json!("gammel");
    attempt.proof_claims["jti"] = json!(Uuid::new_v4());
    assert_eq!(send(&caller, Method::GET, LIST, &attempt.headers(), "").await.header("www-authenticate"), challenge("use_dpop_nonce"));
    assert_eq!(bridge.stop().await, Some(0));

    let (_bridge, caller) = rig.bridge(&rig.helseid.issuer(), "access_tokens = \"bearer\"").await;
    let bearer = |error: &str| challenge(error).replace("DPoP ", "Bearer ").replace(&format!("algs=\"{ALGS}\", "), "");
    let mut free = rig.attempt();
    less(&mut free.claims, "cnf");
    free.mangle = |headers| headers[0].1 = headers[0].1.replace("DPoP", "Bearer");
    let answer = send(&caller, Method::GET, LIST, &free.headers(), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let mut bound = rig.attempt();
    bound.mangle = free.mangle;
    for (what, headers, error) in [
        ("a bound token", bound.headers(), "invalid_token"),
        ("with the scheme of proofs", rig.attempt().headers(), "invalid_token"),
        ("nothing", Vec::new(), ""),
    ] {
        let answer = send(&caller, Method::GET, LIST, &headers, "").await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, bearer(error).as_str()), "{what}");
        assert_eq!(answer.json(), body(401), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supplier_gets_in_for_as_long_as_the_organisation_lets_it_act() {
    let rig = Rig::start().await;
    let (_bridge, caller) = rig.bridge(&rig.helseid.issuer(), "").await;
    let headers = |supplier: Option<&str>, scope: &str, method: &str, path: &str| {
        let mut attempt = rig.attempt();
        attempt.claims["scope"] = json!(scope);
        if let Some(supplier) = supplier {
            attempt.claims[claim("orgnr_supplier")] = json!(supplier);
        }
        attempt.proof_claims["htm"] = json!(method);
        attempt.proof_claims["htu"] = json!(format!("{PUBLIC_URL}{path}"));
        attempt.headers()
    };
    let (subscribe, all) = (format!("{AUDIENCE}/subscribe"), format!("{AUDIENCE}/subscribe {AUDIENCE}/operate"));
    let call = async |supplier, scope: &str, method: Method, path: &str, body: Value| {
        let headers = headers(supplier, scope, method.as_str(), path);
        send(&caller, method, path, &headers, &body.to_string()).await
    };
    let acting = Some(OTHER_ORGANISATION);
    let list = async |supplier| call(supplier, &subscribe, Method::GET, LIST, Value::Null).await;

    // A supplier of itself acts for itself; another is kept out.
    assert_eq!(list(Some(ORGANISATION)).await.status, 200);
    let refused = list(acting).await;
    assert_eq!(
        (refused.status, refused.json(), refused.header("www-authenticate")),
        (403, body(403), challenge("insufficient_scope").as_str())
    );

    let wish = json!({"supplier": OTHER_ORGANISATION, "types": ["no.ryggrad.*"]});
    let made = call(None, &subscribe, Method::POST, "/v1/delegations", wish).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let delegation = format!("/v1/delegations/{}", made.json()["id"].as_str().unwrap());
    assert_eq!(list(acting).await.status, 200);
    let third = list(Some(UNIT)).await;
    assert_eq!((third.status, third.json()), (403, body(403)), "another supplier");
    let made = call(acting, &subscribe, Method::POST, LIST, json!({"types": ["no.ryggrad.*"], "channel": "pull"})).await;
    let shown = made.json();
    assert_eq!((made.status, &shown["organisation"], &shown["supplier"]), (201, &json!(ORGANISATION), &json!(OTHER_ORGANISATION)));
    // What operators do is nobody's to lend.
    let tokens = call(acting, &all, Method::GET, "/v1/tokens", Value::Null).await;
    assert_eq!((tokens.status, tokens.json()["missing_role"].clone()), (403, json!("operate")));
    assert_eq!(call(acting, &format!("{AUDIENCE}/operate"), Method::GET, LIST, Value::Null).await.status, 403);

    // What it has opened ends with the delegation, and its tokens open nothing more.
    let path = format!("{LIST}/{}/socket", shown["id"].as_str().unwrap());
    let mut opening = headers(acting, &subscribe, "GET", &path);
    opening.push(("sec-websocket-protocol", "ryggrad.v1".to_owned()));
    let opening: Vec<(&str, &str)> = opening.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (mut socket, _) = Socket::open_with_headers(caller.base(), &path, &opening).await.unwrap();
    let hello = socket.next().await.unwrap();
    assert_eq!((&hello["organisation"], &hello["supplier"]), (&json!(ORGANISATION), &json!(OTHER_ORGANISATION)));
    assert_eq!(call(None, &subscribe, Method::DELETE, &delegation, Value::Null).await.status, 204);
    // Both are so: nothing may leave, and the token opens nothing. Whichever is seen first.
    assert!(matches!(socket.next().await, Err(4401 | 4403)));
    assert_eq!((list(acting).await.status, list(None).await.status), (403, 200));
}
