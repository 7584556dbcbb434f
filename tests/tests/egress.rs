//! Hostile endpoints, each with what must happen to it: refused when it is given, refused when it is
//! connected to, or called. Also that what is refused is never connected to, by no detour.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ryggrad_bridge::channel::fault;
use ryggrad_bridge::channel::guard::{Resolve, open_addresses};
use ryggrad_bridge::channel::webhook::{Attempt, Desk, Message, Target, TargetOptions, Webhook, WebhookOptions};
use ryggrad_bridge_core::egress::{EgressPolicy, Refusal, check_url};
use ryggrad_bridge_core::outcome::Answer;
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

type Ruling = Result<(), Refusal>;

use Refusal::{Fragment, HostName, NoUrl, Port, Range, Scheme, UserInfo};

/// An endpoint, and what must happen to it in production and in development.
const ENDPOINTS: &[(&str, Ruling, Ruling)] = &[
    // Called.
    ("https://mottak.example.org/hendelser?x=1", Ok(()), Ok(())),
    ("HTTPS://MOTTAK.EXAMPLE.ORG/", Ok(()), Ok(())),
    ("https://mottak.example.org:443/", Ok(()), Ok(())),
    ("https://sjøen.example.org/", Ok(()), Ok(())),
    ("https://93.184.215.14/", Ok(()), Ok(())),
    ("https://[2606:2800:21f::1]/", Ok(()), Ok(())),
    ("https://172.32.0.1/", Ok(()), Ok(())),
    ("https://100.128.0.1/", Ok(()), Ok(())),
    ("https://[::ffff:93.184.215.14]/", Ok(()), Ok(())),
    ("https://mottak.example.org/a@b", Ok(()), Ok(())),
    ("https://mottak.example.org:8443/", Err(Port), Ok(())),
    ("http://mottak.example.org/", Err(Scheme), Ok(())),
    // Not what it looks like.
    ("", Err(NoUrl), Err(NoUrl)),
    ("mottak.example.org/hendelser", Err(NoUrl), Err(NoUrl)),
    ("//mottak.example.org/", Err(NoUrl), Err(NoUrl)),
    ("https:mottak.example.org/", Err(NoUrl), Err(NoUrl)),
    ("https:/mottak.example.org/", Err(NoUrl), Err(NoUrl)),
    ("https:/mottak.example.org/x://y", Err(NoUrl), Err(NoUrl)),
    ("https:///mottak.example.org/", Err(NoUrl), Err(NoUrl)),
    ("https://", Err(NoUrl), Err(NoUrl)),
    ("https://:443/", Err(NoUrl), Err(NoUrl)),
    (" https://mottak.example.org/", Err(NoUrl), Err(NoUrl)),
    ("https://mottak.exa\tmple.org/", Err(NoUrl), Err(NoUrl)),
    ("https://mottak.example.org/\r\nhost: x", Err(NoUrl), Err(NoUrl)),
    ("https://mottak.example.org\\@127.0.0.1/", Err(NoUrl), Err(NoUrl)),
    ("https:\\\\127.0.0.1/", Err(NoUrl), Err(NoUrl)),
    ("https://mottak.example.org\u{a0}/", Err(NoUrl), Err(NoUrl)),
    ("https://mottak.example.org:99999/", Err(NoUrl), Err(NoUrl)),
    ("https://mottak.example.org/#x", Err(Fragment), Err(Fragment)),
    ("ftp://mottak.example.org/", Err(Scheme), Err(Scheme)),
    ("file:///etc/passwd", Err(NoUrl), Err(NoUrl)),
    ("gopher://127.0.0.1:6379/_x", Err(Scheme), Err(Scheme)),
    ("javascript://mottak.example.org/", Err(Scheme), Err(Scheme)),
    // User-info.
    ("https://user@mottak.example.org/", Err(UserInfo), Err(UserInfo)),
    ("https://user:secret@mottak.example.org/", Err(UserInfo), Err(UserInfo)),
    ("https://@mottak.example.org/", Err(UserInfo), Err(UserInfo)),
    ("https://:@mottak.example.org/", Err(UserInfo), Err(UserInfo)),
    ("https://mottak.example.org@127.0.0.1/", Err(UserInfo), Err(UserInfo)),
    ("https://127.0.0.1@evil.example/", Err(UserInfo), Err(UserInfo)),
    ("https://mottak.example.org:443@10.0.0.1/", Err(UserInfo), Err(UserInfo)),
    ("https://mottak.example.org%40127.0.0.1/", Err(NoUrl), Err(NoUrl)),
    // This machine.
    ("https://127.0.0.1/", Err(Range), Ok(())),
    ("https://127.0.0.1:8443/", Err(Range), Ok(())),
    ("https://127.255.255.254/", Err(Range), Ok(())),
    ("https://2130706433/", Err(Range), Ok(())),
    ("https://0x7f000001/", Err(Range), Ok(())),
    ("https://017700000001/", Err(Range), Ok(())),
    ("https://0177.0.0.1/", Err(Range), Ok(())),
    ("https://0x7f.0x0.0x0.0x1/", Err(Range), Ok(())),
    ("https://127.1/", Err(Range), Ok(())),
    ("https://127.0.1/", Err(Range), Ok(())),
    ("https://0x7f.1/", Err(Range), Ok(())),
    ("https://127.0.0.1./", Err(Range), Ok(())),
    ("https://%31%32%37.0.0.1/", Err(Range), Ok(())),
    ("https://①②⑦.⓪.⓪.①/", Err(Range), Ok(())),
    ("https://１２７.０.０.１/", Err(Range), Ok(())),
    ("https://127。0。0。1/", Err(Range), Ok(())),
    ("https://[::1]/", Err(Range), Ok(())),
    ("https://[0:0:0:0:0:0:0:1]/", Err(Range), Ok(())),
    ("https://[::ffff:127.0.0.1]/", Err(Range), Ok(())),
    ("https://[::ffff:7f00:1]/", Err(Range), Ok(())),
    ("https://[::127.0.0.1]/", Err(Range), Ok(())),
    ("https://0.0.0.0/", Err(Range), Err(Range)),
    ("https://0/", Err(Range), Err(Range)),
    ("https://[::]/", Err(Range), Err(Range)),
    ("https://[::1%25lo]/", Err(NoUrl), Err(NoUrl)),
    ("https://[fe80::1%25eth0]/", Err(NoUrl), Err(NoUrl)),
    ("https://256.256.256.256/", Err(NoUrl), Err(NoUrl)),
    ("https://127.0.0.1.1/", Err(NoUrl), Err(NoUrl)),
    ("https://0x100000001/", Err(NoUrl), Err(NoUrl)),
    // Names within a network.
    ("https://localhost/", Err(HostName), Ok(())),
    ("https://LOCALHOST/", Err(HostName), Ok(())),
    ("https://ｌｏｃａｌｈｏｓｔ/", Err(HostName), Ok(())),
    ("https://localhost./", Err(HostName), Err(HostName)),
    ("https://a.localhost/", Err(HostName), Ok(())),
    ("https://localhost:9092/", Err(HostName), Ok(())),
    ("https://kafka/", Err(HostName), Ok(())),
    ("https://printer.local/", Err(HostName), Ok(())),
    ("https://metadata.google.internal/", Err(HostName), Ok(())),
    ("https://router.home.arpa/", Err(HostName), Ok(())),
    ("https://mottak.example.org./", Err(HostName), Err(HostName)),
    ("https://mottak..example.org/", Err(HostName), Err(HostName)),
    // Private networks.
    ("https://10.1.2.3/", Err(Range), Ok(())),
    ("https://167772161/", Err(Range), Ok(())),
    ("https://172.16.0.1/", Err(Range), Ok(())),
    ("https://172.31.255.255/", Err(Range), Ok(())),
    ("https://192.168.0.1/", Err(Range), Ok(())),
    ("https://0300.0250.0.1/", Err(Range), Ok(())),
    ("https://[fd00::1]/", Err(Range), Ok(())),
    ("https://[fc00::1]/", Err(Range), Ok(())),
    ("https://[::ffff:10.0.0.1]/", Err(Range), Ok(())),
    ("https://100.64.0.1/", Err(Range), Err(Range)),
    // Metadata and link-local, in whatever dress.
    ("https://169.254.169.254/latest/meta-data", Err(Range), Err(Range)),
    ("http://169.254.169.254/latest/meta-data", Err(Scheme), Err(Range)),
    ("https://2852039166/", Err(Range), Err(Range)),
    ("https://0xa9fea9fe/", Err(Range), Err(Range)),
    ("https://0251.0376.0251.0376/", Err(Range), Err(Range)),
    ("https://169.254.43518/", Err(Range), Err(Range)),
    ("https://169.254.170.2/", Err(Range), Err(Range)),
    ("https://100.100.100.200/", Err(Range), Err(Range)),
    ("https://168.63.129.16/", Err(Range), Err(Range)),
    ("https://192.0.0.192/", Err(Range), Err(Range)),
    ("https://[fe80::1]/", Err(Range), Err(Range)),
    ("https://[fec0::1]/", Err(Range), Err(Range)),
    ("https://[fd00:ec2::254]/", Err(Range), Err(Range)),
    ("https://[fd20:ce::254]/", Err(Range), Err(Range)),
    ("https://[::ffff:169.254.169.254]/", Err(Range), Err(Range)),
    ("https://[::ffff:a9fe:a9fe]/", Err(Range), Err(Range)),
    ("https://[::a9fe:a9fe]/", Err(Range), Err(Range)),
    ("https://[::ffff:0:a9fe:a9fe]/", Err(Range), Err(Range)),
    ("https://[64:ff9b::a9fe:a9fe]/", Err(Range), Err(Range)),
    ("https://[64:ff9b::10.0.0.1]/", Err(Range), Err(Range)),
    ("https://[64:ff9b:1::a9fe:a9fe]/", Err(Range), Err(Range)),
    ("https://[64:ff9b:1:ffff::a00:1]/", Err(Range), Err(Range)),
    ("https://[2002:a9fe:a9fe::]/", Err(Range), Err(Range)),
    ("https://[2002:7f00:1::1]/", Err(Range), Err(Range)),
    ("https://[2001:0:1::1]/", Err(Range), Err(Range)),
    ("https://[2606:2800::5efe:a9fe:a9fe]/", Err(Range), Err(Range)),
    ("https://[2606:2800::200:5efe:7f00:1]/", Err(Range), Err(Range)),
    // Nobody's endpoint.
    ("https://192.0.2.1/", Err(Range), Err(Range)),
    ("https://198.51.100.1/", Err(Range), Err(Range)),
    ("https://203.0.113.1/", Err(Range), Err(Range)),
    ("https://198.19.255.255/", Err(Range), Err(Range)),
    ("https://192.88.99.1/", Err(Range), Err(Range)),
    ("https://224.0.0.1/", Err(Range), Err(Range)),
    ("https://240.0.0.1/", Err(Range), Err(Range)),
    ("https://255.255.255.255/", Err(Range), Err(Range)),
    ("https://[2001:db8::1]/", Err(Range), Err(Range)),
    ("https://[3fff::1]/", Err(Range), Err(Range)),
    ("https://[5f00::1]/", Err(Range), Err(Range)),
    ("https://[100::1]/", Err(Range), Err(Range)),
    ("https://[ff02::1]/", Err(Range), Err(Range)),
    ("https://[4000::1]/", Err(Range), Err(Range)),
];

