//! The way to a Redis server: address, TLS, credentials, and the connection that short commands share.
//!
//! Knows no key. Records of the bus go by connections of their own ([`wire`](super::wire)).

use std::pin::Pin;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, ConnectionAddr, FromRedisValue, IntoConnectionInfo, Pipeline, RedisConnectionInfo,
    RedisError, ScriptInvocation,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::wire::Wire;
use crate::broker::Unavailable;
use crate::config::RedisConfig;
use crate::trust::Trust;

/// A connection is made, with TLS and credentials, or given up within so long.
const DIAL: Duration = Duration::from_secs(2);
/// A short command is answered within so long, or the connection is given up.
const ANSWER: Duration = Duration::from_secs(1);

/// Any byte stream to a server.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> ByteStream for T {}

/// Why a server cannot be named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bus.redis.url: expected redis://host:port or rediss://host:port, got {url:?}: {why}")]
pub struct UrlError {
    url: String,
    why: String,
}

/// One server, or what stands for it.
pub struct Client {
    host: String,
    port: u16,
    tls: Option<(Trust, ServerName<'static>)>,
    info: RedisConnectionInfo,
    shared: Mutex<Option<MultiplexedConnection>>,
}

impl Client {
    /// The server that `config` names. Connects to nothing.
    ///
    /// # Errors
    /// [`UrlError`]: no host can be read from the url.
    pub fn new(config: &RedisConfig) -> Result<Self, UrlError> {
        let fault = |why: String| UrlError { url: config.url.clone(), why };
        let named = config.url.as_str().into_connection_info().map_err(|error| fault(error.to_string()))?;
        let (host, port, is_tls) = match named.addr() {
            ConnectionAddr::Tcp(host, port) => (host.clone(), *port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port, true),
            _ => return Err(fault("no such way to a server".to_owned())),
        };
        let tls = match is_tls {
            true => {
                let name = ServerName::try_from(host.clone()).map_err(|error| fault(error.to_string()))?;
                Some((Trust::new(config.ca.clone(), "bus.redis.ca"), name))
            }
            false => None,
        };
        let mut info = RedisConnectionInfo::default().set_skip_set_lib_name().set_db(named.redis_settings().db());
        if !config.user.is_empty() {
            info = info.set_username(&config.user);
        }
        if !config.password.is_empty() {
            info = info.set_password(&config.password);
        }
        Ok(Self { host, port, tls, info, shared: Mutex::new(None) })
    }

    /// `host:port`, for logs and faults.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The number of the database.
    pub(super) fn database(&self) -> i64 {
        self.info.db()
    }

    /// A connection of its own that speaks the crate's commands, for what blocks. Ends with its last clone.
    pub(super) async fn connection(&self) -> Result<MultiplexedConnection, Unavailable> {
        let connect = async {
            let stream = self.dial().await?;
            let (connection, driver) =
                MultiplexedConnection::new_with_config(&self.info, stream, AsyncConnectionConfig::new())
                    .await
                    .map_err(|error| self.says(&error))?;
            // Ends by itself with the connection or its last clone.
            tokio::spawn(driver);
            Ok(connection)
        };
        timeout(DIAL, connect).await.unwrap_or_else(|_| Err(self.is_silent(DIAL)))
    }

    /// A connection for records.
    pub(super) async fn wire(&self) -> Result<Wire, Unavailable> {
        let connect = async {
            let mut wire = Wire::new(self.dial().await?);
            for command in self.greeting() {
                let words: Vec<&[u8]> = command.iter().map(String::as_bytes).collect();
                wire.ask(&words).await.map_err(|why| self.away(why))?;
            }
            Ok(wire)
        };
        timeout(DIAL, connect).await.unwrap_or_else(|_| Err(self.is_silent(DIAL)))
    }

    /// Runs a pipeline on the shared connection.
    pub(super) async fn run<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, Unavailable> {
        let mut connection = self.shared().await?;
        self.judged(timeout(ANSWER, pipeline.query_async(&mut connection)).await).await
    }

    /// Runs a script on the shared connection.
    pub(super) async fn invoke<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Unavailable> {
        let mut connection = self.shared().await?;
        self.judged(timeout(ANSWER, script.invoke_async(&mut connection)).await).await
    }

    /// Why the server is of no use, in its own words.
    pub(super) fn says(&self, error: &RedisError) -> Unavailable {
        self.away(error)
    }

    async fn shared(&self) -> Result<MultiplexedConnection, Unavailable> {
        let mut shared = self.shared.lock().await;
        if let Some(connection) = &*shared {
            return Ok(connection.clone());
        }
        Ok(shared.insert(self.connection().await?).clone())
    }

    /// A connection that broke or was silent is not used again.
    async fn judged<T, E>(&self, answer: Result<Result<T, RedisError>, E>) -> Result<T, Unavailable> {
        let unavailable = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if !error.is_unrecoverable_error() && !error.is_io_error() => return Err(self.says(&error)),
            Ok(Err(error)) => self.says(&error),
            Err(_) => self.is_silent(ANSWER),
        };
        *self.shared.lock().await = None;
        Err(unavailable)
    }

    async fn dial(&self) -> Result<Pin<Box<dyn ByteStream>>, Unavailable> {
        let broke = |error: std::io::Error| self.away(error);
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(broke)?;
        tcp.set_nodelay(true).map_err(broke)?;
        let Some((trust, name)) = &self.tls else { return Ok(Box::pin(tcp)) };
        let connector = TlsConnector::from(trust.config().await.map_err(|why| self.away(why))?);
        Ok(Box::pin(connector.connect(name.clone(), tcp).await.map_err(broke)?))
    }

    fn greeting(&self) -> Vec<Vec<String>> {
        let mut commands = Vec::new();
        if let Some(password) = self.info.password() {
            let user = self.info.username().unwrap_or("default");
            commands.push(["AUTH", user, password].map(str::to_owned).to_vec());
        }
        if self.info.db() != 0 {
            commands.push(vec!["SELECT".to_owned(), self.info.db().to_string()]);
        }
        commands
    }

    fn is_silent(&self, after: Duration) -> Unavailable {
        self.away(format_args!("no answer in {after:?}"))
    }

    /// Why the server is of no use.
    pub(super) fn away(&self, why: impl std::fmt::Display) -> Unavailable {
        Unavailable { engine: "redis", why: format!("{}: {why}", self.address()) }
    }
}
