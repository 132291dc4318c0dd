//! Reads a WebSocket handshake: token, device, channel, dialect and positions of the client, and the rest of the path.
//!
//! The token is the first of: `Authorization: Bearer`, query `token`, cookie `token`, subprotocol `bearer.<token>`.
//! Independent of plugins; sends no HTTP response.

use hyper::Uri;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, SEC_WEBSOCKET_PROTOCOL};

use crate::claim::Claim;
use crate::id::Device;
use crate::message::Entries;
use crate::protocol::{Coding, Dialect, Form};
use crate::session::MAX_FACT_BYTES;

/// Name of the cookie and of the query key.
const TOKEN: &str = "token";
/// Query keys that are data of the bind.
const RESUME: [&str; 2] = ["resume", "cid"];
/// Prefix of a subprotocol that carries a token.
const TOKEN_SUBPROTOCOL: &str = "bearer.";
const SCHEME: &[u8] = b"bearer ";

/// Token sources that a listener accepts.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenSources {
    /// True if a token in the query is accepted.
    pub(super) query_token: bool,
    /// Treatment of a token in a cookie.
    pub(super) cookie: Cookie,
}

/// Treatment of a token in a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cookie {
    /// Used: the page is on the listener's list.
    Accepted,
    /// Ignored: pages of every site may connect.
    Ignored,
    /// Refused: the request names no page, so another site may have sent it.
    Refused,
}

/// The data of the handshake.
pub(super) struct HandshakeData {
    pub(super) claim: Claim,
    /// The form chosen by the client, if any.
    pub(super) form: Option<Form>,
    /// The subprotocol to echo.
    pub(super) subprotocol: Option<&'static str>,
    /// Path and query without the token and the request to resume.
    pub(super) path: String,
}

/// The handshake is invalid. The message names the part, the expected and the received value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHandshake {
    /// The page is not on the listener's list.
    #[error("origin: {0} is not allowed on this listener")]
    OriginRefused(String),
    /// The token is in a cookie without an Origin, so another site could have triggered the request.
    #[error("origin: expected an Origin header with a token in a cookie, got none")]
    CookieWithoutOrigin,
    /// A part of the handshake is malformed.
    #[error("{0}")]
    Invalid(String),
}

/// Reads the handshake.
pub(super) fn read(uri: &Uri, headers: &HeaderMap, allowed: TokenSources) -> Result<HandshakeData, BadHandshake> {
    let query = Query::read(uri);
    if query.token.is_some() && !allowed.query_token {
        let words = "token: expected in Authorization, a subprotocol or client_bind, got it in the query";
        return Err(BadHandshake::Invalid(words.to_owned()));
    }
    let offered = OfferedSubprotocols::read(headers)?;
    let cookie = cookie(headers).filter(|_| allowed.cookie != Cookie::Ignored);
    let is_refused = cookie.is_some() && allowed.cookie == Cookie::Refused;
    let token = bearer(headers).and_then(|token| std::str::from_utf8(token).ok()).map(str::to_owned);
    let token = token.or(query.token).or(cookie.filter(|_| !is_refused)).or(offered.token);
    if token.is_none() && is_refused {
        return Err(BadHandshake::CookieWithoutOrigin);
    }
    if let Some(device) = &query.device {
        Device::parse(device).map_err(|e| BadHandshake::Invalid(format!("device: {e}")))?;
    }
    if let Some(channel) = query.channel.as_deref().filter(|c| c.len() > MAX_FACT_BYTES) {
        let words = format!("channel: expected at most {MAX_FACT_BYTES} bytes, got {}", channel.len());
        return Err(BadHandshake::Invalid(words));
    }
    let form = match (offered.form, query.dialect) {
        (Some(form), _) => Some(form),
        (None, Some(dialect)) => Some(form_of(&dialect)?),
        (None, None) => None,
    };
    Ok(HandshakeData {
        claim: Claim { token, uid: query.uid, device: query.device, channel: query.channel, data: query.resume },
        form,
        subprotocol: offered.form.map(Form::as_str),
        path: query.path,
    })
}

/// Parses a form such as `yunque.json`. A dialect alone, such as `yunque`, means protobuf.
fn form_of(text: &str) -> Result<Form, BadHandshake> {
    let of_dialect = text.parse::<Dialect>().map(|dialect| Form::websocket(dialect, Coding::Protobuf));
    of_dialect.or_else(|_| text.parse()).map_err(|e| BadHandshake::Invalid(format!("dialect: {e}")))
}

