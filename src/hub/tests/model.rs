//! Random steps compared with a model without shards: expected messages exactly once and in order, and exact receipts.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tokio::task::yield_now;

use super::*;

const FORMS: [Form; 3] = [YUNQUE, JSON, TCP];
const USERS: usize = 4;
const ROOMS: usize = 3;
const DEVICES: usize = 2;

/// One step. Numbers are taken modulo the number of items.
#[derive(Debug, Clone)]
enum Step {
    Attach(usize),
    Bind {
        who: usize,
        user: usize,
        device: usize,
    },
    Join {
        who: usize,
        room: usize,
    },
    Leave {
        who: usize,
        room: usize,
    },
    Detach(usize),
    Close(usize),
    Send(usize),
    /// Allows the socket `room` more bytes.
    Allow {
        who: usize,
        room: Option<usize>,
    },
    Push(Vec<Push>),
}

/// A delivery. `kind` selects the fields that are used.
#[derive(Debug, Clone)]
struct Push {
    kind: u8,
    who: usize,
    users: Vec<usize>,
    room: usize,
    no_echo: Option<usize>,
    frames: usize,
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0usize..64;
    let pair = (0usize..64, 0usize..64);
    prop_oneof![
        3 => (0usize..FORMS.len()).prop_map(Step::Attach),
        4 => (any.clone(), 0..USERS, 0..DEVICES).prop_map(|(who, user, device)| Step::Bind { who, user, device }),
        4 => pair.clone().prop_map(|(who, room)| Step::Join { who, room }),
        2 => pair.clone().prop_map(|(who, room)| Step::Leave { who, room }),
        1 => any.clone().prop_map(Step::Detach),
        1 => any.clone().prop_map(Step::Close),
        1 => any.clone().prop_map(Step::Send),
        2 => (any, prop::option::of(0usize..40)).prop_map(|(who, room)| Step::Allow { who, room }),
        8 => prop::collection::vec(delivery(), 1..6).prop_map(Step::Push),
    ]
}

fn delivery() -> impl Strategy<Value = Push> {
    let users = prop::collection::vec(0..USERS + 1, 0..5);
    (0u8..7, 0usize..64, users, 0..ROOMS, prop::option::weighted(0.2, 0usize..64), 1usize..4)
        .prop_map(|(kind, who, users, room, no_echo, frames)| Push { kind, who, users, room, no_echo, frames })
}

/// State of a connection in the model.
struct Known {
    connection: Connection,
    pipe: Arc<Pipe>,
    form: Form,
    user: Option<usize>,
    device: usize,
    rooms: BTreeSet<usize>,
    attached: bool,
    open: bool,
    expected: Vec<u8>,
}

struct World {
    hub: Arc<Hub>,
    known: Vec<Known>,
    /// Counter that numbers the messages.
    message_count: usize,
}

fn user_name(user: usize) -> String {
    format!("user{user}")
}

fn room_name(room: usize) -> Room {
    self::room(&format!("room{}", room % ROOMS))
}

fn device_name(device: usize) -> Device {
    Device::parse(&format!("device{device}")).unwrap()
}

impl World {
    async fn step(&mut self, step: Step) {
        match step {
            Step::Attach(form) => self.attach(FORMS[form]).await,
            Step::Bind { who, user, device } => self.bind(who, user, device),
            Step::Join { who, room } => {
                let Some(known) = self.pick(who) else { return };
                let fresh = known.attached && known.user.is_some() && known.rooms.insert(room % ROOMS);
                let connection = known.connection.clone();
                assert_eq!(join(&self.hub, &connection, &room_name(room)), fresh);
            }
            Step::Leave { who, room } => {
                let Some(known) = self.pick(who) else { return };
                let (was_in, connection) = (known.rooms.remove(&(room % ROOMS)), known.connection.clone());
                assert_eq!(self.hub.leave(&connection, &room_name(room)), was_in);
            }
            Step::Detach(who) => self.detach(who).await,
            Step::Close(who) => {
                let Some(known) = self.pick(who) else { return };
                if std::mem::replace(&mut known.open, false) && known.form != TCP {
                    known.expected.extend_from_slice(&websocket::close(Disconnect::KICKED));
                }
                known.connection.clone().close(Disconnect::KICKED).await;
            }
            Step::Send(who) => {
                let run = self.run(1);
                let Some(known) = self.pick(who) else { return };
                let bytes = run.bytes(known.form).clone();
                if known.open {
                    known.expected.extend_from_slice(&bytes);
                }
                assert_eq!(known.connection.clone().send(bytes).await, known.open);
            }
            Step::Allow { who, room } => {
                if let Some(known) = self.pick(who) {
                    known.pipe.allow(room);
                }
            }
            Step::Push(pushes) => self.push(pushes).await,
        }
    }

