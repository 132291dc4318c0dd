//! Compares books with stays. Pure: the same input gives the same verdict.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use super::{Book, End, Entry, Fate, Stay, Stream, Window, parse_id, text_of};

/// A message in flight at the start of a fault may have been acknowledged up to this long before, in microseconds.
const UNDER_WAY: u64 = 1_000_000;
/// Longest answer time: two seconds plus the delay of a busy machine. Far below a publisher's timeout.
const ANSWER: Duration = Duration::from_secs(15);
/// A client receives its gap notice at most this long after the repair, in microseconds.
const TOLD_WITHIN: u64 = 20_000_000;
/// Number of faults that are printed; the others are only counted.
const TOLD: usize = 12;

/// The result of a drill.
#[derive(Debug, Default)]
pub struct Verdict {
    pub published: usize,
    pub acked: usize,
    pub nobody: usize,
    pub refused: usize,
    pub unknown: usize,
    /// Messages received, summed over all connections.
    pub received: usize,
    /// Messages that a device received again on its next connection; a client's dedupe removes them.
    pub repeats: usize,
    /// Received although the answer was that the message was refused or reached no client.
    pub ghosts: usize,
    /// Missing, and declared to the publisher or the client.
    pub declared: usize,
    /// Missing and not declared.
    pub lost: usize,
    pub doubled: usize,
    /// Out of order on a plain channel, and counted as doubtful by its reader.
    pub late: usize,
    pub reordered: usize,
    pub slowest: Duration,
    /// Number of gap notices.
    pub gaps: usize,
    /// Connections that the peer closed, by close code.
    pub closed: BTreeMap<u16, usize>,
    /// Other violations.
    pub faults: Vec<String>,
}

impl Verdict {
    pub fn is_exact(&self) -> bool {
        self.lost + self.doubled + self.reordered + self.faults.len() == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, acked, nobody, refused, unknown, received, repeats, ghosts, declared, .. } = self;
        let word = if self.is_exact() { "exact" } else { "BROKEN" };
        writeln!(
            out,
            "{published} published: {acked} acked, {nobody} without receiver, {refused} refused, {unknown} unanswered"
        )?;
        writeln!(
            out,
            "{received} received, {repeats} repeated, {ghosts} unexpected, {declared} lost and declared; slowest answer {:?}",
            self.slowest
        )?;
        let Self { gaps, closed, late, .. } = self;
        writeln!(out, "{gaps} gap notices; closed by code: {closed:?}; {late} late and doubtful")?;
        write!(out, "{word}: {} lost, {} doubled, {} out of order", self.lost, self.doubled, self.reordered)?;
        self.faults.iter().try_for_each(|fault| write!(out, "\n  {fault}"))
    }
}

/// The counters of plain channel readers. Dropped: another reader held the lease by then. Doubtful: handed on while the
/// lease was uncertain, so the message may arrive behind those of the next reader.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counted {
    pub dropped: usize,
    pub doubtful: usize,
}

/// Compares the received messages with the promised ones.
pub fn judge(books: &[Book], stays: &[Stay], windows: &[Window], counted: Counted) -> Verdict {
    let mut court = Court::new(books, windows, counted);
    for stay in stays {
        court.hear(stay);
    }
    court.count_repeats(stays);
    court.close(books, stays)
}

struct Court<'a> {
    books: HashMap<u32, &'a Book>,
    /// Indexes in a book by publisher and stream, in order.
    streams: HashMap<(u32, Stream), Vec<usize>>,
    windows: &'a [Window],
    dropped: Share,
    doubtful: Share,
    verdict: Verdict,
}

/// A number of counted messages. Each accounts for all connections that should have received it.
struct Share {
    left: usize,
    known: HashSet<u64>,
}

impl Share {
    fn of(counted: usize) -> Self {
        Self { left: counted, known: HashSet::new() }
    }

    /// True if this message may be one of the counted ones.
    fn holds(&mut self, id: u64) -> bool {
        if self.left > 0 && self.known.insert(id) {
            self.left -= 1;
        }
        self.known.contains(&id)
    }
}

