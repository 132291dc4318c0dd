//! Where an intake's records come from: a topic, a stream, a channel. The engine's folder gives it, `server/intake` reads it.
//!
//! Knows nothing of what a record says.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Unavailable;

/// One record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it holds.
    pub payload: Bytes,
    /// Where it stood; the same each time it comes.
    pub place: Place,
    /// How often it came before without being settled, where the engine counts; else 0.
    pub tries: u32,
}

/// Where a record stood: what makes it the same record when it comes again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The topic, and its partition where it has some: one ordered line of records.
    pub line: Arc<str>,
    /// Its place there; grows along the line. `None` where it cannot be told again.
    pub offset: Option<u64>,
}

/// A line of records with a reader's place in it.
///
/// Guarantee: records of one line come in order. Where the engine keeps a place, whatever was not settled comes again,
/// to this reader or another of its group.
pub trait Source: Send {
    /// What is there, in order, at least one record; waits for it. Not called again before the last ones are settled.
    /// Dropping the future loses nothing: what it had read comes with the next call, or again.
    ///
    /// # Errors
    /// [`Unavailable`]: ask again, the source comes back by itself and waits a little longer each time.
    fn take(&mut self) -> BoxFuture<'_, Result<Vec<Record>, Unavailable>>;

    /// Whether these, of those taken last, are this reader's still: asked before each try to publish them. Where another
    /// one may have had the line meanwhile they are lost to this reader, and the source has counted them; those that were
    /// `tried` may arrive all the same, since a try that got no answer is not taken back.
    ///
    /// # Errors
    /// [`Unavailable`]: nobody can say it now.
    fn still<'a>(&'a mut self, _places: &'a [Place], _tried: bool) -> BoxFuture<'a, Result<bool, Unavailable>> {
        ready(Ok(true)).boxed()
    }

    /// These were accepted, or buried: they do not come again.
    ///
    /// # Errors
    /// [`Unavailable`]: they may come again, with the same places.
    fn settle<'a>(&'a mut self, places: &'a [Place]) -> BoxFuture<'a, Result<(), Unavailable>>;

    /// Puts a record that can never be accepted where the operator finds it, with the reason and where it came from.
    /// It still has to be settled.
    ///
    /// # Errors
    /// [`Unavailable`]: it was not buried.
    fn bury<'a>(&'a mut self, record: &'a Record, reason: &'a str) -> BoxFuture<'a, Result<(), Unavailable>>;

    /// The records that were taken last still wait to be accepted: called every few seconds meanwhile, so that the
    /// engine does not think this reader dead.
    fn keep(&mut self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    /// How many records wait behind those taken, as far as the engine told lately.
    fn lag(&self) -> Option<u64> {
        None
    }

    /// A fault that lasts while other records still come: what `take` returns says nothing about it.
    fn fault(&self) -> Option<Unavailable> {
        None
    }

    /// Reads nothing new from now on, and gives what was read already and would not come again to anybody.
    fn stop(&mut self) -> BoxFuture<'_, Vec<Record>> {
        ready(Vec::new()).boxed()
    }

    /// Gives back what this reader alone holds (a place in a group, the one subscription), settled or not.
    fn close(&mut self) -> BoxFuture<'_, ()>;
}
