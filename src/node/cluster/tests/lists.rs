//! Lists over several nodes: each user once, in order, for every page size and distribution of users.

use std::collections::BTreeSet;

use super::*;
use crate::node::Filter;
use crate::node::cluster::list::PageStart;
use crate::protocol::Form;

/// Seven users on three nodes, some of them on two. Every second one is in the lobby.
async fn crowd() -> (Several, Vec<TestClient>) {
    let mut several = Several::new(3).await;
    let mut clients = Vec::new();
    for (who, numbers) in
        [("a", &[1, 2][..]), ("b", &[3]), ("c", &[2, 3]), ("d", &[1]), ("e", &[2]), ("f", &[3, 1]), ("g", &[3])]
    {
        let rooms: &[&str] = if matches!(who, "a" | "c" | "e" | "g") { &["lobby", who] } else { &["attic"] };
        for number in numbers {
            clients.push(several.connect(*number, who, rooms).await);
        }
    }
    (several, clients)
}

#[tokio::test(start_paused = true)]
async fn connections_of_all_nodes_are_one_list_by_page_and_by_cursor() {
    let (several, clients) = crowd().await;
    let mut all: Vec<u64> = clients.iter().map(|client| client.connection.id().as_u64()).collect();
    all.sort_unstable();
    for asked in 1..=3 {
        let node = several.node(asked);
        for size in [1, 2, 3, 100] {
            let (mut by_page, mut by_cursor) = (Vec::new(), Vec::new());
            for page in 0..=all.len() / size {
                let found = node.list_connections(&Filter::default(), PageStart::Skip(page * size), size).await;
                assert_eq!((found.counts.connections, found.missing.len()), (10, 0));
                by_page.extend(found.rows.iter().map(|seen| seen.cid.as_u64()));
            }
            let mut after = 0;
            loop {
                let found = node.list_connections(&Filter::default(), PageStart::After(after), size).await;
                assert!(found.rows.len() <= size);
                by_cursor.extend(found.rows.iter().map(|seen| seen.cid.as_u64()));
                let Some(next) = found.next else { break };
                after = next.as_u64();
            }
            assert_eq!((&by_page, &by_cursor), (&all, &all), "n{asked}, {size} at a time");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_on_several_nodes_is_listed_once_with_all_its_devices() {
    let (several, _clients) = crowd().await;
    for asked in 1..=3 {
        for size in [1, 2, 100] {
            let (mut seen, mut after) = (Vec::new(), 0);
            loop {
                let found = several.node(asked).list_users(&Filter::default(), PageStart::After(after), size).await;
                seen.extend(found.rows.into_iter().map(|user| (user.uid.to_string(), user.connections)));
                let Some(next) = found.next else { break };
                after = next.as_u64();
            }
            let once: BTreeSet<_> = seen.iter().cloned().collect();
            assert_eq!(once.len(), seen.len(), "n{asked}, {size} at a time: {seen:?}");
            let all = [("a", 2), ("b", 1), ("c", 2), ("d", 1), ("e", 1), ("f", 2), ("g", 1)];
            assert_eq!(once, all.map(|(who, n)| (who.to_owned(), n)).into());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn list_filter_applies_on_every_node() {
    let (several, _clients) = crowd().await;
    let lobby = Filter { room: Some(room("lobby")), ..Filter::default() };
    let found = several.node(1).list_connections(&lobby, PageStart::Skip(0), 100).await;
    assert_eq!((found.counts.connections, found.rows.len()), (6, 6));
    assert!(found.rows.iter().all(|seen| seen.rooms.contains(&room("lobby"))));
    let one = Filter { uid: Some(uid("c")), ..Filter::default() };
    let found = several.node(1).list_users(&one, PageStart::Skip(0), 100).await;
    assert_eq!((found.rows.len(), found.rows[0].connections), (1, 2));
    let facts = &found.rows[0].devices[1];
    assert_eq!(
        (facts.binding.channel.as_deref(), facts.form.map(Form::as_str)),
        (Some("android"), Some("yunque.json"))
    );
}

#[tokio::test(start_paused = true)]
async fn rooms_of_all_nodes_are_summed() {
    let (several, _clients) = crowd().await;
    let expected = [("a", 2), ("attic", 4), ("c", 2), ("e", 1), ("g", 1), ("lobby", 6)];
    for size in [1, 4, 100] {
        let (mut by_page, mut by_cursor) = (Vec::new(), Vec::new());
        for page in 0..=expected.len() / size {
            let found = several.node(2).list_rooms(PageStart::Skip(page * size), size).await;
            assert_eq!(found.counts, 6, "exact, as one answer of each node holds all");
            by_page.extend(found.rows);
        }
        let mut place = PageStart::Skip(0);
        loop {
            let found = several.node(2).list_rooms(place, size).await;
            by_cursor.extend(found.rows);
            let Some(next) = found.next else { break };
            place = PageStart::After(next);
        }
        let all: Vec<_> = expected.iter().map(|(name, n)| (room(name), *n)).collect();
        assert_eq!((&by_page, &by_cursor), (&all, &all), "{size} at a time");
    }
}

#[tokio::test(start_paused = true)]
async fn members_of_a_room_come_in_pages_to_plugins() {
    let (several, _clients) = crowd().await;
    let all = ["a", "c", "e", "g"];
    for asked in 1..=3 {
        for (offset, limit) in [(0, 100), (0, 4), (0, 3), (1, 2), (3, 1), (3, 9), (4, 1), (0, 0)] {
            let found = several.node(asked).cluster.lists.members_of(&room("lobby"), offset, limit).await;
            let expected: Vec<_> = all.iter().skip(offset).take(limit).map(|who| uid(who)).collect();
            assert_eq!(found, expected, "n{asked}, {limit} from {offset}");
        }
    }
    assert!(several.node(1).cluster.lists.members_of(&room("nowhere"), 0, 10).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn list_names_a_node_that_does_not_answer() {
    let (several, _clients) = crowd().await;
    several.shared.deafen(&id(2));
    let found = several.node(1).list_connections(&Filter::default(), PageStart::Skip(0), 100).await;
    assert_eq!((found.rows.len(), found.missing), (7, vec![id(2)]));
    several.kill(2);
    several.pass(TTL + RENEWAL).await;
    let found = several.node(1).list_connections(&Filter::default(), PageStart::Skip(0), 100).await;
    assert_eq!((found.rows.len(), found.missing), (7, vec![]), "its entries vanish with its lease");
    assert_eq!(several.node(1).members().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn list_over_the_size_of_a_reply_comes_in_parts() {
    let mut several = Several::new(2).await;
    let mut clients = Vec::new();
    let rooms: Vec<String> = (0..90).map(|n| format!("{n:0>100}")).collect();
    let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
    for user in 0..60 {
        clients.push(several.connect(2, &format!("u{user:02}"), &rooms).await);
    }
    let found = several.node(1).list_connections(&Filter::default(), PageStart::Skip(0), 100).await;
    assert_eq!((found.rows.len(), found.next, found.missing.len()), (60, None, 0));
    let users = several.node(1).list_users(&Filter::default(), PageStart::Skip(0), 100).await;
    assert_eq!(users.rows.len(), 60);
}
