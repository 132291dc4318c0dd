//! Each sample stays below a third of its CPU budget on the worst input that a client can send.
//!
//! The work is counted in fuel, about one unit for each WebAssembly instruction, so the machine's speed does not
//! matter. [`FUEL_PER_MS`] is the fuel that a slow core executes in a millisecond.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::config;
use crate::claim::Claim;
use crate::id::{ConnectionId, Uid};
use crate::message::{Entries, Envelope, Message, Origin, Publication, Publisher, Target};
use crate::plugin::calls::lease::InstanceLease;
use crate::plugin::calls::version::Version;
use crate::plugin::guest::engine;
use crate::plugin::guest::failure::Failure;
use crate::plugin::guest::files::PluginFiles;
use crate::plugin::guest::instance::Instance;
use crate::plugin::guest::manifest::Manifest;
use crate::plugin::guest::state::Publish;
use crate::plugin::loader::load::{self, Env};
use crate::plugin::{Call, CompileIn, Event, Identity, JoinRequest, Options, Role, Transport};

/// Fuel that a slow core executes in a millisecond. The two virtual cores that this was written on do 8 to 12 million.
const FUEL_PER_MS: u64 = 4_000_000;
/// Bytes of text in the largest message: a frame has at most 65 535, and the message around the text takes some.
const MOST: usize = 65_000;
/// Pieces that fill the text of the largest message, by name.
const PIECES: [(&str, &str); 28] = [
    ("ascii", "the quick brown fox. "),
    ("capitals", "THE QUICK BROWN FOX. "),
    ("blanks", " a"),
    ("control", "\u{1}\u{7f}"),
    ("ideographs", "云雀高飞"),
    ("syllables", "힣닭볶음"),
    ("cyrillic", "ПРИВЕТ"),
    ("greek", "ᾂᾷ"),
    ("thai", "กำ้"),
    ("one ligature", "\u{FDFA}"),
    ("ligatures", "\u{FDFA}\u{FDFB}\u{FDF2}"),
    ("squares", "㌀㍿㋿"),
    ("circled", "ⓖⓞⓢⓢⓘⓟ"),
    ("styled", "𝓰𝓸𝓼𝓼𝓲𝓹"),
    ("marks of one class", "\u{301}"),
    ("marks of many classes", "\u{345}\u{301}\u{323}\u{327}\u{31B}\u{302}\u{5B0}\u{93C}"),
    ("marks in disorder", "\u{301}\u{327}"),
    ("laid over", "\u{335}\u{338}"),
    ("directions", "\u{202E}\u{2066}\u{2069}\u{200F}"),
    ("selectors", "\u{FE0F}"),
    ("tags", "\u{E0041}\u{E0100}"),
    ("joined", "👩\u{200D}👩\u{200D}👧\u{200D}👦"),
    ("a word", "笨蛋"),
    ("a word in capitals", "GOSSIP "),
    ("a word apart", "笨\u{200B}蛋"),
    ("half a word", "gossi"),
    ("a wide word", "ｇｏｓｓｉｐ "),
    ("halves of words", "笨傻é"),
];

/// The largest text that consists of one piece.
fn full(piece: &str) -> String {
    piece.repeat(MOST / piece.len())
}

/// The largest texts: each piece alone, each piece after a letter, and mixtures that a seed chooses.
fn texts() -> Vec<(String, String)> {
    let mut texts: Vec<_> = PIECES.iter().map(|(name, piece)| ((*name).to_owned(), full(piece))).collect();
    texts.push(("one letter of 65 kB".to_owned(), format!("a{}", &full("\u{301}")[2..])));
    let mut state: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    for number in 0..12 {
        let mut text = String::new();
        while text.len() < MOST - 400 {
            // Knuth's MMIX generator: its upper bits are good enough to choose by.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (choice, times) = ((state >> 33) as usize % PIECES.len(), 1 + (state >> 53) as usize % 9);
            text.push_str(&PIECES[choice].1.repeat(times));
        }
        text.truncate(text.floor_char_boundary(MOST));
        texts.push((format!("mixture {number} of seed {state}"), text));
    }
    texts
}

