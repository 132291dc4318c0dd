//! Handshakes that a browser, an SDK or an attacker may send, and their results.

use super::*;
use crate::config::DevicePolicy;
use crate::protocol::Dialect;

/// Headers by name; an empty value removes the default header.
type Headers<'a> = &'a [(&'static str, &'a str)];

fn listener(serves: &[Service]) -> Listener {
    Listener {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        serves: serves.to_vec(),
        dialect: Dialect::Yunque,
        origins: vec![if serves.contains(&Service::Cim) { "same-host" } else { "same-origin" }.to_owned()],
        devices: DevicePolicy::AllowAll,
        query_token: true,
        tls: None,
    }
}

fn request(uri: &str, headers: Headers<'_>) -> Request<()> {
    let mut request = Request::builder().uri(uri);
    let usual = [
        ("host", "a.com"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (name, value) in usual.iter().filter(|(name, _)| !headers.iter().any(|(own, _)| own == name)) {
        request = request.header(*name, *value);
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn judged(listener: &Listener, request: &Request<()>) -> HandshakeCheck {
    check(request, listener, SocketAddr::from(([10, 0, 0, 9], 5)), 0, || true)
}

fn upgrade(judged: HandshakeCheck) -> (Box<ConnectionStart>, Response<Full<Bytes>>) {
    match judged {
        HandshakeCheck::Upgrade(start, response) => (start, response),
        HandshakeCheck::Refused(response) => panic!("answered {response:?}"),
        HandshakeCheck::OtherRequest => panic!("not ours"),
    }
}

fn status(judged: HandshakeCheck) -> Option<u16> {
    match judged {
        HandshakeCheck::Upgrade(_, response) | HandshakeCheck::Refused(response) => Some(response.status().as_u16()),
        HandshakeCheck::OtherRequest => None,
    }
}

#[test]
fn a_handshake_with_a_token_is_answered_and_opens_with_it() {
    let offer = ("sec-websocket-protocol", "yunque.json, bearer.secret");
    let ask = request("/ws?device=d&v=2", &[offer, ("origin", "https://a.com"), ("user-agent", "x")]);
    let (start, response) = upgrade(judged(&listener(&[Service::Ws]), &ask));
    assert_eq!(response.status(), 101);
    // RFC 6455 §1.3 gives this key with this response.
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(response.headers()["sec-websocket-protocol"], "yunque.json");
    assert!(!format!("{response:?}").contains("secret"));
    assert_eq!(start.form, Form::websocket(Dialect::Yunque, Coding::Json));
    assert!(!start.sniffs);
    let transport = Transport {
        listener: "ws",
        remote: "10.0.0.9".into(),
        path: "/ws?device=d&v=2".into(),
        origin: Some("https://a.com".into()),
        user_agent: Some("x".into()),
        bound: None,
    };
    assert_eq!(start.transport, transport);
    match start.first_input {
        Some(FirstInput::Token(claim)) => {
            assert_eq!((claim.token.as_deref(), claim.device.as_deref()), (Some("secret"), Some("d")));
        }
        _ => panic!("no token"),
    }
}

#[test]
fn paths_belong_to_their_service() {
    let table: &[(&[Service], &str, Option<u16>)] = &[
        (&[Service::Ws], "/ws", Some(101)),
        (&[Service::Ws], "/", None),
        (&[Service::Ws], "/ws/x", None),
        (&[Service::Api], "/ws", None),
        (&[Service::Cim], "/", Some(101)),
        (&[Service::Cim], "/any", Some(101)),
        (&[Service::Ws, Service::Cim], "/ws", Some(101)),
    ];
    for (serves, path, expected) in table {
        assert_eq!(status(judged(&listener(serves), &request(path, &[]))), *expected, "{serves:?} {path}");
    }
    let both = listener(&[Service::Ws, Service::Cim]);
    assert_eq!(upgrade(judged(&both, &request("/ws", &[]))).0.transport.listener, "ws");
    assert_eq!(upgrade(judged(&both, &request("/", &[]))).0.transport.listener, "cim");
}

#[test]
fn invalid_handshake_gets_its_status() {
    let table: &[(Headers<'_>, Option<u16>)] = &[
        (&[("upgrade", "")], Some(426)),
        (&[("upgrade", "h2c")], Some(426)),
        (&[("connection", "close")], Some(400)),
        (&[("sec-websocket-version", "8")], Some(426)),
        (&[("sec-websocket-key", "")], Some(400)),
        (&[("sec-websocket-key", "short")], Some(400)),
        (&[("sec-websocket-protocol", "mqtt")], Some(400)),
        (&[("content-length", "5")], Some(400)),
        (&[("content-length", "0")], Some(101)),
        (&[("transfer-encoding", "chunked")], Some(400)),
        (&[("origin", "https://evil.com")], Some(403)),
        (&[("origin", "null")], Some(403)),
        (&[("origin", "https://a.com")], Some(101)),
    ];
    for (headers, expected) in table {
        assert_eq!(status(judged(&listener(&[Service::Ws]), &request("/ws", headers))), *expected, "{headers:?}");
    }
    let post = Request::builder().method("POST").uri("/ws").header("upgrade", "websocket").body(()).unwrap();
    assert_eq!(status(judged(&listener(&[Service::Ws]), &post)), Some(400));
    let plain = Request::builder().uri("/").body(()).unwrap();
    assert_eq!(status(judged(&listener(&[Service::Cim]), &plain)), None);
}

#[test]
fn a_cim_listener_accepts_first_and_refuses_in_band() {
    let mut cim = listener(&[Service::Cim]);
    cim.query_token = false;
    let table: &[(&str, Headers<'_>, Disconnect)] = &[
        ("/", &[("origin", "http://evil.com")], Disconnect::ORIGIN_REFUSED),
        ("/?dialect=morse", &[], Disconnect::PROTOCOL_ERROR),
        ("/?token=t", &[], Disconnect::PROTOCOL_ERROR),
    ];
    for (uri, headers, expected) in table {
        let (start, response) = upgrade(judged(&cim, &request(uri, headers)));
        assert_eq!(response.status(), 101);
        assert!(start.sniffs, "nothing is said before the first frame tells the coding");
        assert!(matches!(start.first_input, Some(FirstInput::Refused(why, _)) if why == *expected), "{uri}");
    }
    let (start, _) = upgrade(judged(&cim, &request("/", &[("origin", "http://a.com:3000")])));
    assert!(start.sniffs && matches!(start.first_input, Some(FirstInput::Unbound)));
    let (start, _) = upgrade(judged(&cim, &request("/?dialect=cim.json", &[])));
    assert!(!start.sniffs && start.form == Form::websocket(Dialect::Cim, Coding::Json));
}

#[test]
fn a_cookie_needs_an_allowed_page() {
    let cookie = ("cookie", "token=c");
    let token = |headers: Headers<'_>| {
        let (start, _) = upgrade(judged(&listener(&[Service::Ws]), &request("/ws", headers)));
        matches!(start.first_input, Some(FirstInput::Token(_)))
    };
    assert!(token(&[cookie, ("origin", "https://a.com")]));
    let bare = judged(&listener(&[Service::Ws]), &request("/ws", &[cookie]));
    assert_eq!(status(bare), Some(403), "no Origin: the cookie may come from anywhere");
    assert!(token(&[("authorization", "Bearer t")]), "a token that is no cookie needs no page");
}

#[test]
fn connect_over_the_rate_is_429_with_retry_after() {
    let judged =
        check(&request("/ws", &[]), &listener(&[Service::Ws]), SocketAddr::from(([1, 1, 1, 1], 1)), 0, || false);
    match judged {
        HandshakeCheck::Refused(response) => {
            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()["retry-after"], "1");
        }
        _ => panic!("let in"),
    }
}
