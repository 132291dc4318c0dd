//! Reference servers, each in its own process: the limit of the kernel, and a naive implementation.
//!
//! They use the push protocol of [`crate::load::wire`], have no users and rooms, and share no code with the node.

mod naive;
mod raw;

use std::net::{Ipv4Addr, SocketAddr};

use crate::load::wire::ITEM_HEAD;

/// Kinds of reference servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Reference {
    /// One thread, one poll; one write per delivery.
    RawWrite,
    /// Like `RawWrite`, but one write per connection and request.
    RawCoalesce,
    /// tokio-tungstenite with its defaults, split, one channel and two tasks per connection.
    Naive,
}

impl Reference {
    /// Name on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::RawWrite => "raw-write",
            Self::RawCoalesce => "raw-coalesce",
            Self::Naive => "naive",
        }
    }

    /// Serves until it is killed.
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::RawWrite => raw::run(false),
            Self::RawCoalesce => raw::run(true),
            Self::Naive => naive::run(),
        }
    }
}

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// One item of a push request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Push<'a> {
    first: usize,
    count: usize,
    body: &'a [u8],
}

/// The complete request at the start of `bytes`, and its length; `None` if it is incomplete.
fn request(bytes: &[u8]) -> Option<(Vec<Push<'_>>, usize)> {
    let field = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    let mut at = 4;
    let mut items = Vec::new();
    for _ in 0..field(0)? {
        let (first, count, len) = (field(at)?, field(at + 4)?, field(at + 8)?);
        at += ITEM_HEAD;
        items.push(Push { first, count, body: bytes.get(at..at + len)? });
        at += len;
    }
    Some((items, at))
}

/// The receiver's number in the path of the upgrade, `/?n=17`.
fn number(path: &str) -> Option<usize> {
    let (_, rest) = path.split_once("n=")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::payload::{Mark, SIZE};
    use crate::load::wire::{Item, To, Wire};

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let item = |user| Item { to: To::User(user), mark: Mark { sequence: user, stamp: 0 }, size: SIZE };
        let items = [1, 2].map(item);
        let mut bytes = Vec::new();
        Wire::Push.request(&mut bytes, &items, 10);
        let whole = bytes.len();
        assert_eq!(request(&bytes[..whole - 1]), None);
        bytes.push(1);
        let (read, len) = request(&bytes).unwrap();
        assert_eq!((read.len(), read[1].first, read[1].count, len), (2, 2, 1, whole));
    }

    #[test]
    fn receiver_number_is_read_from_the_query() {
        assert_eq!(number("GET /?n=17 HTTP/1.1"), Some(17));
        assert_eq!(number("/"), None);
    }
}