impl<'a> Court<'a> {
    fn new(books: &'a [Book], windows: &'a [Window], counted: Counted) -> Self {
        let mut streams: HashMap<(u32, Stream), Vec<usize>> = HashMap::new();
        for book in books {
            for (index, entry) in book.entries.iter().enumerate() {
                streams.entry((book.publisher, entry.stream)).or_default().push(index);
            }
        }
        let books = books.iter().map(|book| (book.publisher, book)).collect();
        let (dropped, doubtful) = (Share::of(counted.dropped), Share::of(counted.doubtful));
        Self { books, streams, windows, dropped, doubtful, verdict: Verdict::default() }
    }

    fn fault(&mut self, fault: String) {
        self.verdict.faults.push(fault);
    }

    /// Checks the messages that one connection received and those it missed.
    fn hear(&mut self, stay: &Stay) {
        self.verdict.received += stay.heard.len();
        self.verdict.gaps += stay.gaps.len();
        if let End::Cut(Some(code)) = stay.end {
            *self.verdict.closed.entry(code).or_default() += 1;
        }
        let who = format!("u{}/{} on n{}", stay.user, stay.device, stay.place + 1);
        for fault in &stay.faults {
            self.fault(format!("{who}: {fault}"));
        }
        let mut seen = HashSet::new();
        let mut last: HashMap<(u32, Stream), usize> = HashMap::new();
        for id in &stay.heard {
            let Some((publisher, index, entry)) = self.entry(*id) else {
                self.fault(format!("{who} received {id:#x}, which was not published"));
                continue;
            };
            if !stay.is_for(entry.stream) {
                self.fault(format!("{who} received {id:#x} of {:?}, which is not its own", entry.stream));
            } else if !seen.insert(*id) {
                self.verdict.doubled += 1;
                self.tell(format!("{who} received {id:#x} twice"));
            } else if entry.fate == Fate::Acked {
                let before = last.entry((publisher, entry.stream)).or_insert(index);
                let book = self.books[&publisher];
                let is_late = index < *before && book.is_ordered;
                if is_late && book.is_at_most_once && self.doubtful.holds(*id) {
                    self.verdict.late += 1;
                } else if is_late {
                    self.verdict.reordered += 1;
                    self.tell(format!("{who} received {id:#x} after a later message of {:?}", entry.stream));
                }
                *before = index.max(*before);
            } else if entry.fate != Fate::Unknown {
                self.verdict.ghosts += 1;
            }
        }
        for stream in stay.streams() {
            let publishers: Vec<u32> = self.books.keys().copied().collect();
            for publisher in publishers {
                let end = match stay.end {
                    End::Marked | End::Unmarked => usize::MAX,
                    // In an unordered stream, the last received message says nothing about earlier ones.
                    End::Left | End::Cut(_) if !self.books[&publisher].is_ordered => 0,
                    // Up to the last received message; a connection without messages proves nothing.
                    End::Left | End::Cut(_) => last.get(&(publisher, stream)).map_or(0, |last| last + 1),
                };
                self.miss(stay, &who, (publisher, stream), end, &seen);
            }
        }
    }

    fn entry(&self, id: u64) -> Option<(u32, usize, Entry)> {
        let (publisher, index) = parse_id(id)?;
        Some((publisher, index, *self.books.get(&publisher)?.entries.get(index)?))
    }

    /// Counts the messages of this stream before `end` that the connection should have received and did not.
    fn miss(&mut self, stay: &Stay, who: &str, key: (u32, Stream), end: usize, seen: &HashSet<u64>) {
        let Some(indexes) = self.streams.get(&key) else { return };
        let book = self.books[&key.0];
        let expected = indexes.iter().filter(|index| {
            let entry = &book.entries[**index];
            **index < end && entry.fate == Fate::Acked && entry.begun >= stay.bound
        });
        let missing: Vec<usize> = expected.copied().filter(|index| !seen.contains(&book.id(*index))).collect();
        for index in missing {
            let (entry, id) = (&book.entries[index], book.id(index));
            if self.is_declared(stay, book, entry) || book.is_at_most_once && self.dropped.holds(id) {
                self.verdict.declared += 1;
            } else {
                self.verdict.lost += 1;
                let at = entry.begun / 1000;
                self.tell(format!(
                    "{who} did not receive {id:#x} of {:?}, published by {} at {at} ms",
                    key.1, book.way
                ));
            }
        }
    }

