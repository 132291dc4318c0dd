//! Envelopes of every SendAct, with the recipients that each must reach. Every intake and API that takes envelopes uses
//! them.

use serde_json::{Value, json};

use super::client::Client;
use super::gateway::Gateway;
use super::token::Claims;
use super::wire::Form;

/// Three clients: user a on a phone and on a desktop, and user b. The first and the last are in the lobby.
pub struct Cast {
    pub clients: Vec<Client>,
    /// Connection id of the first client.
    pub cid: u64,
}

impl Cast {
    pub async fn on(gateway: &Gateway) -> Self {
        let (phone, bind) = gateway.connect_as(Claims::of("a").device("phone").rooms(&["lobby"]), Form::YunquePb).await;
        let (desk, _) = gateway.connect_as(Claims::of("a").device("desk"), Form::YunqueJson).await;
        let (other, _) = gateway.connect_as(Claims::of("b").rooms(&["lobby"]), Form::CimPb).await;
        let cid = bind["data"]["cid"].as_str().unwrap().parse().unwrap();
        Self { clients: vec![phone, desk, other], cid }
    }

    /// Counts the messages of each client before the one with the action `mark`, which every client receives.
    pub async fn counts_until(&mut self, mark: &str) -> [usize; 3] {
        let mut counts = [0; 3];
        for (client, count) in self.clients.iter_mut().zip(&mut counts) {
            while client.message().await["action"] != mark {
                *count += 1;
            }
        }
        counts
    }

    /// Returns each act, and the default, as an envelope with its number of messages for each client. The node is n1.
    pub fn acts(&self) -> Vec<(Value, [usize; 3])> {
        let cid = self.cid;
        let msg = json!([{"action": "chat", "content": {"text": "hi"}, "receiver": "b"}]);
        vec![
            (json!({"msg": msg}), [1, 1, 1]),
            (json!({"Uid": "a,gone", "msg": msg}), [1, 1, 0]),
            (json!({"act": 0, "Uid": "a", "Cid": 3, "msg": msg}), [1, 1, 1]),
            (json!({"act": 1, "Uid": "a,b", "Cid": 3, "msg": msg}), [1, 1, 1]),
            (json!({"act": 2, "Uid": "a", "type": 2, "msg": msg}), [1, 1, 0]),
            (json!({"act": 3, "Uid": "a", "device": "desk", "msg": msg}), [0, 1, 0]),
            (json!({"act": 4, "Cid": cid, "msg": msg}), [1, 0, 0]),
            (
                json!({"act": 5, "msg": [{"action": "chat", "receiver": "a"}, {"action": "chat", "receiver": "b"}]}),
                [1, 1, 1],
            ),
            (json!({"act": 6, "Uid": "a", "msg": msg}), [0, 0, 1]),
            (json!({"act": 7, "Uid": "lobby", "msg": msg}), [1, 0, 1]),
            (json!({"act": 2, "Uid": "a", "msg": [{"action": "x"}, {"action": "y"}]}), [2, 2, 0]),
            (json!({"act": 2, "Uid": "a", "Sid": "n1", "msg": msg}), [1, 1, 0]),
            (json!({"act": 2, "Uid": "a", "Sid": "nowhere", "msg": msg}), [0, 0, 0]),
        ]
    }
}
