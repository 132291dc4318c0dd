//! HTTP/1.1 by hand over one persistent connection. Reads content-length and chunked bodies.

use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::client::{Pipe, within};

/// A received response.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|e| panic!("the body is no JSON: {e}, status {}: {:?}", self.status, self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The data of a successful response; checks status and code first.
    #[track_caller]
    pub fn data(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        let body = self.json();
        assert_eq!(body["code"], 200, "{}", self.body);
        body["data"].clone()
    }

    /// The status and message of an error; both codes must agree.
    #[track_caller]
    pub fn fault(&self) -> (u16, String) {
        let body = self.json();
        assert_eq!(body["code"], self.status, "{}", self.body);
        (self.status, body["message"].as_str().expect("the body has a message").to_owned())
    }
}

/// An HTTP client of the API.
pub struct Http {
    stream: BufReader<Pipe>,
    address: SocketAddr,
    /// Sent with each request.
    pub headers: Vec<(&'static str, String)>,
}

impl Http {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("the HTTP connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(Box::new(stream), address)
    }

    /// Creates a client over a socket that is already connected.
    pub fn over(pipe: Pipe, address: SocketAddr) -> Self {
        Self { stream: BufReader::new(pipe), address, headers: Vec::new() }
    }

    pub async fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[], b"").await
    }

    /// Posts JSON.
    pub async fn post(&mut self, path: &str, body: &Value) -> Response {
        self.request("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes()).await
    }

    pub async fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let what = format!("{method} {path}");
        let response = within(&what, self.attempt(method, path, headers, body)).await.expect("the node answers");
        if response.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close")) {
            *self = Self { headers: std::mem::take(&mut self.headers), ..Self::connect(self.address).await };
        }
        response
    }

    /// Sends a request to a node that may exit meanwhile: no time limit, and no reconnect when the connection ends.
    pub async fn attempt(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        let own = self.headers.iter().map(|(n, v)| (*n, v.as_str()));
        for (name, value) in own.chain(headers.iter().copied()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let request = [head.as_bytes(), body].concat();
        // The node may refuse and close the connection before it has read all of a large body.
        let _ = self.stream.get_mut().write_all(&request).await;
        let status_line = self.line().await?;
        let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.unwrap_or_else(|| panic!("expected a status line, got {status_line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: String::new() };
        let bytes = self.body(&response).await?;
        response.body = String::from_utf8(bytes).unwrap();
        Ok(response)
    }

    async fn body(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        if response.header("transfer-encoding").is_some() {
            return self.chunks().await;
        }
        let length = response.header("content-length").map_or(0, |v| v.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(self.line().await?.trim(), 16).unwrap();
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..]).await?;
            assert_eq!(self.line().await?, "");
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
