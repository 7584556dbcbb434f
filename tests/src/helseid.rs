//! A stand-in for HelseID: a real OpenID provider, set up as HelseID describes itself, with keys that the test
//! holds too: what the provider would never issue, the test signs in its place.
//!
//! Signing here is the test's own; it shares no code with what verifies.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Client;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::foreign;
use crate::process::{Process, free_port};

/// The API's name at the issuer.
pub const AUDIENCE: &str = "nhn:hendelser";
/// Algorithms that tokens and proofs may be signed with.
pub const ALGORITHMS: [&str; 8] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"];
/// What the issuer's claims about organisations begin with.
pub const CLAIMS: &str = "helseid://claims/client/claims/";

/// Now, in seconds.
pub fn now_s() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()).expect("for a while")
}

/// A key pair.
#[derive(Clone)]
pub struct KeyPair {
    /// The public half.
    pub jwk: Value,
    private: Value,
    pkcs8: Vec<u8>,
}

/// The key pairs of one party, by their kinds.
#[derive(Clone)]
pub struct Keys(Value);

impl Keys {
    /// Fresh keys of the issuer, its next ones, the client's and a thief's.
    pub async fn make() -> [Self; 4] {
        let said = foreign::node("play_helseid.cjs", &["keys"], String::new()).await;
        ["issuer", "next", "client", "thief"].map(|who| Self(said[0][who].clone()))
    }

    /// The pair for an algorithm.
    pub fn pair(&self, alg: &str) -> KeyPair {
        let kind = match alg {
            "ES256" => "P-256",
            "ES384" => "P-384",
            _ => "RSA",
        };
        let pair = &self.0[kind];
        let pkcs8 = URL_SAFE_NO_PAD.decode(pair["pkcs8"].as_str().expect("a key")).expect("base64url");
        KeyPair { jwk: pair["public"].clone(), private: pair["private"].clone(), pkcs8 }
    }
}

impl Keys {
    /// The public half of the pair for an algorithm, as a client registers it: by the name of its kind.
    pub fn registered(&self, alg: &str) -> Value {
        let mut jwk = self.pair(alg).jwk;
        let kind = jwk["crv"].as_str().or(jwk["kty"].as_str()).expect("a kind");
        jwk["kid"] = json!(format!("klient-{kind}"));
        jwk
    }
}

impl KeyPair {
    /// The private half as a JWK, named.
    pub fn private_jwk(&self, kid: &str) -> String {
        let mut jwk = self.private.clone();
        jwk["kid"] = json!(kid);
        jwk.to_string()
    }

    /// The private half in PKCS #8, as PEM.
    pub fn private_pem(&self) -> String {
        let text = STANDARD.encode(&self.pkcs8);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64")).collect();
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
    }

    /// The thumbprint of RFC 7638.
    pub fn thumbprint(&self) -> String {
        let members = ["crv", "e", "kty", "n", "x", "y"].into_iter().filter(|name| self.jwk.get(name).is_some());
        let members: Vec<String> = members.map(|name| format!("\"{name}\":{}", self.jwk[name])).collect();
        sha256(&format!("{{{}}}", members.join(",")))
    }

