//! `skylark token`: mints an HS256 JWT with the first key of the sample plugin token-auth.
//!
//! Reads the key from `token-auth.toml` in `plugins.dir`: `[[settings.keys]]` with `id` and `secret`.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use super::{ConfigSource, print};
use crate::id::{Device, Room, Uid};

const MANIFEST: &str = "token-auth.toml";

#[derive(Debug, clap::Args)]
pub(super) struct Token {
    /// The user.
    uid: Uid,
    /// The device that the token is bound to.
    #[arg(long)]
    device: Option<Device>,
    /// Rooms to join at once, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "ROOM,…")]
    rooms: Vec<Room>,
    /// Rooms that the holder may join later, separated by commas: names, or prefixes followed by *.
    #[arg(long, value_delimiter = ',', value_name = "ROOM,…")]
    join: Vec<String>,
    /// Lifetime of the token, e.g. 90s, 1h, 7d.
    #[arg(long, default_value = "1h", value_parser = ttl)]
    ttl: Duration,
}

impl Token {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let config = source.load()?.config;
        let rooms = Rooms { now: &self.rooms, later: &self.join };
        print(&mint_for(&config.plugins.dir, &self.uid, self.device.as_ref(), rooms, self.ttl)?)
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).ok().filter(|ttl| *ttl >= Duration::from_secs(1));
    ttl.ok_or_else(|| "expected a duration of a second or more, such as 90s, 1h or 7d".to_owned())
}

/// Mints a token that the token-auth plugin in `plugins` admits.
///
/// # Errors
/// `plugins` has no `token-auth.toml` with a key.
pub fn mint(
    plugins: &Path,
    uid: &Uid,
    device: Option<&Device>,
    rooms: &[Room],
    ttl: Duration,
) -> anyhow::Result<String> {
    mint_for(plugins, uid, device, Rooms { now: rooms, later: &[] }, ttl)
}

/// Rooms of a token.
#[derive(Clone, Copy)]
struct Rooms<'a> {
    /// Rooms to join at once.
    now: &'a [Room],
    /// Rooms that may be joined later: names, or prefixes followed by `*`.
    later: &'a [String],
}

fn mint_for(
    plugins: &Path,
    uid: &Uid,
    device: Option<&Device>,
    rooms: Rooms<'_>,
    ttl: Duration,
) -> anyhow::Result<String> {
    if plugins.as_os_str().is_empty() {
        bail!("expected plugins.dir to hold {MANIFEST}, it is not set (--env dev sets it to the samples)");
    }
    let path = plugins.join(MANIFEST);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read the keys of {}", path.display()))?;
    let Issuer { id, secret, audience, issuer } =
        Issuer::read(&text).with_context(|| format!("{} holds no key to sign with", path.display()))?;
    let expires = SystemTime::now() + ttl;
    let expires = expires.duration_since(UNIX_EPOCH).context("the clock is set before 1970")?.as_secs();
    let mut claims = json!({ "sub": uid.as_str(), "exp": expires });
    if let Some(device) = device {
        claims["device"] = device.as_str().into();
    }
    if !rooms.now.is_empty() {
        claims["rooms"] = rooms.now.iter().map(Room::as_str).collect();
    }
    if !rooms.later.is_empty() {
        claims["join"] = rooms.later.iter().map(String::as_str).collect();
    }
    for (claim, value) in [("aud", audience), ("iss", issuer)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            claims[claim] = value.into();
        }
    }
    Ok(sign(id.as_deref(), secret.as_bytes(), &claims))
}

/// Token settings in the plugin's manifest.
struct Issuer {
    /// The first of `[[settings.keys]]`.
    id: Option<String>,
    secret: String,
    audience: Option<String>,
    issuer: Option<String>,
}

impl Issuer {
    fn read(manifest: &str) -> anyhow::Result<Self> {
        let manifest: toml::Table = manifest.parse()?;
        let settings = manifest.get("settings").context("expected a table [settings]")?;
        let text = |table: &toml::Value, name: &str| table.get(name).and_then(toml::Value::as_str).map(str::to_owned);
        let keys = settings.get("keys").and_then(toml::Value::as_array);
        let first = keys.and_then(|keys| keys.first()).context("expected [[settings.keys]] with id and secret")?;
        let secret = text(first, "secret").context("expected settings.keys[0].secret to be a string")?;
        let (audience, issuer) = (text(settings, "audience"), text(settings, "issuer"));
        Ok(Self { id: text(first, "id"), secret, audience, issuer })
    }
}

/// Signs these claims with HS256.
#[must_use]
pub fn sign(id: Option<&str>, secret: &[u8], claims: &serde_json::Value) -> String {
    let mut head = json!({ "alg": "HS256", "typ": "JWT" });
    if let Some(id) = id {
        head["kid"] = id.into();
    }
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&head), part(claims));
    format!("{signed}.{}", signature(secret, &signed))
}

/// The third part of a JWT: the signature of the first two.
pub(super) fn signature(secret: &[u8], signed: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC accepts a key of any length");
    mac.update(signed.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}
