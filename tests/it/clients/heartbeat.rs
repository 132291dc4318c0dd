//! Heartbeats: the node sends PINGs, clients answer, and silent connections are closed.

use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::Message;

use crate::support::gateway::Setup;
use crate::support::wire::Form;

#[tokio::test]
async fn silent_client_is_closed_after_two_pings() {
    let gateway = Setup::default().yaml("heartbeat:\n  interval: 1s\n  max_missed: 2").start();
    for form in [Form::YunquePb, Form::YunqueJson, Form::CimTcp] {
        let mut silent = gateway.connect("silent", form).await;
        silent.polite = false;
        let start = Instant::now();
        silent.ping().await;
        silent.ping().await;
        assert!(start.elapsed() >= Duration::from_secs(1), "{form:?}: two PINGs arrived within a second");
        let closed = silent.closed().await;
        assert_eq!(closed, (form != Form::CimTcp).then(|| (4000, "heartbeat missed".to_owned())), "{form:?}");
    }
}

#[tokio::test]
async fn any_answer_keeps_a_client_and_the_websocket_ping_is_answered() {
    let gateway = Setup::default().yaml("heartbeat:\n  interval: 3s\n  max_missed: 1").start();
    let mut polite = gateway.connect("polite", Form::YunquePb).await;
    polite.polite = false;
    for _ in 0..3 {
        polite.ping().await;
        polite.raw(Message::binary(b"\0PON\0".to_vec())).await;
    }
    polite.raw(Message::Ping(b"are you there"[..].into())).await;
    polite.polite = true;
    assert_eq!(polite.drain().await.len(), 0);
}