/// What a harmless name resolves to, and whether it may be connected to, in production and in development.
const ADDRESSES: &[(&str, bool, bool)] = &[
    ("93.184.215.14", true, true),
    ("2606:2800:21f::1", true, true),
    ("::ffff:93.184.215.14", true, true),
    ("127.0.0.1", false, true),
    ("127.9.9.9", false, true),
    ("::1", false, true),
    ("::ffff:127.0.0.1", false, true),
    ("10.0.0.1", false, true),
    ("172.20.0.1", false, true),
    ("192.168.1.1", false, true),
    ("fd00::1", false, true),
    ("100.64.0.1", false, false),
    ("0.0.0.0", false, false),
    ("::", false, false),
    ("169.254.169.254", false, false),
    ("fe80::1", false, false),
    ("fd00:ec2::254", false, false),
    ("100.100.100.200", false, false),
    ("168.63.129.16", false, false),
    ("::ffff:169.254.169.254", false, false),
    ("::169.254.169.254", false, false),
    ("64:ff9b::169.254.169.254", false, false),
    ("64:ff9b:1::a00:1", false, false),
    ("2002:a9fe:a9fe::1", false, false),
    ("2001::1", false, false),
    ("224.0.0.1", false, false),
    ("255.255.255.255", false, false),
    ("203.0.113.1", false, false),
    ("2001:db8::1", false, false),
];

