//! Endpoints that misbehave below HTTP's manners: that hang, never end, or talk nonsense.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a rude endpoint does with each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// Takes the request and never answers.
    Hangs,
    /// 200 and a body without end, as fast as it is taken.
    Endless,
    /// 200 and a body without end, a byte at a time.
    Trickles,
    /// 200 and a body of ten gigabytes.
    Huge,
    /// 200, promises a body, and hangs up in the middle.
    CutsOff,
    /// Header lines without end, as fast as they are taken.
    EndlessHead,
    /// No HTTP at all.
    Nonsense,
}

/// A rude endpoint.
pub struct Rude {
    sink: String,
    requests: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
}

impl Rude {
    /// Starts it on a free port.
    pub async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let sink = format!("http://{}/hendelser", listener.local_addr().expect("an address"));
        let (requests, written) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (asked, wrote) = (Arc::clone(&requests), Arc::clone(&written));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asked, wrote) = (Arc::clone(&asked), Arc::clone(&wrote));
                tokio::spawn(async move { serve(stream, manners, &asked, &wrote).await });
            }
        });
        Self { sink, requests, written }
    }

    /// Its endpoint.
    pub fn sink(&self) -> &str {
        &self.sink
    }

    /// Requests that came in whole.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Bytes of answers that were taken.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, manners: Manners, asked: &AtomicU64, written: &AtomicU64) -> Option<()> {
    read_request(&mut stream).await?;
    asked.fetch_add(1, Ordering::SeqCst);
    let (head, body, pause): (&str, Vec<u8>, Option<Duration>) = match manners {
        Manners::Hangs => {
            // Until the other side gives up.
            let _ = stream.read(&mut [0; 1]).await;
            return None;
        }
        Manners::Endless => ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk(64 * 1024), None),
        Manners::Trickles => ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk(1), Some(Duration::from_millis(50))),
        Manners::Huge => ("HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n", vec![b'x'; 64 * 1024], None),
        Manners::CutsOff => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnot all").await;
            return None;
        }
        Manners::EndlessHead => ("HTTP/1.1 200 OK\r\n", b"x-more: 0123456789012345678901234567890123456789\r\n".repeat(1_000), None),
        Manners::Nonsense => ("no such protocol\r\n\r\n", b"\0\xff\0\xff".to_vec(), None),
    };
    stream.write_all(head.as_bytes()).await.ok()?;
    loop {
        stream.write_all(&body).await.ok()?;
        written.fetch_add(body.len() as u64, Ordering::SeqCst);
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}

fn chunk(bytes: usize) -> Vec<u8> {
    [format!("{bytes:x}\r\n").as_bytes(), &vec![b'x'; bytes], b"\r\n"].concat()
}

/// Reads a request with a `content-length`, whole.
async fn read_request(stream: &mut TcpStream) -> Option<()> {
    let (mut request, mut buffer) = (Vec::new(), [0; 8 * 1024]);
    loop {
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok())?;
        if request.len() >= head.len() + 4 + length {
            return Some(());
        }
    }
}
