//! The clients of a drill. Each device is a task that connects, reads, moves to another node on request, reconnects,
//! and returns a [`Stay`] for each connection.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Book, Clock, End, Moment, Stay, Stream, parse_id, text_of, uid};
use crate::support::client::PATIENCE;
use crate::support::gateway::cluster::{Cluster, State};
use crate::support::token::Claims;
use crate::support::wire::{Form, Frame, read_binary, read_text};

/// A connect attempt that is not bound within this time is abandoned.
const CONNECT: Duration = Duration::from_secs(5);
/// Time between two attempts of one device.
const RETRY: Duration = Duration::from_millis(100);
/// Closing markers count as lost after this time without a message. A killed member's partition waits for the member's
/// session timeout (10 s). It also waits for that of a second member if the group was rebalancing then.
const SILENCE: Duration = Duration::from_secs(60);
/// Devices use these in turn.
pub const FORMS: &[Form] = &[Form::YunquePb, Form::YunqueJson, Form::CimPb, Form::CimJson];

/// The users, devices and rooms of a drill.
#[derive(Clone)]
pub struct Guests {
    pub users: u32,
    pub devices: u32,
    /// Number of rooms; user u is in room u modulo this number. 0 = none.
    pub rooms: u32,
    pub forms: &'static [Form],
    /// Addresses to dial in place of the node itself, by node index.
    pub detours: HashMap<usize, SocketAddr>,
}

/// The last message of each stream from each publisher, with its start time.
type Markers = HashMap<Stream, Vec<(u64, Moment)>>;

/// The instruction to a device.
#[derive(Clone)]
struct Order {
    place: usize,
    markers: Option<Arc<Markers>>,
}

pub struct Crowd {
    devices: Vec<watch::Sender<Order>>,
    tasks: JoinSet<Vec<Stay>>,
    cluster: Arc<Cluster>,
    /// Number of bound connections on each node.
    bound: watch::Receiver<Vec<usize>>,
}

impl Crowd {
    /// Connects every device, spread over all nodes, and waits until each is bound.
    pub async fn gather(guests: &Guests, cluster: &Arc<Cluster>, clock: Clock) -> Self {
        let bound = watch::Sender::new(vec![0; cluster.len()]);
        let (mut devices, mut tasks) = (Vec::new(), JoinSet::new());
        let dials = Arc::new(tokio::sync::Semaphore::new(64));
        for user in 0..guests.users {
            for device in 0..guests.devices {
                let number = devices.len();
                let order = watch::Sender::new(Order { place: number % cluster.len(), markers: None });
                let client = Device {
                    user,
                    device,
                    rooms: (guests.rooms > 0).then(|| user % guests.rooms).into_iter().collect(),
                    form: guests.forms[number % guests.forms.len()],
                    clock,
                    cluster: Arc::clone(cluster),
                    detours: guests.detours.clone(),
                    bound: bound.clone(),
                    dials: Arc::clone(&dials),
                };
                tasks.spawn(client.live(order.subscribe()));
                devices.push(order);
            }
        }
        let mut crowd = Self { devices, tasks, cluster: Arc::clone(cluster), bound: bound.subscribe() };
        crowd.all_bound().await;
        crowd
    }

    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Number of connections that are bound to this node now.
    pub fn bound_at(&self, place: usize) -> usize {
        self.bound.borrow()[place]
    }

    /// Waits until every device is bound to a node that is not down, for as long as there is progress.
    pub async fn all_bound(&mut self) {
        let all = self.devices.len();
        loop {
            let bound = self.bound.borrow_and_update().clone();
            let is_gone = |place: usize| self.cluster.state(place) != State::Down || bound[place] == 0;
            if bound.iter().sum::<usize>() == all && (0..bound.len()).all(is_gone) {
                return;
            }
            assert!(
                timeout(PATIENCE, self.bound.changed()).await.is_ok(),
                "expected {all} bound devices, got {bound:?}"
            );
        }
    }