/// The text as it is, and in as many parts as a message may have.
fn entries(text: &str) -> [Entries; 2] {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() && parts.len() < 255 {
        let (part, after) = rest.split_at(rest.floor_char_boundary((text.len() / 250).max(4)));
        parts.push((format!("k{}", parts.len()), part.to_owned()));
        rest = after;
    }
    [[("text", text)].into_iter().collect(), parts.into_iter().collect()]
}

/// A sample on an engine that counts fuel, without a time limit.
struct Sample {
    name: String,
    version: Arc<Version>,
    /// Milliseconds of CPU that a call may take by the manifest as it is shipped.
    budgets: [u64; Role::ALL.len()],
    /// Calls that failed or used too much fuel.
    faults: Mutex<Vec<String>>,
    _env: Env,
}

impl Sample {
    async fn load(wasm: PathBuf) -> Self {
        let name = wasm.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut config = config(wasm.parent().unwrap());
        config.caps.cpu = Duration::from_secs(600);
        config.caps.wall = config.caps.cpu;
        let options = Options { compile: CompileIn::ThisProcess, ..Options::default() };
        let channels = (mpsc::channel(1).0, mpsc::channel(1).0);
        let env = Env::with_engine(engine::counting().unwrap(), &config, options, channels.0, channels.1).unwrap();
        let text = std::fs::read_to_string(wasm.with_extension("toml")).unwrap();
        let source = PluginFiles::new(name.as_str().into(), std::fs::read(&wasm).unwrap(), Some(text), None);
        let component = load::compile(&env, &source).await.unwrap();
        let shipped = Manifest::parse(source.manifest(), &config.caps).unwrap();
        let shipped = load::link(&env, &source, &component, shipped, 1).await.unwrap();
        let of = |role| u64::try_from(shipped.blueprint.context.limits.budget(Some(role)).cpu.as_millis()).unwrap();
        let mut manifest = Manifest::parse(source.manifest(), &config.caps).unwrap();
        for budget in &mut manifest.limits.roles {
            (budget.cpu, budget.wall) = (Some(config.caps.cpu), Some(config.caps.wall));
        }
        let version = load::link(&env, &source, &component, manifest, 2).await.unwrap();
        Self { name, version, budgets: Role::ALL.map(of), faults: Mutex::default(), _env: env }
    }

    /// Makes one call, and checks that its fuel is at most a third of the budget.
    async fn call(&self, role: Role, what: &str, call: impl AsyncFnOnce(&mut Instance) -> Result<(), Failure>) -> u64 {
        let mut lease = InstanceLease::take(&self.version).await.unwrap();
        let before = lease.instance().burnt();
        let called = call(lease.instance()).await;
        let burnt = lease.instance().burnt() - before;
        let (name, third) = (&self.name, self.budgets[role as usize] * FUEL_PER_MS / 3);
        if let Err(failure) = called {
            self.faults.lock().push(format!("{name} failed on {what}: {failure}"));
            return burnt;
        }
        if burnt > third {
            self.faults
                .lock()
                .push(format!("{name} burns {burnt} on {what}, more than {third}, a third of its budget"));
        }
        lease.return_to_pool();
        burnt
    }

    async fn filter(&self) -> u64 {
        let mut most = 0;
        for (what, text) in texts() {
            let title = Message { title: text.clone(), ..Message::default() };
            let content = entries(&text).map(|content| Message { content, ..Message::default() });
            for message in [title].into_iter().chain(content) {
                let publish = Publish::of(&by_a_client(message));
                let judge = async move |instance: &mut Instance| instance.judge(publish).await.map(drop);
                most = most.max(self.call(Role::Filter, &what, judge).await);
            }
        }
        most
    }

    async fn auth(&self) -> u64 {
        let mut most = 0;
        for (what, text) in texts() {
            let [whole, parts] = entries(&text);
            // A token of the usual form, and one with parts that look like those of a token.
            let dots = format!("eyJ{}", &text[text.floor_char_boundary(MOST / 2)..].replace(' ', "."));
            let of = |token: &str, data: &Entries| Claim {
                token: Some(token.to_owned()),
                uid: Some(token.to_owned()),
                data: data.clone(),
                ..Claim::default()
            };
            for claim in [of(&text, &Entries::new()), of(&dots, &whole), of("eyJ.e.e", &parts)] {
                let admit =
                    async move |instance: &mut Instance| instance.admit(&Transport::default(), &claim).await.map(drop);
                most = most.max(self.call(Role::Auth, &what, admit).await);
            }
        }
        most
    }