    /// A compact JWS, by the algorithm that the key is used with, whatever the header says.
    pub fn sign(&self, alg: &str, header: &Value, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload));
        let random = SystemRandom::new();
        let curve = |curve| {
            let pair = EcdsaKeyPair::from_pkcs8(curve, &self.pkcs8, &random).expect("a key on the curve");
            pair.sign(&random, signed.as_bytes()).expect("a signature").as_ref().to_vec()
        };
        let rsa = |padding| {
            let pair = RsaKeyPair::from_pkcs8(&self.pkcs8).expect("an RSA key");
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(padding, &random, signed.as_bytes(), &mut signature).expect("a signature");
            signature
        };
        let signature = match alg {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "RS384" => rsa(&RSA_PKCS1_SHA384),
            "RS512" => rsa(&RSA_PKCS1_SHA512),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "PS384" => rsa(&RSA_PSS_SHA384),
            "PS512" => rsa(&RSA_PSS_SHA512),
            "ES384" => curve(&ECDSA_P384_SHA384_FIXED_SIGNING),
            _ => curve(&ECDSA_P256_SHA256_FIXED_SIGNING),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// SHA-256 in base64url.
pub fn sha256(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

/// Header and claims of a proof that is good.
pub fn proof(pair: &KeyPair, alg: &str, method: &str, address: &str, token: Option<&str>) -> (Value, Value) {
    let header = json!({"typ": "dpop+jwt", "alg": alg, "jwk": pair.jwk});
    let mut claims = json!({"jti": Uuid::new_v4(), "htm": method, "htu": address, "iat": now_s()});
    if let Some(token) = token {
        claims["ath"] = json!(sha256(token));
    }
    (header, claims)
}

/// The provider, running.
pub struct HelseId {
    process: Option<Process>,
    folder: TempDir,
    port: u16,
    client: Keys,
    scopes: Vec<String>,
    ttl_s: u32,
}

impl HelseId {
    /// A provider with these keys, known to it by the names of their algorithms with something behind.
    pub async fn start(issuer: &Keys, client: &Keys) -> Self {
        Self::start_with(issuer, client, 600).await
    }

    /// The same with tokens of another length.
    pub async fn start_with(issuer: &Keys, client: &Keys, ttl_s: u32) -> Self {
        let scopes = ["subscribe", "publish", "operate", "audit"].map(|role| format!("{AUDIENCE}/{role}")).to_vec();
        let folder = tempfile::tempdir().expect("a folder");
        let mut helseid = Self { process: None, folder, port: free_port(), client: client.clone(), scopes, ttl_s };
        helseid.run(issuer, "1").await;
        helseid
    }

    /// Starts again at the same address, with other keys.
    pub async fn run(&mut self, issuer: &Keys, generation: &str) {
        self.stop();
        let key = |alg: &&str| {
            let mut jwk = issuer.pair(alg).private;
            jwk["kid"] = json!(format!("{alg}-{generation}"));
            jwk["alg"] = json!(alg);
            jwk["use"] = json!("sig");
            jwk
        };
        let client = ["ES256", "ES384", "RS256"].map(|alg| self.client.registered(alg));
        let settings = json!({
            "audience": AUDIENCE, "scopes": self.scopes, "algorithms": ALGORITHMS, "keys": ALGORITHMS.iter().map(key).collect::<Vec<_>>(),
            "client": client, "ttl_s": self.ttl_s,
        });
        self.process = Some(foreign::serve("play_helseid.cjs", self.folder.path(), self.port, &settings).await);
    }

    /// Ends it, as an outage does.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Its name.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many tokens it has given.
    pub fn granted(&self) -> usize {
        self.said().lines().filter(|line| *line == "granted").count()
    }

    /// What it has said, for who wonders.
    pub fn said(&self) -> String {
        self.process.as_ref().map(Process::said).unwrap_or_default()
    }

    /// A token bound to a key, for a client whose tokens are signed by one algorithm, for a parent and perhaps a
    /// child. The first attempt is refused for want of a nonce, as HelseID does.
    pub async fn token(&self, token_alg: &str, key: &KeyPair, scope: &str, organisation: &str) -> String {
        let (http, address): (Client, String) = (crate::upstream::client(), format!("{}/connect/token", self.issuer()));
        let client_id = format!("klient-{token_alg}");
        let mut nonce = None;
        for _ in 0..2 {
            let identifier = json!({"system": "urn:oid:1.0.6523", "type": "ENH", "value": format!("NO:ORGNR:{organisation}")});
            let now_s = now_s();
            let assertion = json!({
                "iss": client_id, "sub": client_id, "aud": self.issuer(), "iat": now_s, "nbf": now_s, "exp": now_s + 30, "jti": Uuid::new_v4(),
                "assertion_details": {
                    "type": "helseid_authorization", "practitioner_role": {"organization": {"identifier": identifier}},
                },
            });
            let header = json!({"alg": "ES256", "typ": "client-authentication+jwt"});
            let assertion = self.client.pair("ES256").sign("ES256", &header, &assertion.to_string());
            let (header, mut claims) = proof(key, "ES256", "POST", &address, None);
            if let Some(nonce) = &nonce {
                claims["nonce"] = json!(nonce);
            }
            let form = [
                ("grant_type", "client_credentials"),
                ("client_id", &client_id),
                ("scope", scope),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", &assertion),
            ];
            let form = form.map(|(name, value)| format!("{name}={}", escaped(value))).join("&");
            let request = http.post(&address).header("dpop", key.sign("ES256", &header, &claims.to_string()));
            let answer = request.header("content-type", "application/x-www-form-urlencoded").body(form).send().await.expect("an answer");
            let asked = answer.headers().get("dpop-nonce").map(|nonce| nonce.to_str().expect("a nonce").to_owned());
            let (status, text) = (answer.status().as_u16(), answer.text().await.expect("a body"));
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            if let Some(token) = body["access_token"].as_str() {
                assert!(nonce.is_some(), "the first attempt has no nonce");
                return token.to_owned();
            }
            assert!(nonce.is_none() && asked.is_some(), "{status} {text}\n{}", self.said());
            nonce = asked;
        }
        panic!("no token\n{}", self.said())
    }
}

fn escaped(value: &str) -> String {
    value
        .bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}
