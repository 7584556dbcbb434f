//! Producers' clients of HelseID and Maskinporten, against real OpenID providers in their places: what they get
//! opens a bridge and a registry that is guarded, is kept, renewed, and given up where it is not taken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::HeaderMap;
use futures_util::future::join_all;
use prometheus_client::registry::Registry as Metrics;
use reqwest::Method;
use ryggrad_producers::{Again, AuthConfig, Credentials, Http, IssuerKind, ProducerConfig, Telemetry, TokenError, TokenSays, credentials};
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::conformance::enhetsregisteret::Enhetsregisteret;
use ryggrad_tests::conformance::{Registry, conforms};
use ryggrad_tests::guard::Guard;
use ryggrad_tests::helseid::{ALGORITHMS, AUDIENCE, HelseId, Keys};
use ryggrad_tests::maskinporten::{Maskinporten, SCOPE};
use ryggrad_tests::process::{Process, command, free_port};
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use url::Url;

const UNIT: &str = "310000019";
const OTHER: &str = "310000000";

fn scope() -> String {
    format!("{AUDIENCE}/subscribe")
}

/// A client's settings, with its key in a file.
fn auth(folder: &Path, kind: IssuerKind, issuer: &str, keys: &Keys, alg: &str) -> AuthConfig {
    let key_file = folder.join(format!("{alg}.jwk"));
    let kid = keys.registered(alg)["kid"].as_str().unwrap().to_owned();
    private(&key_file, &keys.pair(alg).private_jwk(&kid));
    let (scope, client_id) = match kind {
        IssuerKind::Helseid => (scope(), "klient-ES256".to_owned()),
        IssuerKind::Maskinporten => (SCOPE.to_owned(), "klient".to_owned()),
    };
    AuthConfig { kind, issuer: issuer.to_owned(), client_id, key_file, scope, ..AuthConfig::default() }
}

