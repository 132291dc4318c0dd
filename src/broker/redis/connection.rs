//! A connection of the `redis` crate. It ends together with all other connections to its server.

use std::io;
use std::time::Duration;

use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value};
use futures_util::FutureExt;

use super::server::Tether;

/// One connection. Clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    inner: MultiplexedConnection,
    tether: Tether,
}

impl Connection {
    pub(super) fn new(inner: MultiplexedConnection, tether: Tether) -> Self {
        Self { inner, tether }
    }

    /// True once all connections to the server have ended.
    pub(super) fn is_ended(&self) -> bool {
        self.tether.is_ended()
    }

    /// Sets the time limit of each command.
    pub(super) fn set_response_timeout(&mut self, timeout: Duration) {
        self.inner.set_response_timeout(timeout);
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        async move {
            let Self { inner, tether } = self;
            let answer = until_ended(&mut tether.clone(), inner.req_packed_command(command)).await;
            match &answer {
                Ok(value) => judge(tether, value),
                Err(error) => judge_error(tether, error),
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
            let Self { inner, tether } = self;
            let answers = inner.req_packed_commands(pipeline, offset, count);
            let answers = until_ended(&mut tether.clone(), answers).await;
            match &answers {
                Ok(values) => values.iter().for_each(|value| judge(tether, value)),
                Err(error) => judge_error(tether, error),
            }
            answers
        }
        .boxed()
    }

    fn get_db(&self) -> i64 {
        self.inner.get_db()
    }
}

async fn until_ended<T>(tether: &mut Tether, answer: RedisFuture<'_, T>) -> RedisResult<T> {
    let closed = || io::Error::new(io::ErrorKind::ConnectionAborted, "all connections to the server were closed");
    tokio::select! {
        biased;
        answer = answer => answer,
        () = tether.ended() => Err(closed().into()),
    }
}

fn judge(tether: &Tether, value: &Value) {
    if let Value::ServerError(error) = value {
        tether.judge(&format!("{} {}", error.code(), error.details().unwrap_or_default()));
    }
}

fn judge_error(tether: &Tether, error: &RedisError) {
    if let Some(code) = error.code() {
        tether.judge(&format!("{code} {}", error.detail().unwrap_or_default()));
    }
}
