//! The table of all API paths: method, path, required permission and action.
//!
//! Independent of bodies and of the node.

use hyper::Method;

use super::answer::Problem;
use crate::config::{Scope, Service};
use crate::node::PluginCommand;

/// One row of the table.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) verb: Verb,
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) action: Action,
}

/// The method of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// GET, and HEAD with it.
    Get,
    Post,
}

/// Required permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Open to every caller that reaches the listener.
    Open,
    /// Requires a key with this scope.
    Key(Scope),
    /// For probes and scrapers: open on listeners that serve `metrics`. On listeners that serve only `api`, a key with
    /// `read` is required.
    Probe,
}

/// The handler of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    About,
    Push(PushKind),
    RoomJoin,
    RoomLeave,
    Kick,
    Forget,
    History,
    OnlineUsers,
    Connections,
    Rooms,
    Plugins,
    PluginLog,
    /// A command for the plugin named in the path.
    Plugin(PluginCommand),
    Nodes,
    Choose,
    Live,
    Ready,
    Metrics,
}

/// Kinds of push bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PushKind {
    /// A message, to its own receiver.
    Message,
    /// A message, to everyone.
    All,
    /// Messages, each to its own receiver.
    List,
    /// `{"message", "uids"}`.
    ToUids,
    /// `{"message", "room"}`.
    Room,
    /// `{"message", "uid", "device"}`.
    Device,
    /// `{"message", "cid"}`.
    Connection,
    /// `{"message", "uids"}`: everyone except these users.
    Other,
    /// A `MessagesPub`.
    Envelope,
}

pub(super) static ROUTES: &[Route] = &[
    post("/send", Scope::Push, Action::Push(PushKind::Message)),
    post("/send/all", Scope::Push, Action::Push(PushKind::All)),
    post("/send/sendList", Scope::Push, Action::Push(PushKind::List)),
    post("/send/toUids", Scope::Push, Action::Push(PushKind::ToUids)),
    post("/send/room", Scope::Push, Action::Push(PushKind::Room)),
    post("/send/device", Scope::Push, Action::Push(PushKind::Device)),
    post("/send/connection", Scope::Push, Action::Push(PushKind::Connection)),
    post("/send/other", Scope::Push, Action::Push(PushKind::Other)),
    post("/publish", Scope::Push, Action::Push(PushKind::Envelope)),
    post("/room/join", Scope::Manage, Action::RoomJoin),
    post("/room/leave", Scope::Manage, Action::RoomLeave),
    post("/kick", Scope::Manage, Action::Kick),
    post("/history/forget", Scope::Manage, Action::Forget),
    post("/plugins/{name}/enable", Scope::Plugins, Action::Plugin(PluginCommand::Enable)),
    post("/plugins/{name}/disable", Scope::Plugins, Action::Plugin(PluginCommand::Disable)),
    post("/plugins/{name}/reload", Scope::Plugins, Action::Plugin(PluginCommand::Reload)),
    post("/plugins/{name}/rollback", Scope::Plugins, Action::Plugin(PluginCommand::RollBack)),
    post("/plugins/{name}/readmit", Scope::Plugins, Action::Plugin(PluginCommand::Readmit)),
    get("/history", Access::Key(Scope::Read), Action::History),
    get("/getOnlineUser", Access::Key(Scope::Read), Action::OnlineUsers),
    get("/connections", Access::Key(Scope::Read), Action::Connections),
    get("/rooms", Access::Key(Scope::Read), Action::Rooms),
    get("/plugins", Access::Key(Scope::Read), Action::Plugins),
    get("/plugins/{name}/log", Access::Key(Scope::Plugins), Action::PluginLog),
    get("/nodes", Access::Key(Scope::Read), Action::Nodes),
    get("/nodes/choose", Access::Key(Scope::Read), Action::Choose),
    get("/health/live", Access::Probe, Action::Live),
    get("/health/ready", Access::Probe, Action::Ready),
    get("/metrics", Access::Probe, Action::Metrics),
    get("/", Access::Open, Action::About),
];

impl Route {
    /// Finds the route of this request, among those that the listener serves.
    ///
    /// # Errors
    /// 404 with similar paths, 405 with the allowed method.
    pub(super) fn find(method: &Method, path: &str, serves: &[Service]) -> Result<&'static Self, Problem> {
        let found = ROUTES.iter().find(|r| r.is_for(path) && r.access.is_served(serves));
        let route = found.ok_or_else(|| not_found(path, serves))?;
        if route.verb.accepts(method) {
            return Ok(route);
        }
        let text = format!("method: expected {}, got {method}", route.verb.allow());
        Err(Problem::wrong_method(text, route.verb.allow()))
    }

    /// A `{name}` in the table matches any single non-empty part.
    fn is_for(&self, path: &str) -> bool {
        if !self.path.contains('{') {
            return self.path == path;
        }
        let (mut expected, mut parts) = (self.path.split('/'), path.split('/'));
        loop {
            match (expected.next(), parts.next()) {
                (None, None) => return true,
                (Some("{name}"), Some(part)) if !part.is_empty() => {}
                (Some(word), Some(part)) if word == part => {}
                _ => return false,
            }
        }
    }
}

impl Verb {
    fn accepts(self, method: &Method) -> bool {
        match self {
            Self::Get => matches!(*method, Method::GET | Method::HEAD),
            Self::Post => *method == Method::POST,
        }
    }

