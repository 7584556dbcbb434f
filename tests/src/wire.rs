//! An endpoint whose answers are raw bytes, and that remembers which connection each request came on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What it does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Writes these bytes and waits for the next request.
    Say(String),
    /// Writes these bytes and closes.
    SayAndClose(String),
    /// Nothing, until the other side gives up.
    Hang,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Which connection, from 0.
    pub connection: usize,
    /// Request line and headers.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Asked {
    /// The header's value, if it is there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.head.lines().filter_map(|line| line.split_once(": ")).filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let (_, value) = found.next()?;
        found.next().is_none().then_some(value)
    }
}

/// The endpoint.
pub struct Wire {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Wire {
    /// An endpoint that replies to the `n`-th request on the `m`-th connection as `reply(m, n)` says.
    pub async fn start(reply: impl Fn(usize, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (asked, reply) = (Arc::new(Mutex::new(Vec::new())), Arc::new(reply));
        let noted = Arc::clone(&asked);
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let (noted, reply) = (Arc::clone(&noted), Arc::clone(&reply));
                tokio::spawn(async move {
                    for number in 0.. {
                        let Some((head, body)) = read_request(&mut stream).await else { return };
                        noted.lock().expect("no panic").push(Asked { connection, head, body });
                        match reply(connection, number) {
                            Reply::Say(bytes) => drop(stream.write_all(bytes.as_bytes()).await),
                            Reply::SayAndClose(bytes) => return drop(stream.write_all(bytes.as_bytes()).await),
                            Reply::Hang => drop(stream.read(&mut [0]).await),
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    /// The endpoint's address.
    pub fn sink(&self) -> String {
        format!("http://{}/hendelser", self.address)
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    /// The connection of each request.
    pub fn connections(&self) -> Vec<usize> {
        self.asked().iter().map(|asked| asked.connection).collect()
    }
}

/// One request with a body of declared length; none if the other side closes.
pub async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4_096]);
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).expect("a head in plain text");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |value| value.parse().expect("a number"));
    let mut body = bytes.split_off(head_end);
    while body.len() < length {
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        body.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(body.len(), length, "more than one request at a time");
    Some((head, body))
}
