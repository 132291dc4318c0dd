//! Loses, doubles or swaps some WebSocket messages from a server to its client, and counts each case.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::LineFault;
use crate::support::dice::Dice;

/// One message in this many is lost, doubled, or swapped with the next one; 0 = none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tamper {
    pub lose: usize,
    pub double: usize,
    pub swap: usize,
}

/// Counters of the tampering.
#[derive(Debug, Default)]
pub struct Tampered {
    pub lost: AtomicUsize,
    pub doubled: AtomicUsize,
    pub swapped: AtomicUsize,
}

/// Splits a server's bytes into its response head and its frames.
pub(super) struct Frames {
    dice: Dice,
    tampered: Arc<Tampered>,
    waiting: Vec<u8>,
    is_upgraded: bool,
    /// A message that is sent after the next one.
    held: Option<Vec<u8>>,
}

impl Frames {
    pub(super) fn new(dice: Dice, tampered: Arc<Tampered>) -> Self {
        Self { dice, tampered, waiting: Vec::new(), is_upgraded: false, held: None }
    }

    /// Returns the bytes to forward. Without tampering these are all of them, unchanged.
    pub(super) fn pass(&mut self, bytes: &[u8], weather: LineFault) -> Vec<u8> {
        self.waiting.extend_from_slice(bytes);
        let LineFault::Tampering(tamper) = weather else {
            // A held message is released when the weather changes.
            let mut out = self.held.take().unwrap_or_default();
            out.append(&mut self.waiting);
            return out;
        };
        let mut out = Vec::new();
        while let Some(frame) = self.next_frame() {
            self.treat(frame, tamper, &mut out);
        }
        out
    }

    /// Returns the head of the upgrade, or a complete frame. Frames of a server have no mask.
    fn next_frame(&mut self) -> Option<Vec<u8>> {
        let length = if self.is_upgraded {
            let (short, rest) = (self.waiting.get(1)? & 0x7f, self.waiting.get(2..)?);
            match short {
                126 => 4 + usize::from(u16::from_be_bytes(*rest.first_chunk()?)),
                127 => 10 + usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?,
                short => 2 + usize::from(short),
            }
        } else {
            self.waiting.windows(4).position(|four| four == b"\r\n\r\n")? + 4
        };
        if self.waiting.len() < length {
            return None;
        }
        let rest = self.waiting.split_off(length);
        Some(std::mem::replace(&mut self.waiting, rest))
    }

    fn treat(&mut self, frame: Vec<u8>, tamper: Tamper, out: &mut Vec<u8>) {
        // Binary with the type byte of MESSAGE: binds and PINGs stay unchanged.
        let is_message = self.is_upgraded && frame[0] & 0x0f == 2 && frame.get(head(&frame)) == Some(&2);
        self.is_upgraded = true;
        if !is_message {
            return out.extend(frame);
        }
        let mut now = |one_in: usize| one_in > 0 && self.dice.roll(one_in) == 0;
        let count = |deeds: &AtomicUsize| deeds.fetch_add(1, Ordering::SeqCst);
        let held = self.held.take();
        if held.is_none() && now(tamper.lose) {
            count(&self.tampered.lost);
        } else if held.is_none() && now(tamper.swap) {
            self.held = Some(frame);
            return;
        } else if held.is_none() && now(tamper.double) {
            count(&self.tampered.doubled);
            out.extend_from_slice(&frame);
            out.extend(frame);
        } else {
            out.extend(frame);
        }
        if let Some(held) = held {
            count(&self.tampered.swapped);
            out.extend(held);
        }
    }
}

/// Number of bytes before the payload.
fn head(frame: &[u8]) -> usize {
    match frame[1] & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}