fn private(file: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn config(auth: AuthConfig) -> ProducerConfig {
    ProducerConfig { auth: Some(auth), requests_per_second_max: 5_000, retry_delay_ms_first: 50, ..ProducerConfig::default() }
}

fn client(auth: &AuthConfig) -> Arc<dyn Credentials> {
    credentials(&config(auth.clone())).unwrap().unwrap()
}

fn http(auth: &AuthConfig, base: &Url) -> Http {
    Http::new(&config(auth.clone()), base, "test", Telemetry::register(&mut Metrics::default())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_helseid_opens_a_bridge_that_wants_nonces_with_a_token_that_it_keeps_and_renews() {
    let ([issuer, _, keys, _], scenario) = tokio::join!(Keys::make(), Scenario::start());
    let folder = tempfile::tempdir().unwrap();
    let helseid = HelseId::start_with(&issuer, &keys, 10).await;
    let base = Url::parse(&scenario.bridge_url()).unwrap();
    let settings = format!(
        "[bridge.trust]\nissuer = \"{}\"\naudience = \"{AUDIENCE}\"\npublic_url = \"{base}\"\nrequire_dpop_nonce = true\n",
        helseid.issuer()
    );
    std::fs::write(scenario.folder.path().join("bridge.toml"), settings).unwrap();
    let _bridge = scenario.bridge(&["--config", "bridge.toml"]);
    Caller::new(&scenario.bridge_url(), None).ready().await;

    let settings = AuthConfig {
        organisation: Some(ORGANISATION.parse().unwrap()),
        ..auth(folder.path(), IssuerKind::Helseid, &helseid.issuer(), &keys, "ES256")
    };
    let (http, list) = (http(&settings, &base), base.join("/v1/subscriptions?limit=5").unwrap());
    let opened = async || {
        let answer = http.get(&list, None, 10_000).await.unwrap();
        assert_eq!((answer.status, serde_json::from_slice::<Value>(&answer.body).unwrap()["subscriptions"].clone()), (200, json!([])));
    };
    // Those who come together share one token, as do those who come after them.
    join_all((0..20).map(|_| opened())).await;
    opened().await;
    assert_eq!(helseid.granted(), 1, "{}", helseid.said());
    // It is renewed before it ends; nobody notices.
    wait::until("the token is renewed", 20, || async {
        opened().await;
        (helseid.granted() > 1).then_some(())
    })
    .await;

    // Nobody but the upstream that they are for is shown credentials.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let (asked, shown) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (asking, showing) = (Arc::clone(&asked), Arc::clone(&shown));
    let router = Router::new().fallback(async move |headers: HeaderMap| {
        asking.fetch_add(1, Ordering::SeqCst);
        showing.fetch_add(usize::from(headers.contains_key("authorization") || headers.contains_key("dpop")), Ordering::SeqCst);
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    assert_eq!(http.get(&elsewhere, None, 10_000).await.unwrap().status, 200);
    assert_eq!((asked.load(Ordering::SeqCst), shown.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn helseid_takes_every_algorithm_and_hears_whom_the_client_speaks_for() {
    let [issuer, _, keys, _] = Keys::make().await;
    let folder = tempfile::tempdir().unwrap();
    let helseid = HelseId::start(&issuer, &keys).await;
    let (organisation, unit) = (Some(ORGANISATION.parse().unwrap()), Some(UNIT.parse().unwrap()));
    for alg in ALGORITHMS {
        let mut settings = auth(folder.path(), IssuerKind::Helseid, &helseid.issuer(), &keys, alg);
        settings.algorithm = Some(serde_json::from_value(json!(alg)).unwrap());
        let says = client(&settings).token_says().await.unwrap_or_else(|error| panic!("{alg}: {error:?}\n{}", helseid.said()));
        assert_eq!((says.organisation, says.bound), (None, true), "{alg}");
    }
    let settings = auth(folder.path(), IssuerKind::Helseid, &helseid.issuer(), &keys, "ES256");
    let pem = folder.path().join("client.pem");
    private(&pem, &keys.pair("RS256").private_pem());
    for (settings, expected) in [
        (AuthConfig { organisation, ..settings.clone() }, (Some(ORGANISATION), None)),
        (AuthConfig { organisation, child: unit, ..settings.clone() }, (Some(ORGANISATION), Some(UNIT))),
        // Of a client with one organisation HelseID is told the unit alone.
        (AuthConfig { child: unit, ..settings.clone() }, (Some(ORGANISATION), Some(UNIT))),
        (AuthConfig { organisation, key_file: pem, key_id: Some("klient-RSA".to_owned()), ..settings.clone() }, (Some(ORGANISATION), None)),
    ] {
        let says = client(&settings).token_says().await.unwrap();
        assert_eq!((says.organisation.as_deref(), says.child.as_deref()), expected);
        let (audience, scopes) = (vec![AUDIENCE.to_owned()], vec![scope()]);
        assert_eq!((says.issuer, says.audience, says.scopes), (Some(helseid.issuer()), audience, scopes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_maskinporten_gets_a_token_that_bears_its_organisation() {
    let [issuer, _, keys, _] = Keys::make().await;
    let folder = tempfile::tempdir().unwrap();
    let maskinporten = Maskinporten::start(&issuer, &keys).await;
    let mut settings = auth(folder.path(), IssuerKind::Maskinporten, &maskinporten.issuer(), &keys, "RS256");
    settings.assertion_lifetime_ms = 120_000;
    let own = client(&settings);
    let (get, url) = (Method::GET, Url::parse("https://api.example.org/a?b").unwrap());
    let shown = join_all((0..10).map(|_| own.authorise(&get, &url))).await.remove(0).unwrap();
    assert_eq!(maskinporten.granted(), 1, "{}", maskinporten.said());
    assert!(!format!("{shown:?}").contains("eyJ"), "what is carried does not print");
    let token = shown.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let claims = maskinporten.verified(token).await;
    assert_eq!((&claims["scope"], &claims["consumer"]["ID"]), (&json!(SCOPE), &json!(format!("0192:{ORGANISATION}"))));

    // Not taken: another one, and that one is kept, whatever the API says of it.
    assert_eq!(own.answered(&shown, 200, &HeaderMap::new()), Again::No);
    assert_eq!(own.answered(&shown, 401, &HeaderMap::new()), Again::WithToken);
    let second = own.authorise(&get, &url).await.unwrap();
    assert_eq!((own.answered(&shown, 401, &HeaderMap::new()), maskinporten.granted()), (Again::WithToken, 2));
    assert_eq!(own.answered(&second, 401, &HeaderMap::new()), Again::No);

    // For one that has delegated, at one API; signed otherwise.
    let api = "https://api.example.org".to_owned();
    let settings = AuthConfig {
        organisation: Some(OTHER.parse().unwrap()),
        resource: Some(api.clone()),
        algorithm: Some(serde_json::from_value(json!("RS512")).unwrap()),
        ..settings
    };
    let says = client(&settings).token_says().await.unwrap();
    let expected = TokenSays {
        issuer: Some(maskinporten.issuer()),
        audience: vec![api],
        client_id: Some("klient".to_owned()),
        scopes: vec![SCOPE.to_owned()],
        organisation: Some(OTHER.to_owned()),
        supplier: Some(ORGANISATION.to_owned()),
        expires_at_s: says.expires_at_s,
        ..TokenSays::default()
    };
    assert_eq!(says, expected);
    let asked_too_much = client(&AuthConfig { scope: "annet:alt".to_owned(), ..settings }).token_says().await.unwrap_err();
    assert!(matches!(&asked_too_much, TokenError::Refused { code, .. } if code == "invalid_scope"), "{asked_too_much:?}");
}

/// `credentials check` in a folder, with a client's settings as flags.
fn check(folder: &TempDir, settings: &AuthConfig, more: &[&str]) -> (Option<i32>, String, String) {
    let kind = if settings.kind == IssuerKind::Helseid { "helseid" } else { "maskinporten" };
    let own = ["credentials", "check", "--kind", kind, "--issuer", &settings.issuer, "--client-id", &settings.client_id];
    let rest = ["--key-file", settings.key_file.to_str().unwrap(), "--scope", &settings.scope, "-o", "ndjson"];
    command(folder.path(), &[&own[..], &rest, more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_what_a_token_says_or_what_to_check() {
    let [issuer, _, keys, thief] = Keys::make().await;
    let folder = tempfile::tempdir().unwrap();
    let (helseid, maskinporten) = tokio::join!(HelseId::start(&issuer, &keys), Maskinporten::start(&issuer, &keys));
    let good = auth(folder.path(), IssuerKind::Helseid, &helseid.issuer(), &keys, "ES256");
    let run = |settings: &AuthConfig, more: &[&str]| {
        let (code, said, told) = check(&folder, settings, more);
        assert!(!said.contains("eyJ") && !told.contains("eyJ"), "nothing signed is ever shown: {said}{told}");
        (code, said, told)
    };

    let (code, said, told) = run(&good, &["--organisation", ORGANISATION, "--child", UNIT]);
    assert_eq!(code, Some(0), "{told}");
    let mut says: Value = serde_json::from_str(&said).unwrap();
    let expires_at: jiff::Timestamp = says["expires_at"].take().as_str().unwrap().parse().unwrap();
    assert!(expires_at > jiff::Timestamp::now());
    let expected = json!({
        "issuer": helseid.issuer(), "audience": [AUDIENCE], "client_id": "klient-ES256", "scopes": [scope()], "organisation": ORGANISATION,
        "child": UNIT, "supplier": null, "bound": true, "expires_at": null,
    });
    assert_eq!(says, expected);
    assert!(!told.contains("chmod"), "{told}");

    // The same from a settings file, the environment's way of writing numbers included.
    let text = format!(
        "[producer.auth]\nkind = \"helseid\"\nissuer = \"{}\"\nclient_id = \"klient-ES256\"\nkey_file = \"ES256.jwk\"\nscope = \"{}\"\norganisation = {ORGANISATION}\n",
        helseid.issuer(),
        scope()
    );
    std::fs::write(folder.path().join("producer.toml"), text).unwrap();
    let (code, said, told) = command(folder.path(), &["credentials", "check", "--config", "producer.toml"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(said.lines().any(|line| line.split_whitespace().eq(["organisation", ORGANISATION])), "{said}");

    let other = |change: &dyn Fn(&mut AuthConfig)| {
        let mut settings = good.clone();
        change(&mut settings);
        settings
    };
    std::fs::create_dir(folder.path().join("thief")).unwrap();
    let stolen = auth(&folder.path().join("thief"), IssuerKind::Helseid, &helseid.issuer(), &thief, "ES256");
    let public = folder.path().join("public.jwk");
    std::fs::write(&public, keys.registered("ES256").to_string()).unwrap();
    let nameless = folder.path().join("nameless.pem");
    private(&nameless, &keys.pair("ES256").private_pem());
    let foreigner = auth(folder.path(), IssuerKind::Maskinporten, &maskinporten.issuer(), &thief, "RS256");
    let curve = AuthConfig { key_file: good.key_file.clone(), ..foreigner.clone() };
    for (what, settings, code, expected) in [
        ("a key that is not registered", stolen, 3, "invalid_client); check client_id, that the public half of key_file"),
        ("a scope that is not given", other(&|it| it.scope = "nhn:annet/alt".to_owned()), 3, "check scope"),
        ("an unknown client", other(&|it| it.client_id = "ukjent".to_owned()), 3, "invalid_client"),
        ("nobody there", other(&|it| it.issuer = format!("http://127.0.0.1:{}", free_port())), 4, "check issuer, the network"),
        ("by another name", other(&|it| it.issuer = it.issuer.replace("127.0.0.1", "localhost")), 1, "another issuer's"),
        ("plain http", other(&|it| it.issuer = "http://sts.example.org".to_owned()), 2, "auth.issuer is an https address"),
        ("no key", other(&|it| it.key_file = "borte.jwk".into()), 2, "borte.jwk cannot be read"),
        ("half a key", other(&|it| it.key_file = public.clone()), 2, "public half"),
        ("a key without name", other(&|it| it.key_file = nameless.clone()), 2, "set auth.key_id"),
        ("a key unknown to Maskinporten", foreigner, 3, "invalid_grant); check client_id, key_id"),
        ("a curve for Maskinporten", curve, 2, "use an RSA key"),
    ] {
        let (ended, _, told) = run(&settings, &[]);
        assert_eq!((ended, told.contains(expected)), (Some(code), true), "{what}: {told}");
    }
    let (code, _, told) = command(folder.path(), &["credentials", "check"]);
    assert!(code == Some(2) && told.contains("[producer.auth]"), "{told}");

    let open = folder.path().join("open.jwk");
    std::fs::write(&open, std::fs::read_to_string(&good.key_file).unwrap()).unwrap();
    let (code, _, told) = run(&other(&|it| it.key_file = open.clone()), &[]);
    assert!(code == Some(0) && told.contains("chmod 600"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_tokens_is_followed_through_a_401() {
    let ([issuer, _, keys, _], scenario) = tokio::join!(Keys::make(), Scenario::start());
    let helseid = HelseId::start(&issuer, &keys).await;
    let registry = Enhetsregisteret::open(&scenario, 60, 0).await;
    let (before, path) =
        registry.0.base_url().split_once("/enhets").map(|(before, rest)| (before.to_owned(), format!("/enhets{rest}"))).unwrap();
    let guard = Guard::start(&before, &helseid.issuer()).await;

    let folder = scenario.folder.path();
    auth(folder, IssuerKind::Helseid, &helseid.issuer(), &keys, "PS256");
    let settings = format!(
        "[producer]\nbase_url = \"{}{path}\"\nrequests_per_second_max = 5000\npoll_interval_ms = 50\nretry_delay_ms_first = 50\n\
         retry_delay_ms_max = 500\n[producer.snapshot]\ninterval_ms = 0\n[producer.auth]\nkind = \"helseid\"\nissuer = \"{}\"\n\
         client_id = \"klient-ES256\"\nkey_file = \"PS256.jwk\"\nscope = \"{}\"\norganisation = \"{ORGANISATION}\"\n",
        guard.address(),
        helseid.issuer(),
        scope()
    );
    std::fs::write(folder.join("producer.toml"), settings).unwrap();
    let (kafka, listen) = (scenario.broker.address(), format!("127.0.0.1:{}", free_port()));
    let arguments = ["produce", "--config", "producer.toml", "--kafka", &kafka, "--data", "data", "--listen", &listen];
    let mut producer = Process::start(folder, "producer", &arguments);
    conforms(&scenario, &registry).await;
    assert_eq!((helseid.granted(), guard.refused()), (1, Vec::new()), "one token, for dumps, pages and look-ups");

    // It is not taken any more: another one is, and nothing is lost.
    guard.refuse(1);
    wait::until("a request is refused", 30, || async { (guard.still_to_refuse() == 0).then_some(()) }).await;
    registry.change_of("edit", 8, false).await;
    conforms(&scenario, &registry).await;
    assert_eq!((helseid.granted(), guard.refused()), (2, Vec::new()));
    assert!(guard.let_in() > 10);
    assert_eq!(producer.stop().await, Some(0));
    let said = producer.said();
    assert!(!said.contains("eyJ") && !said.contains("upstream_trouble"), "nobody noticed, and no token is logged: {said}");
}