fn policy(development: bool) -> EgressPolicy {
    EgressPolicy { development, ..EgressPolicy::default() }
}

fn channel(development: bool, resolver: Option<Arc<dyn Resolve>>) -> Webhook {
    let options = WebhookOptions { policy: policy(development), attempt_timeout_ms: 5_000, resolver, ..WebhookOptions::default() };
    Webhook::new(options).unwrap()
}

fn resolver(answer: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Arc<dyn Resolve> {
    Arc::new(answer)
}

fn target(channel: &Webhook, sink: &str) -> Result<Target, Refusal> {
    let secrets = vec!["whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".parse().unwrap()];
    channel.target(TargetOptions { sink: sink.to_owned(), secrets, ..TargetOptions::default() })
}

async fn attempt(channel: &Webhook, target: &Target) -> Attempt {
    let message = Message { id: "msg_1", content_type: "application/json", headers: &[], body: b"{}" };
    channel.attempt(&mut Desk::default(), target, message).await
}

/// An endpoint that gives every request the same answer and closes. Counts connections.
async fn endpoint(answer: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, connections)
}

#[test]
fn every_endpoint_gets_its_ruling_when_it_is_given() {
    let refused = ENDPOINTS.iter().filter(|(_, production, _)| production.is_err()).count();
    assert!(refused >= 60, "{refused} hostile endpoints show little");
    let mut wrong = Vec::new();
    for (url, production, development) in ENDPOINTS {
        for (flag, expected) in [(false, production), (true, development)] {
            let ruling = check_url(url, &policy(flag)).map(|_| ());
            if ruling != *expected {
                wrong.push(format!("{url:?}, development {flag}: {ruling:?} instead of {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} endpoints, {refused} of them refused in production", ENDPOINTS.len());
}

#[tokio::test]
async fn what_is_refused_gets_no_target_and_its_addresses_are_shut_as_well() {
    let nothing = resolver(|_| Err(io::Error::other("nobody may be asked")));
    for development in [false, true] {
        let channel = channel(development, Some(Arc::clone(&nothing)));
        for (url, production, in_development) in ENDPOINTS {
            let expected = if development { in_development } else { production };
            assert_eq!(target(&channel, url).map(|_| ()), *expected, "{url}");
        }
    }
    for (address, production, in_development) in ADDRESSES {
        for (development, open) in [(false, *production), (true, *in_development)] {
            // As a literal, and as what a name resolves to.
            let found: IpAddr = address.parse().unwrap();
            let found = resolver(move |_| Ok(vec![found]));
            for host in ["mottak.example.org", address] {
                let expected = if open { Ok(vec![SocketAddr::new(address.parse().unwrap(), 443)]) } else { Err(fault::EGRESS_REFUSED) };
                let ruling = open_addresses(&*found, &policy(development), host, 443).await;
                assert_eq!(ruling, expected, "{address} as {host}, development {development}");
            }
            if !open {
                let channel = channel(development, Some(Arc::clone(&found)));
                let target = target(&channel, "https://mottak.example.org/").unwrap();
                let ended = attempt(&channel, &target).await;
                assert_eq!((ended.answer, ended.error), (Answer::NoAnswer, Some(fault::EGRESS_REFUSED)), "{address}");
            }
        }
    }
    let both = resolver(|_| Ok(["127.0.0.1", "93.184.215.14", "::1"].map(|address| address.parse().unwrap()).to_vec()));
    let open = open_addresses(&*both, &policy(false), "mottak.example.org", 443).await;
    assert_eq!(open, Ok(vec!["93.184.215.14:443".parse().unwrap()]), "only what is open of what a name has");
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_asked_about_before_every_connection() {
    // Public first, then this machine.
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let rebinding = resolver(move |_| {
        let address = if counter.fetch_add(1, Ordering::SeqCst) == 0 { "93.184.215.14" } else { "127.0.0.1" };
        Ok(vec![address.parse().unwrap()])
    });
    assert!(open_addresses(&*rebinding, &policy(false), "mottak.example.org", 443).await.is_ok());
    let channel_of_it = channel(false, Some(rebinding));
    let target_of_it = target(&channel_of_it, "https://mottak.example.org/").unwrap();
    assert_eq!(attempt(&channel_of_it, &target_of_it).await.error, Some(fault::EGRESS_REFUSED));

    // Open first and called, then metadata, then open again.
    let (address, connections) = endpoint("HTTP/1.1 204 x\r\nconnection: close\r\n\r\n".to_owned()).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let rebinding = resolver(move |_| {
        let address = if counter.fetch_add(1, Ordering::SeqCst) == 1 { "169.254.169.254" } else { "127.0.0.1" };
        Ok(vec![address.parse().unwrap()])
    });
    let channel = channel(true, Some(rebinding));
    let target = target(&channel, &format!("http://mottak.example.org:{}/", address.port())).unwrap();
    let ended = [attempt(&channel, &target).await, attempt(&channel, &target).await, attempt(&channel, &target).await];
    let errors = ended.map(|attempt| attempt.error);
    assert_eq!(errors, [None, Some(fault::EGRESS_REFUSED), None]);
    assert_eq!((asked.load(Ordering::SeqCst), connections.load(Ordering::SeqCst)), (3, 2));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_nothing_more() {
    let (elsewhere, knocks) = endpoint("HTTP/1.1 204 x\r\n\r\n".to_owned()).await;
    let channel = channel(true, None);
    for location in [format!("http://{elsewhere}/"), "http://169.254.169.254/latest/meta-data".to_owned(), "file:///etc/passwd".to_owned()]
    {
        for code in [301, 302, 303, 307, 308] {
            let (address, connections) = endpoint(format!("HTTP/1.1 {code} x\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")).await;
            let target = target(&channel, &format!("http://{address}/")).unwrap();
            let ended = attempt(&channel, &target).await;
            assert_eq!((ended.answer, ended.error), (Answer::Status { code, retry_after_ms: None }, None));
            assert_eq!(connections.load(Ordering::SeqCst), 1);
        }
    }
    assert_eq!(knocks.load(Ordering::SeqCst), 0, "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_refuses_the_same_endpoints_and_says_how_to_get_an_exception() {
    let scenario = Scenario::start().await;
    let mut bridge = scenario.strict_bridge(&[]);
    let subscriber = scenario.subscriber(ORGANISATION).await;
    let mut refused = 0;
    for (url, production, _) in ENDPOINTS {
        let Err(refusal) = production else { continue };
        let (status, body) = subscriber.post("/v1/subscriptions", json!({"types": ["no.ryggrad.*"], "sink": url, "start": "now"})).await;
        assert_eq!((status, &body["errors"][0]["pointer"]), (422, &json!("/sink")), "{url}: {body}");
        let detail = body["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.contains(&refusal.to_string()), "{url}: {detail}");
        if matches!(refusal, Range | Port | HostName) {
            assert!(detail.contains("bridge.egress_allow"), "{url}: {detail}");
        }
        refused += 1;
    }
    println!("{refused} endpoints refused by the API");
    assert_eq!(bridge.stop().await, Some(0));
}