    const fn allow(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
        }
    }
}

impl Access {
    fn is_served(self, serves: &[Service]) -> bool {
        match self {
            Self::Key(_) => serves.contains(&Service::Api),
            Self::Open | Self::Probe => serves.contains(&Service::Api) || serves.contains(&Service::Metrics),
        }
    }
}

const fn post(path: &'static str, scope: Scope, action: Action) -> Route {
    Route { verb: Verb::Post, path, access: Access::Key(scope), action }
}

const fn get(path: &'static str, access: Access, action: Action) -> Route {
    Route { verb: Verb::Get, path, access, action }
}

fn not_found(path: &str, serves: &[Service]) -> Problem {
    let status = hyper::StatusCode::NOT_FOUND;
    if path == USER_INFO {
        return Problem::new(status, "path: user info is not part of this API: use your own user service");
    }
    let shown: String = path.chars().take(MAX_SHOWN).collect();
    let similar = similar(path, serves);
    let expected =
        if similar.is_empty() { "a path of docs/reference/http-api.md".to_owned() } else { similar.join(" or ") };
    Problem::new(status, format!("path: expected {expected}, got {shown:?}"))
}

/// Suggests paths for a mistyped one: the same path in another case or with extra slashes. If there is none, paths with
/// up to two edits; else paths that contain it as a part.
fn similar(typed: &str, serves: &[Service]) -> Vec<&'static str> {
    let typed = typed.trim_matches('/').to_ascii_lowercase();
    if typed.is_empty() || typed.len() > MAX_SHOWN {
        return Vec::new();
    }
    let alike: [&dyn Fn(&str) -> bool; 3] =
        [&|path| path == typed, &|path| distance(&typed, path) <= 2, &|path| path.split('/').any(|part| part == typed)];
    let ws = serves.contains(&Service::Ws).then_some("/ws");
    let served = || ROUTES.iter().filter(|r| r.access.is_served(serves)).map(|r| r.path).chain(ws);
    let plain = |path: &str| path.trim_start_matches('/').to_ascii_lowercase();
    let found = alike.iter().map(|is_alike| served().filter(|p| is_alike(&plain(p))).collect::<Vec<_>>());
    found.into_iter().find(|paths| !paths.is_empty()).unwrap_or_default()
}

/// Levenshtein distance over bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Listed in the original's document, which itself says that it does not belong there.
const USER_INFO: &str = "/login/getUserinfo";
/// Maximum characters of a path in a response.
const MAX_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(method: &Method, path: &str, serves: &[Service]) -> (u16, String) {
        let problem = Route::find(method, path, serves).unwrap_err();
        (problem.status().as_u16(), problem.to_string())
    }

    #[test]
    fn each_route_is_found_by_its_own_method_only() {
        for route in ROUTES {
            let (right, wrong) = match route.verb {
                Verb::Get => (Method::HEAD, Method::POST),
                Verb::Post => (Method::POST, Method::GET),
            };
            assert_eq!(Route::find(&right, route.path, &[Service::Api]).unwrap().action, route.action);
            assert_eq!(fault(&wrong, route.path, &[Service::Api]).0, 405, "{}", route.path);
            assert_eq!(fault(&Method::OPTIONS, route.path, &[Service::Api]).0, 405, "{}", route.path);
        }
    }

    #[test]
    fn route_paths_are_unique() {
        let mut paths: Vec<_> = ROUTES.iter().map(|r| r.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), ROUTES.len());
    }

    #[test]
    fn a_listener_serves_only_its_part() {
        assert_eq!(fault(&Method::POST, "/send", &[Service::Metrics]).0, 404);
        assert_eq!(fault(&Method::GET, "/metrics", &[Service::Ws]).0, 404);
        assert!(Route::find(&Method::GET, "/metrics", &[Service::Metrics]).is_ok());
        assert!(Route::find(&Method::GET, "/health/live", &[Service::Api]).is_ok());
    }

    #[test]
    fn unknown_path_names_the_nearest_one() {
        let (_, message) = fault(&Method::GET, "/ws/", &[Service::Api, Service::Ws]);
        assert_eq!(message, "path: expected /ws, got \"/ws/\"");
        for (typed, text) in [
            ("/send/sendlist", "path: expected /send/sendList, got \"/send/sendlist\""),
            ("/send/", "path: expected /send, got \"/send/\""),
            ("/sned", "path: expected /send, got \"/sned\""),
            ("/join", "path: expected /room/join, got \"/join\""),
            ("/room", "path: expected /rooms, got \"/room\""),
            ("/publish/send", "path: expected a path of docs/reference/http-api.md, got"),
            ("/health", "path: expected /health/live or /health/ready, got \"/health\""),
            ("/nowhere/at/all", "path: expected a path of docs/reference/http-api.md, got \"/nowhere/at/all\""),
            ("/login/getUserinfo", "path: user info is not part of this API: use your own user service"),
        ] {
            let (status, message) = fault(&Method::POST, typed, &[Service::Api]);
            assert_eq!(status, 404);
            assert!(message.starts_with(text), "{typed}: {message}");
        }
        assert!(fault(&Method::GET, &"/x".repeat(5000), &[Service::Api]).1.len() < 200);
    }
}
