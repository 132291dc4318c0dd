//! A connection of the `redis` crate. It ends together with all other connections to its server.

use std::io;
use std::time::Duration;

use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value};
use futures_util::FutureExt;

use super::server::ConnectionToken;

/// One connection. Clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    inner: MultiplexedConnection,
    token: ConnectionToken,
}

impl Connection {
    pub(super) fn new(inner: MultiplexedConnection, token: ConnectionToken) -> Self {
        Self { inner, token }
    }

    /// True once all connections to the server have ended.
    pub(super) fn is_ended(&self) -> bool {
        self.token.is_ended()
    }

    /// Sets the time limit of each command.
    pub(super) fn set_response_timeout(&mut self, timeout: Duration) {
        self.inner.set_response_timeout(timeout);
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        async move {
            let Self { inner, token } = self;
            let answer = until_ended(&mut token.clone(), inner.req_packed_command(command)).await;
            match &answer {
                Ok(value) => check_value(token, value),
                Err(error) => check_error(token, error),
            }
            answer
        }
        .boxed()
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        async move {
            let Self { inner, token } = self;
            let answers = inner.req_packed_commands(pipeline, offset, count);
            let answers = until_ended(&mut token.clone(), answers).await;
            match &answers {
                Ok(values) => values.iter().for_each(|value| check_value(token, value)),
                Err(error) => check_error(token, error),
            }
            answers
        }
        .boxed()
    }

    fn get_db(&self) -> i64 {
        self.inner.get_db()
    }
}

async fn until_ended<T>(token: &mut ConnectionToken, answer: RedisFuture<'_, T>) -> RedisResult<T> {
    let closed = || io::Error::new(io::ErrorKind::ConnectionAborted, "all connections to the server were closed");
    tokio::select! {
        biased;
        answer = answer => answer,
        () = token.ended() => Err(closed().into()),
    }
}

fn check_value(token: &ConnectionToken, value: &Value) {
    if let Value::ServerError(error) = value {
        token.end_all_if_fatal(&format!("{} {}", error.code(), error.details().unwrap_or_default()));
    }
}

fn check_error(token: &ConnectionToken, error: &RedisError) {
    if let Some(code) = error.code() {
        token.end_all_if_fatal(&format!("{code} {}", error.detail().unwrap_or_default()));
    }
}
