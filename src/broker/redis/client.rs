//! Client of a Redis server: address, TLS, credentials, and the connection shared by short commands.
//!
//! Independent of keys. The bus has dedicated connections for its records ([`wire`](super::wire)).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, ScriptInvocation,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::server::{ConnectionToken, Server};
use super::wire::Wire;
use crate::broker::Unavailable;
use crate::config::{Credential, RedisConfig};
use crate::trust::Trust;

/// Time limit for a new connection, including TLS and login.
const DIAL: Duration = Duration::from_secs(2);
/// Time limit of a short command. A connection that exceeds it is dropped.
const ANSWER: Duration = Duration::from_secs(1);

/// A byte stream to a server.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> ByteStream for T {}

/// Reason why a server address is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bus.redis.url: expected redis://host:port or rediss://host:port, got {url:?}: {why}")]
pub struct UrlError {
    url: String,
    why: String,
}

/// Client of one server address.
pub struct Client {
    host: String,
    port: u16,
    tls: Option<(Trust, ServerName<'static>)>,
    database: i64,
    login: parking_lot::Mutex<Login>,
    server: Arc<Server>,
    shared: Mutex<Option<Connection>>,
}

/// Credentials of new connections.
#[derive(Clone)]
struct Login {
    /// Empty = the default user.
    user: String,
    password: Credential,
    /// Password of the last read. Used while the file cannot be read.
    last: String,
}

impl Login {
    fn new(config: &RedisConfig) -> Self {
        let RedisConfig { user, password, .. } = config.clone();
        Self { user, last: password.text().to_owned(), password }
    }
}

impl Client {
    /// Creates a client for the server in `config`. Does not connect.
    ///
    /// # Errors
    /// [`UrlError`]: the url contains no valid host.
    pub fn new(config: &RedisConfig) -> Result<Self, UrlError> {
        let fault = |why: String| UrlError { url: config.url.clone(), why };
        let named = config.url.as_str().into_connection_info().map_err(|error| fault(error.to_string()))?;
        let (host, port, is_tls) = match named.addr() {
            ConnectionAddr::Tcp(host, port) => (host.clone(), *port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port, true),
            _ => return Err(fault("the scheme is not supported".to_owned())),
        };
        let tls = match is_tls {
            true => {
                let name = ServerName::try_from(host.clone()).map_err(|error| fault(error.to_string()))?;
                Some((Trust::new(config.ca.clone(), "bus.redis.ca"), name))
            }
            false => None,
        };
        let server = Arc::new(Server::new(format!("{host}:{port}")));
        let (database, login) = (named.redis_settings().db(), parking_lot::Mutex::new(Login::new(config)));
        Ok(Self { host, port, tls, database, login, server, shared: Mutex::new(None) })
    }

    /// Uses the user and password of `config` for new connections. Existing connections stay, because Redis keeps a
    /// connection that has logged in.
    pub fn set_login(&self, config: &RedisConfig) {
        *self.login.lock() = Login::new(config);
    }

