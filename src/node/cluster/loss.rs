//! Reports losses: messages for this node may not have arrived, so every live client is told.
//!
//! The report is an unsolicited REPLY with the key `gap`. Every SDK of the family passes on or drops replies with other
//! keys, and none closes its connection. The lost messages are unknown.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::clock;
use crate::code::Code;
use crate::hub::Hub;
use crate::message::Entries;
use crate::protocol::{self, Form, Reply, ServerFrame};
use crate::telemetry::names;

/// Key of the REPLY.
const KEY: &str = "gap";

/// Reports possible losses to the clients of this node.
pub(super) struct Losses {
    hub: Arc<Hub>,
    lost: Notify,
}

impl Losses {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, lost: Notify::new() }
    }

    /// Notes that messages for this node may be lost. Returns at once; several losses in a row are reported once.
    pub(super) fn note(&self) {
        metrics::counter!(names::LOSSES_DECLARED).increment(1);
        self.lost.notify_one();
    }

    /// Tells the clients about each loss. Never returns.
    pub(super) async fn report(&self) {
        loop {
            self.lost.notified().await;
            let clients = self.report_gap().await;
            tracing::warn!(clients, "messages may have been lost; clients notified");
        }
    }

    async fn report_gap(&self) -> usize {
        let frames: [Option<Bytes>; Form::COUNT] = Form::ALL.map(gap);
        let mut clients = 0;
        for connection in self.hub.connections() {
            let frame = connection.form().filter(|_| connection.binding().is_some()).map(Form::index);
            if let Some(frame) = frame.and_then(|form| frames[form].clone()) {
                clients += usize::from(connection.send(frame).await);
            }
        }
        clients
    }
}

fn gap(form: Form) -> Option<Bytes> {
    let reply = Reply {
        key: KEY.to_owned(),
        code: Code::new(206).to_string(),
        message: "messages may have been lost: request current data again".to_owned(),
        timestamp: clock::now_millis(),
        data: Entries::new(),
    };
    protocol::encode(form, ServerFrame::Reply(&reply)).ok()
}
