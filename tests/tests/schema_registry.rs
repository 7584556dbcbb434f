//! Schema registries: the bridge's own as stock clients call it, and the import into one beside it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use reqwest::Method;
use ryggrad_schemas::manifest;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::scenario::Scenario;
use ryggrad_tests::schema_registry::SchemaRegistry;
use ryggrad_tests::wait;
use serde_json::{Value, json};

const SUBJECT: &str = "grunndata.virksomhet.v1-value";

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_a_stock_client_has_its_answer() {
    let scenario = Scenario::start().await;
    let _bridge = scenario.bridge(&[]);
    let anyone = scenario.operator().await.with_token(None);
    let published = manifest::latest("virksomhet").unwrap();
    let id = published.id;
    let schema: Value = serde_json::from_str(published.text).unwrap();
    let with = |change: fn(&mut Value)| {
        let mut schema = schema.clone();
        change(&mut schema);
        json!({"schema": schema.to_string()})
    };
    let same = with(|_| {});
    let optional =
        with(|schema| schema["fields"].as_array_mut().unwrap().push(json!({"name": "ny", "type": ["null", "string"], "default": null})));
    let breaking = with(|schema| schema["fields"].as_array_mut().unwrap().push(json!({"name": "ny", "type": "string"})));
    let nonsense = json!({"schema": "{\"type\": \"nothing\"}"});

    // Who calls, the call, its body, and members of the answer (an error by its code).
    for (who, method, path, body, status, expected) in [
        (
            "Java, first",
            "GET",
            "/associations/resources/-/t?resourceType=topic&associationType=value".to_owned(),
            None,
            404,
            json!({"error_code": 404}),
        ),
        (
            "Java reads",
            "GET",
            format!("/schemas/ids/{id}?fetchMaxId=false&subject={SUBJECT}"),
            None,
            200,
            json!({"schema": published.text}),
        ),
        (
            "Java reads, older",
            "GET",
            format!("/schemas/ids/{id}?fetchMaxId=true"),
            None,
            200,
            json!({"maxId": manifest::all().iter().map(|known| known.id).max()}),
        ),
        ("Rust reads", "GET", format!("/schemas/ids/{id}?deleted=true"), None, 200, json!({"schema": published.text})),
        ("Java, an unknown id", "GET", "/schemas/ids/4711?fetchMaxId=false".to_owned(), None, 404, json!({"error_code": 40403})),
        (
            "all, the latest",
            "GET",
            format!("/subjects/{SUBJECT}/versions/latest"),
            None,
            200,
            json!({"id": id, "version": published.version, "subject": SUBJECT}),
        ),
        ("all, a version", "GET", format!("/subjects/{SUBJECT}/versions/{}", published.version), None, 200, json!({"id": id})),
        (
            "Java looks up",
            "POST",
            format!("/subjects/{SUBJECT}?normalize=false&deleted=true"),
            Some(&same),
            200,
            json!({"id": id, "version": published.version}),
        ),
        ("Python looks up", "POST", format!("/subjects/{SUBJECT}?normalize=False&deleted=False"), Some(&same), 200, json!({"id": id})),
        ("Rust looks up", "POST", format!("/subjects/{SUBJECT}?deleted=false"), Some(&same), 200, json!({"id": id})),
        (
            "Java looks up another",
            "POST",
            format!("/subjects/{SUBJECT}?normalize=false"),
            Some(&optional),
            404,
            json!({"error_code": 40403}),
        ),
        ("Java registers", "POST", format!("/subjects/{SUBJECT}/versions?normalize=false"), Some(&same), 200, json!({"id": id})),
        ("Java registers another", "POST", format!("/subjects/{SUBJECT}/versions"), Some(&optional), 422, json!({"error_code": 42205})),
        ("no body", "POST", format!("/subjects/{SUBJECT}/versions"), None, 422, json!({"error_code": 42201})),
        ("a subject with a slash", "GET", "/subjects/a%2Fb/versions/latest".to_owned(), None, 404, json!({"error_code": 40401})),
        (
            "fits",
            "POST",
            format!("/compatibility/subjects/{SUBJECT}/versions/latest?verbose=true"),
            Some(&optional),
            200,
            json!({"is_compatible": true}),
        ),
        ("fits all", "POST", format!("/compatibility/subjects/{SUBJECT}/versions"), Some(&same), 200, json!({"is_compatible": true})),
        ("breaks", "POST", format!("/compatibility/subjects/{SUBJECT}/versions"), Some(&breaking), 200, json!({"is_compatible": false})),
        ("no schema", "POST", format!("/compatibility/subjects/{SUBJECT}/versions"), Some(&nonsense), 422, json!({"error_code": 42201})),
        (
            "no such version",
            "POST",
            format!("/compatibility/subjects/{SUBJECT}/versions/99"),
            Some(&same),
            404,
            json!({"error_code": 40402}),
        ),
        ("level", "GET", "/config".to_owned(), None, 200, json!({"compatibilityLevel": "FULL_TRANSITIVE"})),
        ("a subject's level", "GET", format!("/config/{SUBJECT}"), None, 200, json!({"compatibilityLevel": "FULL_TRANSITIVE"})),
        ("nobody's level", "GET", "/config/none".to_owned(), None, 404, json!({"error_code": 40408})),
        (
            "nobody's level or the global",
            "GET",
            "/config/none?defaultToGlobal=true".to_owned(),
            None,
            200,
            json!({"compatibilityLevel": "FULL_TRANSITIVE"}),
        ),
        ("mode", "GET", "/mode".to_owned(), None, 200, json!({"mode": "READONLY"})),
        ("a subject's mode", "GET", format!("/mode/{SUBJECT}"), None, 200, json!({"mode": "READONLY"})),
        ("nobody's mode", "GET", "/mode/none".to_owned(), None, 404, json!({"error_code": 40409})),
        ("import", "PUT", format!("/mode/{SUBJECT}?force=true"), None, 404, json!({"error_code": 404})),
    ] {
        let headers = [
            ("accept", "application/vnd.schemaregistry.v1+json, application/vnd.schemaregistry+json, application/json"),
            ("content-type", "application/vnd.schemaregistry.v1+json"),
            ("confluent-accept-unknown-properties", "true"),
        ];
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = anyone.raw(method.parse::<Method>().unwrap(), &format!("/schema-registry{path}"), &headers, body).await;
        let found = answer.json();
        assert_eq!((answer.status, answer.header("content-type")), (status, "application/vnd.schemaregistry.v1+json"), "{who}: {answer:?}");
        for (name, expected) in expected.as_object().unwrap() {
            assert_eq!(&found[name], expected, "{who}: {name}");
        }
        assert_eq!(found["message"].is_string(), status >= 400, "{who}: {answer:?}");
    }
    for (path, expected) in
        [("/subjects", 1), ("/subjects?subjectPrefix=:*:", 1), ("/subjects?subjectPrefix=grunn", 1), ("/subjects?subjectPrefix=x", 0)]
    {
        let answer = anyone.get(&format!("/schema-registry{path}")).await.1;
        assert_eq!(answer.as_array().unwrap().iter().filter(|subject| **subject == SUBJECT).count(), expected, "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schemas_are_imported_with_their_ids_and_a_difference_stops_the_start() {
    let scenario = Scenario::start().await;
    let registry = SchemaRegistry::absent();
    let url = registry.url();
    let with_secret = url.replace("http://", "http://me:hemmelig@");
    let start = || scenario.bridge(&["--schema-registry", &with_secret]);
    let anyone = Caller::new(&scenario.bridge_url(), None);
    let published = manifest::by_id(1).unwrap();
    let kept = (u64::from(published.id), published.text.to_owned());

    // It is away, then unwell, then there.
    let mut bridge = start();
    let obstacle = wait::until("the bridge says what it waits for", 20, || async {
        let (status, body) = anyone.try_call(Method::GET, "/readyz", None).await?;
        (status == 503 && body["obstacle"].as_str()?.contains("schema registry")).then_some(body["obstacle"].clone())
    })
    .await;
    assert!(obstacle.as_str().unwrap().contains(&url) && !obstacle.to_string().contains("hemmelig"), "{obstacle}");
    registry.inner.lock().unwrap().unwell = 2;
    registry.start().await;
    anyone.ready().await;
    {
        let inner = registry.inner.lock().unwrap();
        assert_eq!(inner.versions[&(SUBJECT.to_owned(), u64::from(published.version))], kept);
        assert_eq!(inner.versions.len(), manifest::all().len());
        assert!(inner.modes.values().all(|mode| mode == "READWRITE"), "{:?}", inner.modes);
    }
    let writes = registry.writes();
    assert!(writes[0] == format!("PUT /mode/{SUBJECT}?force=true"), "{writes:?}");

    // The same ids: it starts and writes nothing, also where the registry has its own hand.
    assert_eq!(bridge.stop().await, Some(0));
    assert!(!bridge.said().contains("hemmelig"), "the password is in the log");
    let mut schema: Value = serde_json::from_str(published.text).unwrap();
    let name = format!("{}.{}", schema["namespace"].as_str().unwrap(), schema["name"].as_str().unwrap());
    let members = schema.as_object_mut().unwrap();
    members.remove("namespace");
    members.remove("doc");
    members.insert("name".to_owned(), json!(name));
    let at = (SUBJECT.to_owned(), u64::from(published.version));
    registry.inner.lock().unwrap().versions.insert(at.clone(), (kept.0, schema.to_string()));
    bridge = start();
    anyone.ready().await;
    assert_eq!(registry.writes(), writes);
    assert_eq!(bridge.stop().await, Some(0));

    // A start that was broken off left the subject open for imports.
    registry.inner.lock().unwrap().modes.insert(SUBJECT.to_owned(), "IMPORT".to_owned());
    bridge = start();
    anyone.ready().await;
    assert_eq!(registry.inner.lock().unwrap().modes[SUBJECT], "READWRITE");
    assert_eq!(bridge.stop().await, Some(0));

    // Differences: the start stops with a sentence that says where and what to do.
    let writes = registry.writes();
    let mut other = schema.clone();
    other["fields"][3]["default"] = json!("avstemming");
    let elsewhere = ("somebody.elses-value".to_owned(), 1);
    for (what, versions, sentence) in [
        (
            "another schema",
            vec![(at.clone(), (kept.0, other.to_string()))],
            format!("another schema as version 1 of {SUBJECT} than Ryggrad publishes: remove that version there"),
        ),
        (
            "another id",
            vec![(at.clone(), (77, kept.1.clone()))],
            format!("version 1 of {SUBJECT} under the id 77, and the events carry 1: remove that version there"),
        ),
        (
            "the id is taken",
            vec![(elsewhere, (kept.0, "\"string\"".to_owned()))],
            format!("the id 1 stands for another schema than version 1 of {SUBJECT}: free that id there"),
        ),
    ] {
        registry.inner.lock().unwrap().versions = versions.into_iter().collect();
        let mut refusing = start();
        assert_eq!(refusing.exit_code(20).await, Some(1), "{what}");
        let said = refusing.said();
        assert!(said.contains("cannot start with this schema registry: ") && said.contains(&sentence), "{what}: {said}");
        assert_eq!(registry.writes(), writes, "{what}: nothing is written");
        // The next one starts with its own log.
        std::fs::remove_file(scenario.folder.path().join("bridge.log")).unwrap();
    }

    // One without modes that counts for itself: good as long as it counts as we do.
    for (first, expected) in [(1, None), (40, Some("under the id 40 instead of 1: it must allow the mode IMPORT"))] {
        *registry.inner.lock().unwrap() = ryggrad_tests::schema_registry::Inner { counts_from: Some(first), ..Default::default() };
        let mut bridge = start();
        if let Some(expected) = expected {
            assert_eq!(bridge.exit_code(20).await, Some(1));
            assert!(bridge.said().contains(expected), "{}", bridge.said());
        } else {
            anyone.ready().await;
            assert_eq!(bridge.stop().await, Some(0));
        }
    }

    let mut wrong = scenario.bridge(&["--schema-registry", "registry:8081"]);
    assert_eq!(wrong.exit_code(20).await, Some(1));
    assert!(wrong.said().contains("schema_registry is no http or https address"), "{}", wrong.said());
}