    async fn access(&self) -> u64 {
        let mut most = 0;
        for (what, text) in texts() {
            let [whole, parts] = entries(&text);
            let claims: Entries = [("join", text.as_str()), ("rooms", text.as_str())].into_iter().collect();
            for (claims, data) in [(claims, Entries::new()), (Entries::new(), whole), (Entries::new(), parts)] {
                let request = JoinRequest { who: who(), claims, room: "lobby".parse().unwrap(), data };
                let join = async move |instance: &mut Instance| instance.join(&request).await.map(drop);
                most = most.max(self.call(Role::Access, &what, join).await);
            }
        }
        most
    }

    async fn handler(&self) -> u64 {
        let mut most = 0;
        for key in self.version.keys.clone() {
            for (what, text) in texts() {
                let half = &text[..text.floor_char_boundary(MOST / 2)];
                let [_, parts] = entries(&text);
                let named =
                    ["callee", "call", "code", "kind"].map(|name| [(name, text.as_str())].into_iter().collect());
                let both = [("callee", half), ("kind", half)].into_iter().collect();
                for data in named.into_iter().chain([parts, both]) {
                    let call = Call { key: key.clone(), data, caller: Some(who()), cid: cid(), remote: String::new() };
                    let handle = async move |instance: &mut Instance| instance.handle(&call).await.map(drop);
                    most = most.max(self.call(Role::Handler, &what, handle).await);
                }
            }
        }
        most
    }

    async fn events(&self) -> u64 {
        let mut most = 0;
        for (what, text) in texts() {
            // A name has at most 128 bytes, and some characters are not allowed.
            let name: String = text.chars().filter(|c| !c.is_control() && !c.is_whitespace() && *c != ',').collect();
            let Ok(room) = name[..name.floor_char_boundary(128)].parse() else { continue };
            let event = Event::RoomJoined(who(), room);
            let tell = async move |instance: &mut Instance| instance.on_event(&event, 0).await;
            most = most.max(self.call(Role::Events, &what, tell).await);
        }
        most
    }
}

fn cid() -> ConnectionId {
    ConnectionId::new(1).unwrap()
}

fn who() -> Identity {
    Identity { uid: "1078".parse().unwrap(), cid: cid(), device: None, channel: None }
}

fn by_a_client(message: Message) -> Envelope {
    let uid: Uid = "1078".parse().unwrap();
    let publication = Publication::new(message, Target::Everyone, Origin::Client);
    let mut envelope = publication.into_envelope(1, 0);
    envelope.from = Some(Publisher { uid, cid: cid() });
    envelope
}

/// The committed samples, and those that `plugins/build` has made; in `tests/run` these are all samples.
fn samples() -> Vec<PathBuf> {
    let plugins = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("plugins");
    let committed = ["token-auth", "video-call", "word-filter"].map(|name| plugins.join("dist").join(name));
    let built = ["audit", "jwks-auth", "qr-login", "spam-score"].map(|name| plugins.join(name).join(name));
    let built = built.into_iter().filter(|path| path.with_extension("wasm").exists());
    committed.into_iter().chain(built).map(|path| path.with_extension("wasm")).collect()
}

#[tokio::test]
async fn samples_stay_below_a_third_of_their_budget_on_the_worst_message() {
    let mut faults = Vec::new();
    for path in samples() {
        let sample = Sample::load(path).await;
        for role in sample.version.roles.clone() {
            let most = match role {
                Role::Auth => sample.auth().await,
                Role::Access => sample.access().await,
                Role::Filter => sample.filter().await,
                Role::Handler => sample.handler().await,
                Role::Events => sample.events().await,
            };
            println!("{:<12} {:<8} {most:>12} fuel at most", sample.name, role.as_str());
        }
        faults.append(&mut sample.faults.lock());
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
