//! Measures three figures of a running node: memory per idle connection, and pushes of one HTTP producer, singly and in
//! lists.
//!
//! ```sh
//! cargo build --release --package skylark --package figures
//! target/release/skylark serve --env dev & target/release/figures --pid $! --connections 5000 --secret SECRET
//! ```
//! The client shares no code with the node. Every push is counted at its receiver before the next figure.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};

const ADDRESS: &str = "127.0.0.1:8080";
const LIST: usize = 100;

fn main() -> Result<()> {
    let pid: u32 = argument("--pid").context("--pid PID of the node is needed")?.parse()?;
    let connections: usize = argument("--connections").map_or(Ok(5_000), |n| n.parse())?;
    let pushes: usize = argument("--pushes").map_or(Ok(50_000), |n| n.parse())?;
    let secret = argument("--secret").context("--secret of the token-auth plugin is needed")?;

    let before = anonymous_kib(pid)?;
    let mut clients = (0..connections).map(|i| connect(i, &secret)).collect::<Result<Vec<_>>>()?;
    let after = anonymous_kib(pid)?;
    println!(
        "idle: {connections} connections, {} bytes of user-space memory each",
        (after - before) * 1024 / connections as u64
    );

    let mut http = TcpStream::connect(ADDRESS)?;
    http.set_nodelay(true)?;
    let mut answers = BufReader::new(http.try_clone()?);
    let started = Instant::now();
    for i in 0..pushes {
        post(&mut http, "/send", &message(i % connections, i))?;
        answer(&mut answers)?;
    }
    report("one by one", pushes, started);
    expect(&mut clients, pushes)?;

    let started = Instant::now();
    for start in (0..pushes).step_by(LIST) {
        let list: Vec<String> = (start..start + LIST).map(|i| message(i % connections, i)).collect();
        post(&mut http, "/send/sendList", &format!("[{}]", list.join(",")))?;
        answer(&mut answers)?;
    }
    report("in lists of 100", pushes, started);
    expect(&mut clients, pushes)?;
    Ok(())
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|a| a != name).nth(1)
}

fn report(what: &str, pushes: usize, started: Instant) {
    println!("pushes {what}: {:.0} a second", pushes as f64 / started.elapsed().as_secs_f64());
}

fn message(user: usize, i: usize) -> String {
    format!(r#"{{"receiver":"figure-{user}","sender":"figures","action":"chat","content":{{"text":"number {i}"}}}}"#)
}

fn post(http: &mut TcpStream, path: &str, body: &str) -> Result<()> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {ADDRESS}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    http.write_all((head + body).as_bytes()).context("post")
}

fn answer(answers: &mut BufReader<TcpStream>) -> Result<()> {
    let (mut line, mut length, mut status) = (String::new(), 0, String::new());
    loop {
        line.clear();
        answers.read_line(&mut line)?;
        if status.is_empty() {
            status.clone_from(&line);
        }
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    answers.read_exact(&mut body)?;
    ensure!(status.contains(" 200 "), "{status}{}", String::from_utf8_lossy(&body));
    Ok(())
}

fn connect(i: usize, secret: &str) -> Result<BufReader<TcpStream>> {
    let token = token(&format!("figure-{i}"), secret)?;
    // Some thousand connections from one address would exceed its limit, so they use many loopback addresses.
    let mut stream = TcpStream::connect(ADDRESS)?;
    write!(
        stream,
        "GET /ws?token={token}&dialect=yunque.pb HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let mut reader = BufReader::with_capacity(512, stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.contains(" 101 ") {
        bail!("upgrade refused: {line}");
    }
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    let bound = frame(&mut reader)?;
    ensure!(bound.first() == Some(&4), "expected the bind reply, got {bound:?}");
    Ok(reader)
}

/// The payload of one unmasked WebSocket frame.
fn frame(reader: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut head = [0; 2];
    reader.read_exact(&mut head)?;
    let length = match head[1] {
        126 => {
            let mut long = [0; 2];
            reader.read_exact(&mut long)?;
            usize::from(u16::from_be_bytes(long))
        }
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload)?;
    Ok(payload)
}

/// Each client reads exactly its share of MESSAGE frames (type 2) and skips PINGs (type 1).
fn expect(clients: &mut [BufReader<TcpStream>], pushes: usize) -> Result<()> {
    let n = clients.len();
    for (i, client) in clients.iter_mut().enumerate() {
        for _ in 0..pushes / n + usize::from(i < pushes % n) {
            while frame(client)?.first() != Some(&2) {}
        }
    }
    println!("  all received");
    Ok(())
}

fn token(uid: &str, secret: &str) -> Result<String> {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!(
        "{}.{}",
        part(r#"{"alg":"HS256","typ":"JWT"}"#),
        part(&format!(r#"{{"sub":"{uid}","exp":4102444800,"rooms":["r1","r2"]}}"#))
    );
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).context("hmac key")?;
    mac.update(signed.as_bytes());
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
}

fn anonymous_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).context("no RssAnon")?;
    line.split_whitespace().nth(1).context("no figure")?.parse().context("RssAnon")
}
