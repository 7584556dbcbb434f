//! Calls to the bridge's API, as a subscriber or an operator makes them.

use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use ryggrad_log::Connection;
use serde_json::{Value, json};

use crate::wait;

/// A caller with a token, or without.
#[derive(Clone)]
pub struct Caller {
    client: Client,
    base: String,
    token: Option<String>,
    kafka: Option<Connection>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Raw {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub text: String,
}

impl Raw {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// Status and body; the body is null where it is no JSON.
pub type Reply = (u16, Value);

impl Caller {
    /// A caller.
    pub fn new(base: &str, token: Option<&str>) -> Self {
        Self { client: crate::upstream::client(), base: base.to_owned(), token: token.map(str::to_owned), kafka: None }
    }

    /// The same beside a broker, where a receiver reads a topic of its own.
    pub fn at_kafka(self, kafka: Connection) -> Self {
        Self { kafka: Some(kafka), ..self }
    }

    /// That broker.
    pub fn kafka(&self) -> &Connection {
        self.kafka.as_ref().expect("a caller of a scenario")
    }

    /// The same bridge with another token.
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// Where the bridge is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// What it shows at the door.
    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// Asks for server-sent events; none if the bridge can't be reached.
    pub async fn stream(&self, path: &str) -> Option<reqwest::Response> {
        let request = self.client.get(format!("{}{path}", self.base)).header("accept", "text/event-stream");
        let request = self.token.iter().fold(request, |request, token| request.bearer_auth(token));
        request.send().await.ok()
    }

    /// One call. Panics where the bridge can't be reached.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.try_call(method, path, body).await.expect("the bridge answers")
    }

    /// One call, or none if the bridge can't be reached.
    pub async fn try_call(&self, method: Method, path: &str, body: Option<Value>) -> Option<Reply> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    /// One call and all of its answer, or none if the bridge can't be reached.
    pub async fn try_raw(&self, method: Method, path: &str, body: Option<Value>) -> Option<Raw> {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = self.token.iter().fold(request, |request, token| request.bearer_auth(token));
        let request = body.into_iter().fold(request, |request, body| request.body(body.to_string()));
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Some(Raw { status, headers, text: response.text().await.ok()? })
    }

    /// One call with these headers beside the token's, and all of its answer, or none if the bridge can't be reached.
    pub async fn try_with(&self, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Option<Raw> {
        let request = self.client.request(method, format!("{}{path}", self.base)).body(body);
        let request = self.token.iter().fold(request, |request, token| request.bearer_auth(token));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Some(Raw { status, headers, text: response.text().await.ok()? })
    }

    /// One call with these headers and this body, whatever they are, and all of its answer.
    pub async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Raw {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.body(body.into()).send().await.expect("the bridge answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Raw { status, headers, text: response.text().await.expect("a body") }
    }

    /// POST of a body that may be no JSON. A refusal must be problem+json.
    pub async fn call_text(&self, path: &str, body: &str) -> Reply {
        let authorization = format!("Bearer {}", self.token.as_deref().unwrap_or_default());
        let answer = self.raw(Method::POST, path, &[("authorization", &authorization)], body).await;
        assert!(answer.status < 400 || answer.header("content-type") == "application/problem+json", "{answer:?}");
        (answer.status, answer.json())
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, None).await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, Some(body)).await
    }

    /// PATCH.
    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.call(Method::PATCH, path, Some(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path, None).await
    }

    /// Waits until the bridge is ready.
    pub async fn ready(&self) {
        wait::until("the bridge is ready", 60, || async {
            self.try_call(Method::GET, "/readyz", None).await.filter(|(status, _)| *status == 200)
        })
        .await;
    }

    /// A token for an organisation; the caller must be the operator.
    pub async fn issue_token(&self, organisation: &str) -> String {
        let (status, body) = self.post("/v1/tokens", json!({"organisation": organisation})).await;
        assert_eq!(status, 201, "{body}");
        body["token"].as_str().expect("a token").to_owned()
    }

    /// Subscribes to all types; id and secret.
    pub async fn subscribe(&self, sink: &str, start: &str) -> (String, String) {
        let (status, body) = self.post("/v1/subscriptions", json!({"types": ["no.ryggrad.*"], "sink": sink, "start": start})).await;
        assert_eq!(status, 201, "{body}");
        (body["id"].as_str().expect("an id").to_owned(), body["secret"].as_str().expect("a secret").to_owned())
    }

    /// What is known of an endpoint's agreement, once it has been asked.
    pub async fn agreement(&self, id: &str) -> Value {
        wait::until("the endpoint is asked", 20, || async {
            let (_, shown) = self.get(&format!("/v1/subscriptions/{id}")).await;
            (shown["verification"]["state"] != "pending").then(|| shown["verification"].clone())
        })
        .await
    }

    /// The status of a subscription; nothing if the bridge can't be reached.
    pub async fn status(&self, id: &str) -> Option<Value> {
        let (status, body) = self.try_call(Method::GET, &format!("/v1/subscriptions/{id}"), None).await?;
        (status == 200).then(|| body["status"].clone())
    }
}
