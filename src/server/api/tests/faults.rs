//! Invalid paths, methods, keys, content types, sizes and parameters: every response has the common format, and nothing
//! is delivered.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Frame;

use super::*;

const MESSAGE: &str = r#"{"receiver":"1074","action":"chat"}"#;

fn post_with(path: &str, headers: &[(&str, &str)], body: &'static str) -> Request<Full<Bytes>> {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body)).unwrap()
}

/// A body that arrives in pieces and then ends or hangs.
struct Pieces {
    left: Vec<&'static str>,
    hangs: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.left.pop() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(Bytes::from(piece))))),
            None if self.hangs => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

/// A body that ends with an error.
struct Broken;

impl Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())))
    }
}

#[tokio::test]
async fn wrong_path_is_404_and_wrong_method_405() {
    let bench = Bench::new();
    let (status, text) = bench.post("/Send", MESSAGE).await.fault();
    assert_eq!((status, &*text), (404, "path: expected /send, got \"/Send\""));
    let (status, text) = bench.get("/login/getUserinfo").await.fault();
    assert_eq!((status, &*text), (404, "path: user info is not part of this API: use your own user service"));
    let got = bench.get("/send").await;
    assert_eq!(got.fault(), (405, "method: expected POST, got GET".into()));
    assert_eq!(got.headers["allow"], "POST");
    let got = bench.post("/rooms", "").await;
    assert_eq!(got.fault(), (405, "method: expected GET, HEAD, got POST".into()));
    assert_eq!(got.headers["allow"], "GET, HEAD");
    assert!(bench.fake.batches().is_empty());
}

#[tokio::test]
async fn keys_open_their_scopes_only() {
    let key = |name: &str, scope| ApiKey { name: name.into(), key: format!("{name}-secret"), scopes: vec![scope] };
    let scoped = [("shop", Scope::Push), ("eyes", Scope::Read), ("ops", Scope::Manage), ("deploy", Scope::Plugins)];
    let keys = scoped.map(|(name, scope)| key(name, scope)).to_vec();
    let bench = Bench::with(|config| config.api.keys = keys);
    for route in routes::ROUTES {
        let right = match route.access {
            Access::Key(Scope::Push) => "shop-secret",
            Access::Key(Scope::Read) => "eyes-secret",
            Access::Key(Scope::Manage) => "ops-secret",
            Access::Key(Scope::Plugins) => "deploy-secret",
            Access::Open | Access::Probe => continue,
        };
        let method = if route.verb == routes::Verb::Get { Method::GET } else { Method::POST };
        let call = async |key: &str| {
            let request = Request::builder().method(method.clone()).uri(route.path).header("x-api-key", key);
            bench.send(request.body(Full::from("0")).unwrap()).await
        };
        for wrong in ["shop-secret", "eyes-secret", "ops-secret", "deploy-secret"].into_iter().filter(|k| *k != right) {
            let (status, text) = call(wrong).await.fault();
            assert_eq!(status, 403, "{} {text}", route.path);
        }
        let got = call("guess").await;
        assert_eq!((got.fault().0, &got.headers["www-authenticate"]), (401, &"Bearer".parse().unwrap()));
        let passed = call(right).await.status;
        // A missing plugin is reported only after the key was checked.
        assert!(
            passed == 200 || passed == 400 || (passed == 404 && route.path.contains('{')),
            "{}: {passed}",
            route.path
        );
    }
    assert_eq!(bench.get("/").await.status, 200);
    assert_eq!(bench.get("/metrics").await.status, 200);
    let probe = Request::get("/metrics").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(bench.send_to(probe, &[Service::Api]).await.status, 401);
}

#[tokio::test]
async fn keys_change_while_the_node_runs() {
    let bench = Bench::new();
    assert_eq!(bench.get("/rooms").await.status, 200);
    let keys = vec![ApiKey { name: "eyes".into(), key: "secret".into(), scopes: vec![Scope::Read] }];
    let api = config::ApiSettings { keys, insecure: false };
    bench.fake.config.store(Arc::new(Config { api, ..bench.config.clone() }));
    assert_eq!(bench.get("/rooms").await.status, 401);
}

