//! Reads the body of a request once, within its limits, and determines its coding.
//!
//! Independent of paths and fields.

use std::fmt::Display;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use super::answer::Problem;
use crate::config::Limits;
use crate::protocol::push::BYTE_ORDER_MARK;

/// Coding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    /// JSON if it starts like JSON: `curl -d` labels any body as a form.
    Form,
    Protobuf,
}

/// The coding named by the headers; without a header, JSON.
///
/// # Errors
/// 415 for any other type, a charset other than UTF-8, or a compressed body.
pub(super) fn kind(headers: &HeaderMap, protobuf: bool) -> Result<Kind, Problem> {
    if let Some(coding) = headers.get(CONTENT_ENCODING).filter(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(unsupported(format!("content-encoding: expected none, got {coding:?}")));
    }
    let Some(header) = headers.get(CONTENT_TYPE) else { return Ok(Kind::Json) };
    let mut parts = header.to_str().unwrap_or_default().split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let is = |types: &[&str]| types.iter().any(|t| media_type.eq_ignore_ascii_case(t));
    let kind = if is(JSON) {
        Kind::Json
    } else if is(FORM) {
        Kind::Form
    } else if protobuf && is(PROTOBUF) {
        return Ok(Kind::Protobuf);
    } else {
        let or = if protobuf { " or application/x-protobuf" } else { "" };
        return Err(unsupported(format!("content-type: expected application/json{or}, got {header:?}")));
    };
    let charset = parts.find_map(|p| p.split_once('=').filter(|(k, _)| k.eq_ignore_ascii_case("charset")));
    match charset {
        Some((_, name)) if !is_utf8(name.trim_matches('"')) => {
            Err(unsupported(format!("content-type: expected charset utf-8, got {name:?}")))
        }
        _ => Ok(kind),
    }
}

/// Reads the whole body. A body that arrives in one piece is not copied.
///
/// # Errors
/// 413 over `limits.body_bytes`, 408 if it is incomplete after `limits.message_timeout`, 400 if the connection breaks,
/// 415 for an actual form.
pub(super) async fn read<B>(body: B, kind: Kind, limits: &Limits) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    let announced = body.size_hint().lower();
    if announced > limits.body_bytes as u64 {
        return Err(too_large(limits, announced));
    }
    let whole = tokio::time::timeout(limits.message_timeout, collect(body, limits)).await;
    let bytes = whole.map_err(|_| {
        let text = format!("body: expected all of it within {}", humantime::format_duration(limits.message_timeout));
        Problem::new(StatusCode::REQUEST_TIMEOUT, text)
    })??;
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    if kind == Kind::Form && !matches!(text.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return Err(unsupported("content-type: expected application/json, got a form".to_owned()));
    }
    Ok(bytes)
}

async fn collect<B>(body: B, limits: &Limits) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Problem::bad_request(format!("body: expected all of it, got {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let size = first.len() + rest.len() + data.len();
        if size > limits.body_bytes {
            return Err(too_large(limits, size as u64));
        }
        if rest.is_empty() && first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(size + usize::try_from(body.size_hint().lower()).unwrap_or(0));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn too_large(limits: &Limits, bytes: u64) -> Problem {
    let text = format!("body: expected at most {} bytes, got {bytes} or more", limits.body_bytes);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text)
}

fn unsupported(text: String) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text)
}

fn is_utf8(charset: &str) -> bool {
    ["utf-8", "utf8", "us-ascii"].iter().any(|c| charset.eq_ignore_ascii_case(c))
}

const JSON: &[&str] = &["application/json", "text/json"];
const FORM: &[&str] = &["application/x-www-form-urlencoded"];
const PROTOBUF: &[&str] = &["application/x-protobuf", "application/protobuf"];