/// The known keys of the query, and the path with the rest of the query.
#[derive(Default)]
struct Query {
    token: Option<String>,
    uid: Option<String>,
    device: Option<String>,
    channel: Option<String>,
    dialect: Option<String>,
    /// The fields in [`RESUME`].
    resume: Entries,
    path: String,
}

impl Query {
    fn read(uri: &Uri) -> Self {
        let mut query = Self { path: uri.path().to_owned(), ..Self::default() };
        let mut rest = form_urlencoded::Serializer::new(String::new());
        for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if RESUME.contains(&&*key) {
                if query.resume.get(&key).is_none() {
                    query.resume.insert(key, value);
                }
                continue;
            }
            if key != TOKEN {
                rest.append_pair(&key, &value);
            }
            let field = match &*key {
                TOKEN => &mut query.token,
                "uid" => &mut query.uid,
                "device" | "deviceId" => &mut query.device,
                "channel" => &mut query.channel,
                "dialect" => &mut query.dialect,
                _ => continue,
            };
            if !value.is_empty() {
                field.get_or_insert_with(|| value.into_owned());
            }
        }
        let rest = rest.finish();
        if !rest.is_empty() {
            query.path.push('?');
            query.path.push_str(&rest);
        }
        query
    }
}

/// The subprotocols offered by the client.
#[derive(Default)]
struct OfferedSubprotocols {
    form: Option<Form>,
    token: Option<String>,
}

impl OfferedSubprotocols {
    /// The first dialect wins. Offers with neither a dialect nor a token are not supported.
    fn read(headers: &HeaderMap) -> Result<Self, BadHandshake> {
        let mut offered = Self::default();
        let mut foreign = None;
        for name in items(headers, &SEC_WEBSOCKET_PROTOCOL, ',') {
            if let Some(token) = name.strip_prefix(TOKEN_SUBPROTOCOL) {
                offered.token = offered.token.or_else(|| (!token.is_empty()).then(|| token.to_owned()));
            } else if let Ok(form) = name.parse() {
                offered.form.get_or_insert(form);
            } else {
                foreign.get_or_insert(name);
            }
        }
        match foreign {
            Some(name) if offered.form.is_none() => Err(BadHandshake::Invalid(format!(
                "Sec-WebSocket-Protocol: expected yunque.pb, yunque.json, cim.pb or cim.json, got {name:?}"
            ))),
            _ => Ok(offered),
        }
    }
}

/// The non-empty credentials of `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, held) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(SCHEME.len())?;
    let held = held.trim_ascii();
    (scheme.eq_ignore_ascii_case(SCHEME) && !held.is_empty()).then_some(held)
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    items(headers, &COOKIE, ';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim() == TOKEN && !value.is_empty()).then(|| value.to_owned())
    })
}

/// Splits all lines of a list header into items.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName, separator: char) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(move |line| line.split(separator)).map(str::trim).filter(|item| !item.is_empty())
}

