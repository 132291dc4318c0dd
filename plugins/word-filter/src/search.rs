//! Finds all words of a list in one pass over a text, for any length of the list (Aho and Corasick, 1975).
//!
//! Works on bytes and does not know letters.

use std::collections::VecDeque;

/// A compiled list. State 0 is the root. States are ordered by depth, and the children of a state are adjacent.
#[derive(Debug)]
pub(crate) struct Search {
    states: Vec<State>,
    /// Children of the root by byte, so that a text without a word is scanned fast. 0 = none.
    first: Box<[u32; 256]>,
    words: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// The byte that leads to this state.
    byte: u8,
    /// The first child, and the number of children.
    below: u32,
    count: u16,
    /// The longest other state that is a suffix of this one.
    fallback: u32,
    /// Bytes of the word that ends at this state; 0 = none.
    word: u32,
    /// The nearest state on the `fallback` chain at which a word ends; 0 = none.
    shorter: u32,
}

impl Search {
    pub(crate) fn new(words: &[String]) -> Self {
        let mut sorted: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut search = Self { states: vec![State::default()], first: Box::new([0; 256]), words: sorted.len() };
        // Pending work: a state, the words that begin with it, and its depth.
        let mut open = VecDeque::from([(0, &sorted[..], 0)]);
        while let Some((parent, mut words, depth)) = open.pop_front() {
            if let Some((shortest, longer)) = words.split_first()
                && shortest.len() == depth
            {
                search.states[parent].word = u32::try_from(depth).unwrap_or(u32::MAX);
                words = longer;
            }
            search.states[parent].below = search.next_index();
            for group in words.chunk_by(|a, b| a[depth] == b[depth]) {
                let state = search.add(parent, group[0][depth]);
                open.push_back((state, group, depth + 1));
            }
        }
        search.link();
        search
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words == 0
    }

    /// Calls `each` with the range of each word, in order of the ends, until it returns false. Ranges may overlap.
    pub(crate) fn found(&self, text: &[u8], mut each: impl FnMut(std::ops::Range<usize>) -> bool) {
        let mut state = 0;
        for (at, &byte) in text.iter().enumerate() {
            state = self.next(state, byte);
            let mut ends = state;
            while ends != 0 {
                let State { word, shorter, .. } = self.states[ends as usize];
                if word != 0 && !each(at + 1 - word as usize..at + 1) {
                    return;
                }
                ends = shorter;
            }
        }
    }

    fn next_index(&self) -> u32 {
        u32::try_from(self.states.len()).unwrap_or(u32::MAX)
    }

    fn add(&mut self, parent: usize, byte: u8) -> usize {
        let index = self.states.len();
        if parent == 0 {
            self.first[usize::from(byte)] = self.next_index();
        }
        self.states[parent].count += 1;
        self.states.push(State { byte, ..State::default() });
        index
    }

    /// A fallback is less deep than its state, so it is linked before it is needed.
    fn link(&mut self) {
        for parent in 0..self.states.len() {
            let State { below, count, fallback, .. } = self.states[parent];
            for child in below..below + u32::from(count) {
                let byte = self.states[child as usize].byte;
                let fallback = if parent == 0 { 0 } else { self.next(fallback, byte) };
                let at = self.states[fallback as usize];
                let state = &mut self.states[child as usize];
                state.fallback = fallback;
                state.shorter = if at.word != 0 { fallback } else { at.shorter };
            }
        }
    }

    fn next(&self, mut state: u32, byte: u8) -> u32 {
        while state != 0 {
            let State { below, count, fallback, .. } = self.states[state as usize];
            let below = below as usize;
            let children = &self.states[below..below + usize::from(count)];
            if let Ok(child) = children.binary_search_by_key(&byte, |child| child.byte) {
                return u32::try_from(below + child).unwrap_or(u32::MAX);
            }
            state = fallback;
        }
        self.first[usize::from(byte)]
    }
}