    /// Moves a device from its node to the one at `place`.
    pub fn send_to(&self, device: usize, place: usize) {
        self.devices[device].send_modify(|order| order.place = place);
    }

    /// Waits until every device has received the markers of these books, and closes the connections.
    pub async fn close(mut self, books: &[Book]) -> Vec<Stay> {
        let mut markers = Markers::new();
        for book in books {
            for id in &book.markers {
                let (_, index) = parse_id(*id).expect("the id belongs to a book");
                let entry = &book.entries[index];
                markers.entry(entry.stream).or_default().push((*id, entry.begun));
            }
        }
        let markers = Arc::new(markers);
        for device in &self.devices {
            device.send_modify(|order| order.markers = Some(Arc::clone(&markers)));
        }
        let mut stays = Vec::new();
        while let Some(device) = self.tasks.join_next().await {
            stays.extend(device.unwrap());
        }
        stays
    }
}

/// One device of one user.
struct Device {
    user: u32,
    device: u32,
    rooms: Vec<u32>,
    form: Form,
    clock: Clock,
    cluster: Arc<Cluster>,
    detours: HashMap<usize, SocketAddr>,
    bound: watch::Sender<Vec<usize>>,
    /// Limits the concurrent connects of all devices.
    dials: Arc<tokio::sync::Semaphore>,
}

type Socket = WebSocketStream<TcpStream>;

impl Device {
    async fn live(self, mut orders: watch::Receiver<Order>) -> Vec<Stay> {
        let mut stays = Vec::new();
        let mut retry = interval(RETRY);
        let mut turned_away = 0;
        loop {
            let order = orders.borrow_and_update().clone();
            let place = self.cluster.up_from(order.place + turned_away);
            let Some((mut socket, bound)) = self.dial(place).await else {
                turned_away += 1;
                if order.markers.is_some() && turned_away > 50 {
                    return stays;
                }
                retry.tick().await;
                continue;
            };
            turned_away = 0;
            self.bound.send_modify(|bound| bound[place] += 1);
            let mut stay = self.stay(place, bound);
            self.listen(&mut socket, &mut stay, order.place, &mut orders).await;
            self.bound.send_modify(|bound| bound[place] -= 1);
            let is_over = matches!(stay.end, End::Marked | End::Unmarked);
            stays.push(stay);
            if is_over {
                return stays;
            }
        }
    }

    fn stay(&self, place: usize, bound: Moment) -> Stay {
        Stay {
            user: self.user,
            device: self.device,
            rooms: self.rooms.clone(),
            place,
            bound,
            heard: Vec::new(),
            gaps: Vec::new(),
            end: End::Unmarked,
            faults: Vec::new(),
        }
    }

    /// Returns a bound connection and the time of its bind; `None` if the node accepts none now.
    async fn dial(&self, place: usize) -> Option<(Socket, Moment)> {
        let _turn = self.dials.acquire().await.ok()?;
        let address = match self.detours.get(&place) {
            Some(detour) => *detour,
            None => self.cluster.node(place).address("ws"),
        };
        let rooms: Vec<String> = self.rooms.iter().map(|room| super::room(*room)).collect();
        let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let claims = Claims::of(&uid(self.user)).device(&format!("d{}", self.device)).rooms(&rooms);
        let token = claims.mint();
        let attempt = async {
            let tcp = TcpStream::connect(address).await.ok()?;
            let mut request = format!("ws://{address}/ws?token={token}").into_client_request().unwrap();
            let subprotocol = HeaderValue::from_static(self.form.subprotocol());
            request.headers_mut().insert("sec-websocket-protocol", subprotocol);
            // Thousands of connections, each with its own buffer.
            let config = WebSocketConfig::default().read_buffer_size(4096);
            let (mut socket, _) = tokio_tungstenite::client_async_with_config(request, tcp, Some(config)).await.ok()?;
            loop {
                match self.hear(&mut socket).await {
                    Ok(Frame::Reply(reply)) if reply["key"] == "client_bind" && reply["code"] == "200" => break,
                    Ok(Frame::Ping) => {}
                    _ => return None,
                }
            }
            Some((socket, self.clock.now()))
        };
        timeout(CONNECT, attempt).await.ok()?
    }