/// True if a line of the header lists the token, case-insensitively (RFC 9110 §5.6.1).
pub(super) fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    items(headers, name, ',').any(|item| item.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: TokenSources = TokenSources { query_token: true, cookie: Cookie::Accepted };

    fn presented(
        uri: &str,
        headers: &[(&'static str, &str)],
        allowed: TokenSources,
    ) -> Result<HandshakeData, BadHandshake> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        read(&uri.parse().unwrap(), &map, allowed)
    }

    fn token(uri: &str, headers: &[(&'static str, &str)]) -> Option<String> {
        presented(uri, headers, ALL).ok().unwrap().claim.token
    }

    #[test]
    fn a_token_counts_from_the_first_place_that_has_one() {
        let (header, cookie) = (("authorization", "Bearer h"), ("cookie", "a=b; token=c"));
        let offer = ("sec-websocket-protocol", "yunque.pb, bearer.s");
        assert_eq!(token("/ws?token=q", &[header, cookie, offer]).unwrap(), "h");
        assert_eq!(token("/ws?token=q", &[cookie, offer]).unwrap(), "q");
        assert_eq!(token("/ws", &[cookie, offer]).unwrap(), "c");
        assert_eq!(token("/ws", &[offer]).unwrap(), "s");
        assert_eq!(token("/ws?token=", &[("authorization", "Basic eDp5")]), None);
        assert_eq!(token("/ws", &[("authorization", "bearer  x ")]).unwrap(), "x");
        assert_eq!(token("/ws?token=a%2Bb", &[]).unwrap(), "a+b");
        assert_eq!(token("/ws", &[("cookie", "xtoken=1"), ("cookie", "token=\"2\"")]).unwrap(), "2");
    }

    #[test]
    fn cookie_without_an_allowed_origin_is_refused_or_ignored() {
        let no_cookie = TokenSources { cookie: Cookie::Refused, ..ALL };
        let read = |headers: &[_]| presented("/", headers, no_cookie).map(|p| p.claim.token);
        assert_eq!(read(&[("cookie", "token=c")]), Err(BadHandshake::CookieWithoutOrigin));
        assert_eq!(read(&[("cookie", "token=c; theme=dark"), ("authorization", "Bearer h")]), Ok(Some("h".into())));
        assert_eq!(read(&[("cookie", "theme=dark")]), Ok(None));
        let ignored = TokenSources { cookie: Cookie::Ignored, ..ALL };
        let passed_over = presented("/", &[("cookie", "token=c")], ignored).map(|p| p.claim.token);
        assert_eq!(passed_over, Ok(None));
    }

    #[test]
    fn the_query_can_be_closed_to_tokens_and_never_shows_one() {
        let closed = TokenSources { query_token: false, ..ALL };
        let refused = presented("/ws?token=canary", &[], closed).err().unwrap();
        assert!(
            refused.to_string().starts_with("token: expected in Authorization")
                && !refused.to_string().contains("canary")
        );
        let open = presented("/ws?a=1&token=canary&device=d&token=canary2&b=%20", &[], ALL).ok().unwrap();
        assert_eq!(open.path, "/ws?a=1&device=d&b=+");
        assert_eq!(open.claim.device.as_deref(), Some("d"));
        assert_eq!(presented("/ws?token=x", &[], ALL).ok().unwrap().path, "/ws");
    }

    #[test]
    fn request_to_resume_in_the_query_is_bind_data_and_not_in_the_path() {
        let handshake = presented("/ws?token=t&resume=%5B%5B%22u%22%5D%5D&a=1&cid=7", &[], ALL).ok().unwrap();
        assert_eq!(handshake.path, "/ws?a=1");
        let data: Vec<_> = handshake.claim.data.iter().collect();
        assert_eq!(data, [("resume", r#"[["u"]]"#), ("cid", "7")]);
    }

    #[test]
    fn a_dialect_is_chosen_by_subprotocol_then_query() {
        let table: &[(&str, &str, Option<&str>, Option<&str>)] = &[
            ("/ws", "", None, None),
            ("/ws?dialect=cim.json", "", Some("cim.json"), None),
            ("/ws?dialect=yunque", "", Some("yunque.pb"), None),
            ("/ws?dialect=cim.json", "chat, yunque.json, cim.pb", Some("yunque.json"), Some("yunque.json")),
            ("/ws", "bearer.abc, cim.pb", Some("cim.pb"), Some("cim.pb")),
            ("/ws", "bearer.abc", None, None),
        ];
        for (uri, offer, form, echo) in table {
            let headers: &[_] = if offer.is_empty() { &[] } else { &[("sec-websocket-protocol", *offer)] };
            let presented = presented(uri, headers, ALL).ok().unwrap();
            assert_eq!(presented.form.map(Form::as_str), *form, "{uri} {offer}");
            assert_eq!(presented.subprotocol, *echo, "{uri} {offer}");
        }
    }

    #[test]
    fn invalid_dialect_or_fact_of_a_handshake_is_refused_by_name() {
        let long = format!("/ws?channel={}", "x".repeat(257));
        let table: &[(&str, &str, &str)] = &[
            ("/ws?dialect=morse", "", "dialect: expected yunque.pb, yunque.json, cim.pb or cim.json, got \"morse\""),
            (
                "/ws",
                "chat",
                "Sec-WebSocket-Protocol: expected yunque.pb, yunque.json, cim.pb or cim.json, got \"chat\"",
            ),
            ("/ws?device=a,b", "", "device: expected no comma or control character, got \"a,b\""),
            (&long, "", "channel: expected at most 256 bytes, got 257"),
        ];
        for (uri, offer, words) in table {
            let headers: &[_] = if offer.is_empty() { &[] } else { &[("sec-websocket-protocol", *offer)] };
            assert_eq!(presented(uri, headers, ALL).err().unwrap().to_string(), *words);
        }
    }
}
