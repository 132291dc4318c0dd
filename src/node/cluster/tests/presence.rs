//! Online and offline events: each is sent once in the whole cluster.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_user_that_moves_between_nodes_stays_online() {
    let mut several = Several::new(3).await;
    let first = several.connect(1, "1074", &[]).await;
    assert_eq!(several.events(), ["n1: online 1074"]);
    let second = several.connect(2, "1074", &[]).await;
    first.leave().await;
    let third = several.connect(3, "1074", &[]).await;
    second.leave().await;
    assert_eq!(several.events(), Vec::<String>::new());
    assert_eq!(several.shared.nodes_of(&uid("1074")), [id(3)]);
    third.leave().await;
    assert_eq!(several.events(), ["n3: offline 1074"]);
}

#[tokio::test(start_paused = true)]
async fn the_users_of_a_node_that_fell_are_told_offline_once_by_a_survivor() {
    let mut several = Several::new(3).await;
    several.connect(1, "alone", &["lobby"]).await;
    several.connect(1, "both", &[]).await;
    several.connect(2, "both", &[]).await;
    several.events();
    several.kill(1);
    several.pass(TTL + RENEWAL).await;
    let told: Vec<_> = several.events().into_iter().map(|event| event[4..].to_owned()).collect();
    assert_eq!(told, ["offline alone"]);
    several.pass(TTL).await;
    assert_eq!(several.events(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn user_reconnected_before_lease_expiry_causes_no_offline_event() {
    let mut several = Several::new(2).await;
    several.connect(1, "1074", &[]).await;
    several.events();
    several.kill(1);
    several.pass(Duration::from_secs(2)).await;
    several.connect(2, "1074", &[]).await;
    several.pass(TTL + RENEWAL).await;
    assert_eq!(several.events(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn offline_event_during_engine_outage_is_sent_after_it() {
    let mut several = Several::new(2).await;
    let client = several.connect(1, "1074", &[]).await;
    several.events();
    several.shared.cut(&id(1), true);
    client.leave().await;
    assert_eq!(several.events(), Vec::<String>::new());
    several.shared.cut(&id(1), false);
    several.pass(RENEWAL).await;
    assert_eq!(several.events(), ["n1: offline 1074"]);
}