    /// Server behind the address.
    pub(super) fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server)
    }

    /// Moves the client to `server`. Its connections then end together with all others to that server.
    pub(super) fn with_server(self, server: Arc<Server>) -> Self {
        Self { server, ..self }
    }

    /// Address `host:port`, for logs and faults.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Number of the database.
    pub(super) fn database(&self) -> i64 {
        self.database
    }

    /// Opens a dedicated connection of the `redis` crate, for blocking commands. It closes with its last clone.
    pub(super) async fn connection(&self) -> Result<Connection, Unavailable> {
        let token = self.register()?;
        let info = self.info().await;
        let connect = async {
            let stream = self.dial().await?;
            let connected = MultiplexedConnection::new_with_config(&info, stream, AsyncConnectionConfig::new()).await;
            let (connection, driver) = connected.map_err(|error| {
                // The crate does not report the error code of a refused login.
                if error.kind() == ErrorKind::AuthenticationFailed {
                    token.end_all(&format!("WRONGPASS {error}"));
                }
                self.unavailable(&error)
            })?;
            // The task ends with the connection or its last clone.
            tokio::spawn(driver);
            Ok(Connection::new(connection, token.clone()))
        };
        timeout(DIAL, connect).await.unwrap_or_else(|_| Err(self.timed_out(DIAL)))
    }

    /// Opens a connection for records.
    pub(super) async fn wire(&self) -> Result<Wire, Unavailable> {
        let token = self.register()?;
        let info = self.info().await;
        let connect = async {
            let mut wire = Wire::new(self.dial().await?, token);
            for command in login_commands(&info) {
                let arguments: Vec<&[u8]> = command.iter().map(String::as_bytes).collect();
                wire.request(&arguments).await.map_err(|why| self.unavailable(why))?;
            }
            Ok(wire)
        };
        timeout(DIAL, connect).await.unwrap_or_else(|_| Err(self.timed_out(DIAL)))
    }

    /// Runs a pipeline on the shared connection.
    pub(super) async fn run<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, Unavailable> {
        let mut connection = self.shared().await?;
        self.check_answer(timeout(ANSWER, pipeline.query_async(&mut connection)).await).await
    }

    /// Runs a script on the shared connection.
    pub(super) async fn invoke<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Unavailable> {
        let mut connection = self.shared().await?;
        self.check_answer(timeout(ANSWER, script.invoke_async(&mut connection)).await).await
    }

    async fn shared(&self) -> Result<Connection, Unavailable> {
        let mut shared = self.shared.lock().await;
        if let Some(connection) = shared.as_ref().filter(|connection| !connection.is_ended()) {
            return Ok(connection.clone());
        }
        *shared = None;
        Ok(shared.insert(self.connection().await?).clone())
    }

    fn register(&self) -> Result<ConnectionToken, Unavailable> {
        self.server.register().map_err(|why| self.unavailable(why))
    }

    /// Database and credentials of a new connection. Reads a password file again each time.
    async fn info(&self) -> RedisConnectionInfo {
        let Login { user, password, last } = self.login.lock().clone();
        let file = password.file().map(std::path::Path::to_path_buf);
        let secret = match file {
            None => last,
            Some(_) => match tokio::task::spawn_blocking(move || password.read()).await {
                Ok(Ok(secret)) => {
                    secret.clone_into(&mut self.login.lock().last);
                    secret
                }
                Ok(Err(error)) => {
                    let server = self.address();
                    tracing::warn!(server, %error, "redis password cannot be read; the last one stays in use");
                    last
                }
                // The runtime is shutting down.
                Err(_) => last,
            },
        };
        let mut info = RedisConnectionInfo::default().set_skip_set_lib_name().set_db(self.database);
        if !user.is_empty() {
            info = info.set_username(&user);
        }
        if !secret.is_empty() {
            info = info.set_password(&secret);
        }
        info
    }

    /// Converts an answer of the shared connection. Drops the connection if it broke or timed out.
    async fn check_answer<T, E>(&self, answer: Result<Result<T, RedisError>, E>) -> Result<T, Unavailable> {
        let fault = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if !error.is_unrecoverable_error() && !error.is_io_error() => {
                return Err(self.unavailable(&error));
            }
            Ok(Err(error)) => self.unavailable(&error),
            Err(_) => self.timed_out(ANSWER),
        };
        *self.shared.lock().await = None;
        Err(fault)
    }

    async fn dial(&self) -> Result<Pin<Box<dyn ByteStream>>, Unavailable> {
        let failed = |error: std::io::Error| self.unavailable(error);
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let Some((trust, name)) = &self.tls else { return Ok(Box::pin(tcp)) };
        let connector = TlsConnector::from(trust.config().await.map_err(|why| self.unavailable(why))?);
        Ok(Box::pin(connector.connect(name.clone(), tcp).await.map_err(failed)?))
    }

    fn timed_out(&self, after: Duration) -> Unavailable {
        self.unavailable(format_args!("no answer in {after:?}"))
    }

    /// Describes a fault of the server.
    pub(super) fn unavailable(&self, why: impl std::fmt::Display) -> Unavailable {
        Unavailable { engine: "redis", why: format!("{}: {why}", self.address()) }
    }
}

/// First commands of a connection for records.
fn login_commands(info: &RedisConnectionInfo) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    if let Some(password) = info.password() {
        let user = info.username().unwrap_or("default");
        commands.push(["AUTH", user, password].map(str::to_owned).to_vec());
    }
    if info.db() != 0 {
        commands.push(vec!["SELECT".to_owned(), info.db().to_string()]);
    }
    commands
}
