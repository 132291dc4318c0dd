//! One request to a running node's push API.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::ConfigSource;
use super::dial::{Schemes, Trust};
use crate::config::{ApiKey, Config, Scope, Service};

/// The node that a command calls, and the API key.
#[derive(Debug, clap::Args)]
pub(super) struct NodeArgs {
    /// The node's push API [default: the first listener of the configuration that serves `api`].
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// API key [default: the first key of the configuration with the needed permission].
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    trust: Trust,
}

/// The push API of a node.
pub(super) struct Node {
    base: String,
    key: Option<String>,
    trust: Trust,
}

impl NodeArgs {
    /// Reads the configuration only if an option is missing. The key is the first one with all of `scopes`.
    ///
    /// # Errors
    /// The configuration has keys, but none with these scopes. The error names the missing ones.
    pub(super) fn node(self, source: &ConfigSource, scopes: &[Scope]) -> anyhow::Result<Node> {
        if let (Some(base), Some(_)) = (&self.url, &self.key) {
            return Ok(Node::new(base, self.key, self.trust));
        }
        let config = source.load()?.config;
        let base = match self.url {
            Some(url) => url,
            None => local_url(&config, Service::Api, SCHEMES)?,
        };
        let key = match self.key {
            Some(key) => Some(key),
            None => configured_key(&config.api.keys, scopes)?,
        };
        Ok(Node::new(&base, key, self.trust))
    }
}

fn configured_key(keys: &[ApiKey], scopes: &[Scope]) -> anyhow::Result<Option<String>> {
    let has_all = |key: &&ApiKey| scopes.iter().all(|scope| key.may(*scope));
    if keys.is_empty() {
        return Ok(None);
    }
    if let Some(key) = keys.iter().find(has_all) {
        return Ok(Some(key.key.clone()));
    }
    let names = |scopes: &[Scope]| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ");
    let found: Vec<String> = keys.iter().map(|key| format!("{:?} has {}", key.name, names(&key.scopes))).collect();
    bail!(
        "expected a key of api.keys with the scope {}, got none ({}): add the scope to a key, or name another key with --key",
        names(scopes),
        found.join("; ")
    );
}

impl Node {
    pub(super) fn new(base: &str, key: Option<String>, trust: Trust) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), key, trust }
    }

    /// Sends one request and returns the response body unchanged.
    pub(super) async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<String> {
        let uri: Uri = format!("{}{path}", self.base).parse()?;
        let authority =
            uri.authority().with_context(|| format!("expected a URL such as http://host:port, got {uri}"))?;
        let target = uri.path_and_query().context("expected a path")?.as_str();
        let stream = self.trust.dial(&uri, SCHEMES).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder().method(method).uri(target).header("host", authority.as_str());
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = request.body(Full::new(body)).context("the key has characters that a header cannot carry")?;
        // Drive the connection and the request together until the response has been read.
        let answer = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        tokio::pin!(connection);
        tokio::pin!(answer);
        let (status, body) = loop {
            tokio::select! {
                answer = &mut answer => break answer?,
                ended = &mut connection => ended.context("the node closed the connection before it answered")?,
            }
        };
        let value: Value = serde_json::from_slice(&body).with_context(|| {
            format!("expected JSON from the node, got {status} {:?}", String::from_utf8_lossy(&body))
        })?;
        if !status.is_success() {
            let message = value.get("message").and_then(Value::as_str).unwrap_or("no reason given");
            bail!("the node answered {}: {message}", status.as_u16());
        }
        Ok(String::from_utf8_lossy(&body).trim_end().to_owned())
    }
}

/// Schemes of the push API.
const SCHEMES: Schemes = ["http", "https"];

/// Returns the local address at which the configured node offers a service, preferring a listener without TLS.
pub(super) fn local_url(config: &Config, service: Service, [plain, secure]: Schemes) -> anyhow::Result<String> {
    let name = service.as_str();
    let serving = || config.listeners.iter().filter(|listener| listener.has(service));
    let Some(listener) = serving().find(|listener| listener.tls.is_none()).or_else(|| serving().next()) else {
        bail!("no listener serves {name}: name the node with --url");
    };
    let mut address = listener.address;
    if address.port() == 0 {
        bail!("the listener that serves {name} has port 0: name its address with --url");
    }
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let scheme = if listener.tls.is_some() { secure } else { plain };
    Ok(format!("{scheme}://{address}"))
}
