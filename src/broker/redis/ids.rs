//! Reserves blocks of ids in Redis: one hash with the bound of each node number, updated by a script.

use std::sync::Arc;

use ::redis::Script;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::client::Client;
use super::names::Names;
use crate::broker::Unavailable;
use crate::broker::ids::{BlockRequest, IdStore};

/// Id reservations of a cluster.
pub struct RedisIds {
    client: Arc<Client>,
    key: String,
    script: Script,
}

impl RedisIds {
    pub(super) fn new(client: Arc<Client>, names: &Names) -> Self {
        let script = Script::new(include_str!("ids.lua"));
        Self { client, key: names.roster("ids"), script }
    }
}

impl IdStore for RedisIds {
    fn reserve(&self, request: BlockRequest) -> BoxFuture<'_, Result<u64, Unavailable>> {
        async move {
            let BlockRequest { number, from, floor, count, is_start } = request;
            let mut script = self.script.prepare_invoke();
            script.key(&self.key).arg(number).arg(from).arg(floor).arg(count).arg(u8::from(is_start));
            self.client.invoke(&script).await
        }
        .boxed()
    }
}