    /// Returns the next frame, or the close code of the connection.
    async fn hear(&self, socket: &mut Socket) -> Result<Frame, Option<u16>> {
        loop {
            match socket.next().await {
                Some(Ok(Message::Binary(payload))) => return Ok(read_binary(self.form, &payload)),
                Some(Ok(Message::Text(text))) => return Ok(read_text(&text)),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                None
                | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) | Error::Protocol(_))) => {
                    return Err(None);
                }
                Some(Err(error)) => panic!("the node broke the WebSocket protocol: {error}"),
            }
        }
    }

    /// Reads until the connection ends, or until an order names another node than `here`.
    async fn listen(&self, socket: &mut Socket, stay: &mut Stay, here: usize, orders: &mut watch::Receiver<Order>) {
        let mut open = None::<HashSet<u64>>;
        let mut deadline = Instant::now() + Duration::from_secs(3600);
        // An order may have arrived during the connect.
        let mut is_told = true;
        loop {
            if is_told {
                let order = orders.borrow_and_update().clone();
                if let Some(markers) = order.markers
                    && open.is_none()
                {
                    open = Some(missing(&markers, stay));
                    deadline = Instant::now() + SILENCE;
                } else if order.place != here {
                    let _ = socket.close(None).await;
                    stay.end = End::Left;
                    return;
                }
                is_told = false;
            }
            if open.as_ref().is_some_and(HashSet::is_empty) {
                let _ = socket.close(None).await;
                stay.end = End::Marked;
                return;
            }
            tokio::select! {
                heard = timeout_at(deadline, self.hear(socket)) => match heard {
                    Err(_) => return,
                    Ok(Err(code)) => {
                        stay.end = End::Cut(code);
                        return;
                    }
                    Ok(Ok(Frame::Ping)) => self.pong(socket).await,
                    Ok(Ok(Frame::Message(message))) => {
                        let id = note(stay, &message);
                        if let (Some(open), Some(id)) = (&mut open, id) {
                            open.remove(&id);
                            // Publishers may be ahead of the nodes: each message extends the wait for the backlog.
                            deadline = Instant::now() + SILENCE;
                        }
                    }
                    Ok(Ok(Frame::Reply(reply))) if reply["key"] == "gap" => stay.gaps.push(self.clock.now()),
                    Ok(Ok(Frame::Reply(reply))) => stay.faults.push(format!("received an unexpected reply: {reply}")),
                },
                order = orders.changed() => {
                    assert!(order.is_ok(), "the crowd was dropped without a close");
                    is_told = true;
                }
            }
        }
    }

    async fn pong(&self, socket: &mut Socket) {
        let pong =
            if self.form.is_json() { Message::text(r#"{"type":0}"#) } else { Message::binary(b"\0PONG".to_vec()) };
        let _ = socket.send(pong).await;
    }
}

/// The markers that a stay has not received yet.
fn missing(markers: &Markers, stay: &Stay) -> HashSet<u64> {
    let of = |stream: Stream| markers.get(&stream).into_iter().flatten();
    let after = stay.streams().flat_map(of).filter(|(_, begun)| *begun >= stay.bound);
    let mut ids: HashSet<u64> = after.map(|(id, _)| *id).collect();
    for id in &stay.heard {
        ids.remove(id);
    }
    ids
}

/// Records a message of a drill and returns its id; any other message is a fault.
fn note(stay: &mut Stay, message: &Value) -> Option<u64> {
    let id = message["id"].as_u64().unwrap_or_default();
    // cim shows a content with the single key `text` as that text.
    let text = message["content"]["text"].as_str().or_else(|| message["content"].as_str());
    if message["action"] != "drill" || text != Some(&text_of(id)) {
        stay.faults.push(format!("received an unknown message: {message}"));
        return None;
    }
    stay.heard.push(id);
    Some(id)
}