    fn pick(&mut self, who: usize) -> Option<&mut Known> {
        let count = self.known.len().max(1);
        self.known.get_mut(who % count)
    }

    fn run(&mut self, count: usize) -> Frames {
        let texts: Vec<String> = (0..count).map(|i| format!("message {}", self.message_count + i)).collect();
        self.message_count += count;
        frames(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    async fn attach(&mut self, form: Form) {
        let (connection, pipe) = attach(&self.hub, Some(form)).await;
        self.known.push(Known {
            connection,
            pipe,
            form,
            user: None,
            device: 0,
            rooms: BTreeSet::new(),
            attached: true,
            open: true,
            expected: Vec::new(),
        });
    }

    fn bind(&mut self, who: usize, user: usize, device: usize) {
        let others = |world: &Self| world.known.iter().any(|k| k.attached && k.user == Some(user));
        let was_online = others(self);
        let Some(known) = self.pick(who) else { return };
        let (connection, attached, before) = (known.connection.clone(), known.attached, known.user);
        if attached {
            (known.user, known.device) = (Some(user), device);
        }
        let first = attached && !was_online;
        let former = before.filter(|before| attached && *before != user);
        let last = former.is_some() && !self.known.iter().any(|k| k.attached && k.user == former);
        let binding = Binding { device: Some(device_name(device)), ..binding(&user_name(user), None) };
        let bound = self.hub.bind(&connection, binding);
        assert_eq!(bound.first, first);
        let told = bound.former.map(|former| (former.binding.uid.to_string(), former.last));
        assert_eq!(told, former.map(|user| (user_name(user), last)));
    }

    async fn detach(&mut self, who: usize) {
        let Some(known) = self.pick(who) else { return };
        let was_attached = std::mem::replace(&mut known.attached, false);
        known.open = false;
        let (user, connection) = (known.user, known.connection.clone());
        let rooms: BTreeSet<usize> = std::mem::take(&mut known.rooms);
        let mut detached = self.hub.detach(&connection).await;
        detached.rooms.sort();
        let last = was_attached && user.is_some() && !self.known.iter().any(|k| k.attached && k.user == user);
        assert_eq!(detached, Detached { last, rooms: rooms.into_iter().map(room_name).collect() });
    }

    /// Routes the whole batch, while the model handles the deliveries one by one.
    async fn push(&mut self, pushes: Vec<Push>) {
        let mut batch = Vec::new();
        let mut receipts = Vec::new();
        for push in pushes {
            let frames = self.run(push.frames);
            let no_echo = push.no_echo.and_then(|who| self.pick(who)).map(|known| known.connection.id());
            let Some((target, receivers, offline)) = self.resolve(&push) else { continue };
            let mut count = 0;
            for at in receivers {
                let known = &mut self.known[at];
                if Some(known.connection.id()) != no_echo {
                    known.expected.extend_from_slice(frames.bytes(known.form));
                    count += 1;
                }
            }
            receipts.push(Receipt { offline, ..delivered(u32::try_from(count).unwrap()) });
            batch.push(FrameRun { target, no_echo, frames, span: None });
        }
        assert_eq!(self.hub.route(batch).await, receipts);
    }

    /// Returns the expected receivers and offline users.
    fn resolve(&self, push: &Push) -> Option<(Target, Vec<usize>, Vec<Uid>)> {
        let user = push.users.first().copied().unwrap_or(0);
        let name = |user: usize| uid(&user_name(user));
        let of = |user: usize| self.open(|known| known.user == Some(user));
        let offline = |found: &[usize]| if found.is_empty() { vec![name(user)] } else { Vec::new() };
        Some(match push.kind {
            0 => {
                let known = self.known.get(push.who % self.known.len().max(1))?;
                (Target::Connection(known.connection.id()), self.open(|k| k.connection.is(&known.connection)), vec![])
            }
            1 => {
                let device = push.who % DEVICES;
                let found = self.open(|known| known.user == Some(user) && known.device == device);
                let offline = offline(&found);
                (Target::Device(name(user), device_name(device)), found, offline)
            }
            2 => {
                let (found, offline) = (of(user), offline(&of(user)));
                (Target::User(name(user)), found, offline)
            }
            3 => {
                let mut once = push.users.clone();
                let mut seen = BTreeSet::new();
                once.retain(|user| seen.insert(*user));
                let absent = once.iter().filter(|user| of(**user).is_empty()).map(|user| name(*user)).collect();
                let target = Target::Users(push.users.iter().map(|user| name(*user)).collect());
                (target, once.into_iter().flat_map(of).collect(), absent)
            }
            4 => (Target::Room(room_name(push.room)), self.open(|k| k.rooms.contains(&push.room)), vec![]),
            5 => (Target::Everyone, self.open(|known| known.user.is_some()), vec![]),
            _ => {
                let target = Target::EveryoneBut(push.users.iter().map(|user| name(*user)).collect());
                (target, self.open(|known| known.user.is_some_and(|user| !push.users.contains(&user))), vec![])
            }
        })
    }

    fn open(&self, wanted: impl Fn(&Known) -> bool) -> Vec<usize> {
        (0..self.known.len()).filter(|at| self.known[*at].open && wanted(&self.known[*at])).collect()
    }

    fn check_lists(&self) {
        let ids = |wanted: &dyn Fn(&Known) -> bool| -> Vec<ConnectionId> {
            self.known.iter().filter(|k| k.attached && wanted(k)).map(|k| k.connection.id()).collect()
        };
        let sorted = |connections: Vec<Connection>| {
            let mut ids: Vec<ConnectionId> = connections.iter().map(Connection::id).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(sorted(self.hub.connections()), ids(&|_| true));
        let paged: Vec<ConnectionId> = self.hub.page(0, 1000).iter().map(Connection::id).collect();
        assert_eq!(paged, ids(&|known| known.user.is_some()));
        for user in 0..USERS {
            assert_eq!(sorted(self.hub.user(&user_name(user))), ids(&|known| known.user == Some(user)));
        }
        let mut rooms = self.hub.rooms();
        rooms.sort();
        let mut expected = Vec::new();
        for room in 0..ROOMS {
            let members = ids(&|known| known.rooms.contains(&room));
            assert_eq!(sorted(self.hub.room(room_name(room).as_str())), members);
            expected.extend((!members.is_empty()).then(|| (room_name(room), members.len())));
        }
        assert_eq!(rooms, expected);
        let users: BTreeSet<usize> = self.known.iter().filter(|k| k.attached).filter_map(|k| k.user).collect();
        assert_eq!(self.hub.counts(), (users.len(), paged.len()));
    }

    /// Unblocks all sockets, then checks that every expected byte arrived and no load is left.
    async fn check_bytes(&self) {
        for known in &self.known {
            known.pipe.allow(None);
        }
        self.hub.wait_flushed().await;
        while self.known.iter().any(|known| known.connection.pending() != Load::default()) {
            yield_now().await;
        }
        self.hub.wait_flushed().await;
        for known in &self.known {
            let taken = known.pipe.written();
            // A connection detached or cut during a write received a prefix.
            let whole = known.attached || taken.len() == known.expected.len();
            assert!(if whole { taken == known.expected } else { known.expected.starts_with(&taken) });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn deliveries_match_the_model(shards in 1usize..4, steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let hub = start(&Settings { shards, ..settings() });
            let mut world = World { hub, known: Vec::new(), message_count: 0 };
            for step in steps {
                world.step(step).await;
                world.check_lists();
            }
            world.check_bytes().await;
        });
    }
}