#[tokio::test]
async fn unsupported_content_type_is_415() {
    let bench = Bench::new();
    for (path, headers, body, status) in [
        ("/send", vec![("content-type", "application/json; charset=utf-8")], MESSAGE, 200),
        ("/send", vec![("content-type", "text/json")], MESSAGE, 200),
        ("/send", vec![("content-type", "text/plain")], MESSAGE, 415),
        ("/send", vec![("content-type", "application/x-www-form-urlencoded")], MESSAGE, 200),
        ("/send", vec![("content-type", "application/x-www-form-urlencoded")], "receiver=1074", 415),
        ("/send", vec![("content-type", "application/x-protobuf")], MESSAGE, 415),
        ("/send", vec![("content-type", "multipart/form-data; boundary=x")], MESSAGE, 415),
        ("/send", vec![("content-type", "application/json; charset=gbk")], MESSAGE, 415),
        ("/send", vec![("content-type", "")], MESSAGE, 415),
        ("/send", vec![("content-encoding", "gzip")], MESSAGE, 415),
        ("/kick", vec![("content-type", "application/xml")], "{}", 415),
        ("/publish", vec![("content-type", "application/x-protobuf")], "\u{a}\u{4}1074\u{22}\u{4}\u{12}\u{2}hi", 200),
        ("/publish", vec![("content-type", "image/png")], MESSAGE, 415),
    ] {
        let got = bench.send(post_with(path, &headers, body)).await;
        assert_eq!(got.status, status, "{path} {headers:?} {}", got.body);
        if status != 200 {
            let (_, text) = got.fault();
            assert!(text.starts_with("content-") && text.contains("expected"), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn oversized_body_is_413_and_slow_body_408() {
    let bench = Bench::new();
    let large = format!(r#"{{"receiver":"1074","content":{{"text":"{}"}}}}"#, "x".repeat(4096));
    let (status, text) = bench.post("/send", large).await.fault();
    assert_eq!(status, 413);
    assert!(text.starts_with("body: expected at most 4096 bytes, got 4"), "{text}");

    // No length is announced, so the limit must apply while reading.
    let endless = Pieces { left: vec!["0123456789abcdef"; 257], hangs: false };
    let (status, _) = bench.send(Request::post("/send").body(endless).unwrap()).await.fault();
    assert_eq!(status, 413);

    let pieces = Pieces { left: vec![r#""chat"}"#, r#"74","action":"#, r#"{"receiver":"10"#], hangs: false };
    assert_eq!(bench.send(Request::post("/send").body(pieces).unwrap()).await.data()["delivered"], 1);
    assert_eq!(bench.fake.batches().len(), 1);

    let slow = Pieces { left: vec![r#"{"receiver":"10"#], hangs: true };
    let asked = Instant::now();
    let (status, text) = bench.send(Request::post("/send").body(slow).unwrap()).await.fault();
    assert_eq!((status, asked.elapsed()), (408, bench.config.limits.message_timeout));
    assert!(text.starts_with("body: expected all of it within "), "{text}");
    assert!(bench.config.limits.message_timeout > Duration::ZERO);

    let (status, text) = bench.send(Request::post("/send").body(Broken).unwrap()).await.fault();
    assert_eq!((status, &*text), (400, "body: expected all of it, got connection reset"));
    assert!(bench.fake.batches().is_empty());
}

#[tokio::test]
async fn invalid_query_parameter_is_400_with_its_name() {
    let bench = Bench::new();
    let integer = "expected an integer from";
    for (target, fault) in [
        ("/getOnlineUser?page=0", format!("page: {integer} 1 to 4294967295, got \"0\"")),
        ("/getOnlineUser?size=1001", format!("size: {integer} 1 to 1000, got \"1001\"")),
        ("/connections?size=", format!("size: {integer} 1 to 1000, got \"\"")),
        ("/connections?cursor=x", format!("cursor: {integer} 0 to 9007199254740991, got \"x\"")),
        ("/connections?page=1&cursor=5", "page: expected either page or cursor, got both".into()),
        ("/connections?uid=", "uid: expected a non-empty string, got \"\"".into()),
        ("/rooms?cursor=a,b", "cursor: expected no comma or control character, got \"a,b\"".into()),
        ("/rooms?uid=1", "query: expected one of page, size, cursor, got \"uid\"".into()),
        ("/nodes?x", "query: expected no parameter, got \"x\"".into()),
        ("/plugins?x=1", "query: expected no parameter, got \"x\"".into()),
    ] {
        assert_eq!(bench.get(target).await.fault(), (400, fault), "{target}");
    }
    let got = bench.post("/send?receipt=true", MESSAGE).await;
    assert_eq!(got.fault(), (400, "query: expected one of receipts, got \"receipt\"".into()));
    // Scrapers and probes add their own parameters.
    assert_eq!(bench.get("/metrics?name[]=x").await.status, 200);
}

#[tokio::test]
async fn push_during_a_broker_outage_is_503() {
    let bench = Bench::new();
    bench.fake.break_broker();
    assert_eq!(bench.post("/send", MESSAGE).await.fault().0, 503);
    let got = bench.post("/send/sendList", format!("[{MESSAGE}]")).await;
    assert_eq!(got.fault().0, 503);
    assert_eq!(got.json()["data"]["items"][0]["error"]["code"], 503);
}