    /// True if a fault was active and the client got a gap notice for it, or the intake is at most once.
    fn is_declared(&self, stay: &Stay, book: &Book, entry: &Entry) -> bool {
        self.windows.iter().any(|window| {
            let is_hit = entry.ended + UNDER_WAY >= window.from && entry.begun <= window.to;
            let is_its = |gap: &u64| (window.from..=window.to + TOLD_WITHIN).contains(gap);
            is_hit && (book.is_at_most_once || stay.gaps.iter().any(is_its))
        })
    }

    fn tell(&mut self, words: String) {
        if self.verdict.faults.len() < TOLD {
            self.verdict.faults.push(words);
        }
    }

    /// A device that was on another node in between may receive a message again.
    fn count_repeats(&mut self, stays: &[Stay]) {
        let mut devices: HashMap<(u32, u32), HashSet<u64>> = HashMap::new();
        for stay in stays {
            let before = devices.entry((stay.user, stay.device)).or_default();
            let own: HashSet<u64> = stay.heard.iter().copied().collect();
            self.verdict.repeats += own.intersection(before).count();
            before.extend(own);
        }
    }

    fn close(mut self, books: &[Book], stays: &[Stay]) -> Verdict {
        for book in books {
            for entry in &book.entries {
                match entry.fate {
                    Fate::Acked => self.verdict.acked += 1,
                    Fate::Nobody => self.verdict.nobody += 1,
                    Fate::Refused => self.verdict.refused += 1,
                    Fate::Unknown => self.verdict.unknown += 1,
                }
            }
            self.verdict.published += book.entries.len();
            self.verdict.slowest = self.verdict.slowest.max(book.slowest);
            for fault in &book.faults {
                self.fault(format!("{} {}: {fault}", book.way, book.publisher));
            }
        }
        // Losses are reported above; this reports a marker that is only late.
        let unmarked = stays.iter().filter(|stay| stay.end == End::Unmarked).count();
        if unmarked > 0 {
            self.fault(format!("{unmarked} connections did not receive every closing marker"));
        }
        if self.verdict.slowest > ANSWER {
            self.fault(format!("an answer took {:?}: expected one within two seconds", self.verdict.slowest));
        }
        if self.verdict.acked == 0 {
            self.fault("no message was acknowledged".to_owned());
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Counted = Counted { dropped: 0, doubtful: 0 };

    const fn entry(stream: Stream, at: u64, fate: Fate) -> Entry {
        Entry { stream, begun: at, ended: at + 5, fate }
    }

    /// Ten messages for user 1, ten microseconds apart; the fourth was refused.
    fn book() -> Book {
        let fate = |index| if index == 3 { Fate::Refused } else { Fate::Acked };
        let entries = (0..10).map(|index| entry(Stream::User(1), index * 10, fate(index))).collect();
        let (markers, faults, slowest) = (Vec::new(), Vec::new(), Duration::ZERO);
        Book { publisher: 0, way: "http", is_ordered: true, is_at_most_once: false, entries, markers, slowest, faults }
    }

    fn stay(indexes: &[usize], end: End) -> Stay {
        let heard = indexes.iter().map(|index| super::super::message_id(0, *index)).collect();
        let (rooms, gaps, faults) = (Vec::new(), Vec::new(), Vec::new());
        Stay { user: 1, device: 0, rooms, place: 0, bound: 0, heard, gaps, end, faults }
    }

    fn counts(stays: &[Stay], windows: &[Window]) -> [usize; 4] {
        let verdict = judge(&[book()], stays, windows, NONE);
        assert_eq!(verdict.is_exact(), verdict.faults.is_empty(), "{verdict}");
        [verdict.lost, verdict.doubled, verdict.reordered, verdict.declared]
    }

    #[test]
    fn lost_repeated_and_reordered_messages_are_counted_apart() {
        assert_eq!(counts(&[stay(&[0, 1, 2, 4, 5, 6, 7, 8, 9], End::Marked)], &[]), [0; 4]);
        assert_eq!(counts(&[stay(&[0, 1, 4, 5, 6, 7, 8, 9], End::Marked)], &[]), [1, 0, 0, 0]);
        assert_eq!(counts(&[stay(&[0, 1, 2, 4, 4, 5, 6, 7, 8, 9], End::Marked)], &[]), [0, 1, 0, 0]);
        assert_eq!(counts(&[stay(&[0, 2, 1, 4, 5, 6, 7, 8, 9], End::Marked)], &[]), [0, 0, 1, 0]);
        assert_eq!(judge(&[book()], &[stay(&[99], End::Left)], &[], NONE).faults.len(), 1);
    }

    #[test]
    fn stay_is_judged_only_between_its_first_and_last_message() {
        let late = Stay { bound: 45, ..stay(&[5, 6, 7, 8, 9], End::Marked) };
        assert_eq!(counts(&[stay(&[0, 1, 2], End::Left), late], &[]), [0; 4]);
        assert_eq!(counts(&[stay(&[0, 2, 5], End::Left)], &[]), [2, 0, 0, 0]);
        assert_eq!(
            counts(&[stay(&[], End::Left)], &[]),
            [0; 4],
            "a device that left before its first message counts as a loss"
        );
        let unordered = Book { is_ordered: false, ..book() };
        let early = [stay(&[0, 5, 2], End::Left), stay(&[4], End::Cut(None))];
        assert_eq!(judge(&[unordered], &early, &[], NONE).lost, 0, "later messages of an unordered book count as lost");
    }

    #[test]
    fn gap_notice_about_a_fault_declares_the_loss() {
        let told = || Stay { gaps: vec![60], ..stay(&[0, 1, 2, 7, 8, 9], End::Marked) };
        assert_eq!(counts(&[told()], &[Window { from: 40, to: 62 }]), [0, 0, 0, 3]);
        // A message published after the fault is not covered by it, and without a fault a gap notice excuses nothing.
        assert_eq!(counts(&[told()], &[Window { from: 40, to: 52 }]), [1, 0, 0, 2]);
        assert_eq!(counts(&[told()], &[]), [3, 0, 0, 0]);
        for gaps in [Vec::new(), vec![39], vec![62 + TOLD_WITHIN + 1]] {
            let untold = Stay { gaps, ..told() };
            assert_eq!(counts(&[untold], &[Window { from: 40, to: 62 }]), [3, 0, 0, 0]);
        }
    }

    #[test]
    fn dropped_count_of_a_channel_reader_declares_losses() {
        let channel = Book { is_at_most_once: true, ..book() };
        let both = [stay(&[0, 1, 2, 6, 7, 8, 9], End::Marked), stay(&[0, 1, 2, 6, 7, 8, 9], End::Marked)];
        for (dropped, expected) in [(0, [4, 0]), (1, [2, 2]), (2, [0, 4])] {
            let counted = Counted { dropped, ..NONE };
            let verdict = judge(std::slice::from_ref(&channel), &both, &[], counted);
            assert_eq!([verdict.lost, verdict.declared], expected, "wrong verdict with {dropped} counted losses");
        }
        assert_eq!(
            judge(&[book()], &both, &[], Counted { dropped: 2, ..NONE }).lost,
            4,
            "losses of another way in were excused"
        );
        let late = [stay(&[0, 2, 1, 4, 5, 6, 7, 8, 9], End::Marked)];
        for (doubtful, expected) in [(0, [1, 0]), (1, [0, 1])] {
            let verdict = judge(std::slice::from_ref(&channel), &late, &[], Counted { doubtful, ..NONE });
            assert_eq!([verdict.reordered, verdict.late], expected, "wrong verdict with {doubtful} doubtful messages");
        }
        assert_eq!(judge(&[book()], &late, &[], Counted { doubtful: 1, ..NONE }).reordered, 1);
    }

    #[test]
    fn a_repeat_on_the_next_connection_is_counted() {
        let late = Stay { bound: 45, ..stay(&[2, 5, 6, 7, 8, 9], End::Marked) };
        assert_eq!(judge(&[book()], &[stay(&[0, 1, 2], End::Left), late], &[], NONE).repeats, 1);
        assert_ne!(text_of(1), text_of(2));
    }
}
