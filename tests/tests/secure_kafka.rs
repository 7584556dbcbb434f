//! A real broker that asks everybody for a certificate: what services, members and strangers can do there, before and
//! after the operator applies what the facts say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::path::Path;

use reqwest::Method;
use ryggrad_log::access_control::AccessControl;
use ryggrad_log::{Connection, Identity, LocalAuthority};
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::process::{Process, command, free_port};
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::topic::VIRKSOMHET;
use ryggrad_tests::{broker, foreign, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

const A: &str = "312345676";
const B: &str = "310000019";
/// Acts for A.
const SUPPLIER: &str = "923609016";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a stock client says when the broker does not let it in at all, depending on how far it got.
const NO_ENTRY: [&str; 4] = ["_TRANSPORT", "_ALL_BROKERS_DOWN", "_SSL", "_TIMED_OUT"];

struct Place {
    folder: TempDir,
    kafka: String,
    bridge: String,
}

impl Place {
    fn profile(&self) -> toml::Table {
        std::fs::read_to_string(self.folder.path().join("home/client.toml")).unwrap().parse().unwrap()
    }

    fn operator(&self) -> Caller {
        Caller::new(&self.bridge, self.profile()["operator_token"].as_str())
    }

    /// The operator's own connection, from the profile.
    fn connection(&self) -> Connection {
        let tls = self.profile()["kafka_tls"].clone();
        let file = |name: &str| tls[name].as_str().unwrap().into();
        let identity = Identity { ca_file: file("ca_file"), certificate_file: file("certificate_file"), key_file: file("key_file") };
        Connection::new(&self.kafka).with_identity(&identity)
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        command(self.folder.path(), &[arguments, &["--profile", "home/client.toml"]].concat())
    }

    fn apply(&self) {
        let (code, out, said) = self.run(&["access", "apply", "--yes"]);
        assert_eq!(code, Some(0), "{out}{said}");
        let (code, out, said) = self.run(&["access", "plan"]);
        assert_eq!((code, out.as_str()), (Some(0), ""), "once applied there is nothing to do: {said}");
    }

    /// What a stock client gets, with these files.
    async fn tries(&self, what: &str, topic: &str, group: &str, ca: &Path, identity: Option<&Identity>) -> Value {
        let mut arguments = vec![what.to_owned(), self.kafka.clone(), topic.to_owned(), group.to_owned(), ca.display().to_string()];
        arguments
            .extend(identity.into_iter().flat_map(|one| [&one.certificate_file, &one.key_file]).map(|file| file.display().to_string()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        foreign::python("read_secure_topic.py", &arguments, String::new()).await.remove(0)
    }

    async fn as_member(&self, identity: &Identity, what: &str, topic: &str, group: &str) -> Value {
        self.tries(what, topic, group, &identity.ca_file, Some(identity)).await
    }

    fn certificate(&self, organisation: &str) -> Identity {
        let (code, _, said) = self.run(&["access", "certificate", "--organisation", organisation, "--out", "certificates"]);
        assert_eq!(code, Some(0), "{said}");
        let file = |name: &str| self.folder.path().join("certificates").join(name);
        Identity {
            ca_file: file("authority.pem"),
            certificate_file: file(&format!("{organisation}.pem")),
            key_file: file(&format!("{organisation}.key")),
        }
    }

    /// The topic of a subscription for an organisation, made by a supplier if one is named.
    async fn outlet(&self, organisation: &str, supplier: Option<&str>) -> String {
        let operator = self.operator();
        let issued = async |body: Value| operator.with_token(operator.post("/v1/tokens", body).await.1["token"].as_str());
        if let Some(supplier) = supplier {
            let owner = issued(json!({"organisation": organisation})).await;
            let (status, said) = owner.post("/v1/delegations", json!({"supplier": supplier, "types": ["no.ryggrad.*"]})).await;
            assert_eq!(status, 201, "{said}");
        }
        let maker = issued(json!({"organisation": organisation, "supplier": supplier})).await;
        let wish = json!({"types": ["no.ryggrad.*"], "channel": "kafka", "start": "beginning"});
        let (status, made) = maker.post("/v1/subscriptions", wish).await;
        assert_eq!(status, 201, "{made}");
        made["topic"].as_str().unwrap().to_owned()
    }

    async fn set_standing(&self, organisation: &str, standing: &str) {
        let (status, said) =
            self.operator().call(Method::PUT, &format!("/v1/members/{organisation}"), Some(json!({"standing": standing}))).await;
        assert!(matches!(status, 200 | 201), "{said}");
    }
}

fn refused(outcome: &Value, errors: &[&str]) {
    let error = outcome["error"].as_str().unwrap_or_else(|| panic!("{outcome} is no refusal"));
    assert!(errors.contains(&error), "{outcome} is none of {errors:?}");
}

fn got_some(outcome: &Value) {
    assert!(outcome["records"].as_u64().is_some_and(|records| records > 0), "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_does_what_it_may_on_a_broker_with_certificates_and_acls() {
    let (folder, jars) = (TempDir::new().unwrap(), broker::jars().display().to_string());
    let [kafka, bridge, simulator] = [(); 3].map(|()| free_port().to_string());
    let ports = ["--kafka-port", &kafka, "--bridge-port", &bridge, "--simulator-port", &simulator];
    let own = ["up", "--demo", "--secure", "--home", "home", "--jars", &jars, "--changes-per-second", "20"];
    let up = Process::start(folder.path(), "up", &[&own[..], &ports].concat());
    wait::until("the greeting", 90, || async { up.said().contains("Ctrl-C stops everything").then_some(()) }).await;
    let place = Place { folder, kafka: format!("127.0.0.1:{kafka}"), bridge: format!("http://127.0.0.1:{bridge}") };

    // Producer and bridge do their work, each with what it may: a change comes by webhook.
    let receiver = Receiver::start().await;
    receiver.trust(SECRET);
    let subscriber = Caller::new(&place.bridge, place.profile()["token"].as_str());
    let body = json!({"types": ["no.ryggrad.*"], "sink": receiver.sink(), "start": "beginning", "secret": SECRET});
    assert_eq!(subscriber.post("/v1/subscriptions", body).await.0, 201);
    wait::until("deliveries", 60, || async { (receiver.count() > 20).then_some(()) }).await;

    // Nobody outside may anything until it is applied.
    place.set_standing(A, "active").await;
    let (a, b, supplier) = (place.certificate(A), place.certificate(B), place.certificate(SUPPLIER));
    let group = format!("{A}.local-copy");
    refused(&place.as_member(&a, "read", VIRKSOMHET, &group).await, &["TOPIC_AUTHORIZATION_FAILED"]);
    // But its own topic, which the bridge opens to it and to its supplier by itself.
    let outlet = place.outlet(A, None).await;
    let of_supplier = place.outlet(A, Some(SUPPLIER)).await;
    wait::until("A reads its own topic", 30, || async {
        let outcome = place.as_member(&a, "group", &outlet, &group).await;
        outcome["records"].as_u64().is_some_and(|records| records > 0).then_some(())
    })
    .await;
    let (code, out, said) = place.run(&["access", "plan"]);
    assert_eq!(code, Some(5), "{out}{said}");
    assert!(!out.contains("ut.") && out.contains(VIRKSOMHET) && out.contains("quota"), "{out}");
    place.apply();

    got_some(&place.as_member(&a, "read", VIRKSOMHET, &group).await);
    got_some(&place.as_member(&a, "group", VIRKSOMHET, &group).await);
    got_some(&place.as_member(&a, "group", &outlet, &format!("{A}.another")).await);
    got_some(&place.as_member(&supplier, "group", &of_supplier, "923609016.own").await);
    let denied = "TOPIC_AUTHORIZATION_FAILED";
    for (who, what, topic, group, error) in [
        (&a, "write", VIRKSOMHET, group.as_str(), denied),
        (&a, "write", &outlet, &group, denied),
        (&a, "read", "ryggrad.members", &group, denied),
        (&a, "group", VIRKSOMHET, "310000019.theirs", "GROUP_AUTHORIZATION_FAILED"),
        (&b, "read", VIRKSOMHET, "310000019.own", denied),
        (&b, "read", &outlet, "310000019.own", denied),
        (&b, "read", &of_supplier, "310000019.own", denied),
        (&supplier, "read", &outlet, "923609016.own", denied),
    ] {
        let outcome = place.as_member(who, what, topic, group).await;
        refused(&outcome, &[error]);
    }

    // Without a certificate, or with one that another authority has issued, nobody gets in.
    let elsewhere = TempDir::new().unwrap();
    let forged = LocalAuthority::open_or_make(elsewhere.path()).unwrap().issue(A, elsewhere.path()).unwrap();
    for identity in [None, Some(&forged)] {
        refused(&place.tries("read", VIRKSOMHET, &group, &a.ca_file, identity).await, &NO_ENTRY);
    }
    // Nor does a member change who may what, though it is let in.
    let as_member = Connection::new(&place.kafka).with_identity(&a);
    let mut control = AccessControl::connect(&as_member).await.unwrap();
    assert!(control.rights().await.unwrap_err().chain().contains("super user"));

    // Suspended, it is refused at its own topic at once, and what stood there is gone; elsewhere from the next apply on.
    place.set_standing(A, "suspended").await;
    wait::until("it is withdrawn", 1, || async {
        let marks = ryggrad_log::watermarks(&place.connection(), &outlet, 0, 5_000).await.unwrap();
        (marks.low == marks.high).then_some(())
    })
    .await;
    refused(&place.as_member(&a, "read", &outlet, &group).await, &[denied]);
    refused(&place.as_member(&supplier, "read", &of_supplier, "923609016.own").await, &[denied]);
    let (code, out, _) = place.run(&["access", "plan"]);
    assert!(code == Some(5) && !out.contains("ut."), "{out}");
    place.apply();
    refused(&place.as_member(&a, "read", VIRKSOMHET, &group).await, &[denied]);

    // Back again, it gets what it had not read.
    place.set_standing(A, "active").await;
    wait::until("A reads its own topic again", 30, || async {
        let outcome = place.as_member(&a, "group", &outlet, &group).await;
        outcome["records"].as_u64().is_some_and(|records| records > 0).then_some(())
    })
    .await;
    place.apply();
}
