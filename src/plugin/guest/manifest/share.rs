//! Senders that a canary serves: a share of all senders, the same ones each time.
//!
//! Knows no call and no version: it gets the names of the plugin and the sender.

use std::borrow::Cow;
use std::fmt;

use crate::message::{Envelope, Target};
use crate::plugin::{Call, Claim, Event, Transport};

/// A share of all senders, in hundredths of a per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) struct Share(u16);

const WHOLE: u16 = 10_000;

impl Share {
    /// Parses `"5%"` or `"0.5%"`: more than 0 and less than 100, with at most two decimals.
    pub(in crate::plugin) fn parse(text: &str) -> Option<Self> {
        let number = text.strip_suffix('%')?.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || part.len() > 2 || !digits(whole) || !digits(part) {
            return None;
        }
        let hundredths: u16 = format!("{part:0<2}").parse().ok()?;
        let share = whole.parse::<u16>().ok()?.checked_mul(100)?.checked_add(hundredths)?;
        (1..WHOLE).contains(&share).then_some(Self(share))
    }

    /// True if this sender is in the share. The plugin's name gives two plugins different senders.
    pub(in crate::plugin) fn contains(self, plugin: &str, sender: &str) -> bool {
        sender_hash(plugin.bytes().chain([0]).chain(sender.bytes())) % u64::from(WHOLE) < u64::from(self.0)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match (part, part % 10) {
            (0, _) => write!(f, "{whole}%"),
            (_, 0) => write!(f, "{whole}.{}%", part / 10),
            _ => write!(f, "{whole}.{part:02}%"),
        }
    }
}

/// FNV-1a with a final mix of the bits: the same on every node and in every version of this program.
fn sender_hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// Sender of a publish: the client, else the sender that the message names, else its single target. A push with none of
/// them has no sender, and the stable version takes it.
pub(in crate::plugin) fn publisher(envelope: &Envelope) -> Option<Cow<'_, str>> {
    if let Some(from) = &envelope.from {
        return Some(from.uid.as_str().into());
    }
    if !envelope.message.sender.is_empty() {
        return Some(envelope.message.sender.as_str().into());
    }
    match &envelope.target {
        Target::User(uid) | Target::Device(uid, _) | Target::ConnectionOf(uid, _) => Some(uid.as_str().into()),
        Target::Room(room) => Some(room.as_str().into()),
        Target::Connection(cid) => Some(cid.as_u64().to_string().into()),
        Target::Users(_) | Target::Everyone | Target::EveryoneBut(_) => None,
    }
}

/// Client that asks for admission: its name, else its token, else its address.
pub(in crate::plugin) fn claimant<'a>(transport: &'a Transport, claim: &'a Claim) -> Cow<'a, str> {
    let shown = claim.uid.as_deref().or(claim.token.as_deref());
    shown.unwrap_or(&transport.remote).into()
}

/// Caller of a SendBody.
pub(in crate::plugin) fn caller(call: &Call) -> Cow<'_, str> {
    match &call.caller {
        Some(identity) => identity.uid.as_str().into(),
        None => call.cid.as_u64().to_string().into(),
    }
}

/// User of an event.
pub(in crate::plugin) fn subject(event: &Event) -> Cow<'_, str> {
    event.uid().as_str().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_per_cent_between_0_and_100() {
        for (text, shown) in
            [("5%", "5%"), ("0.5%", "0.5%"), ("33.25 %", "33.25%"), ("99.99%", "99.99%"), ("0.01%", "0.01%")]
        {
            assert_eq!(Share::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", "%", "5", "0%", "0.00%", "100%", "-1%", "1.234%", ".5%", "+5%", "5%%", "99999999%", "1e1%"] {
            assert_eq!(Share::parse(text), None, "{text}");
        }
    }

    #[test]
    fn share_selects_its_percentage_of_senders_repeatably() {
        let share = Share::parse("5%").unwrap();
        let taken = |plugin: &str| -> Vec<u32> {
            (0..20_000).filter(|sender| share.contains(plugin, &sender.to_string())).collect()
        };
        let (filter, other) = (taken("filter"), taken("other"));
        for taken in [&filter, &other] {
            assert!((850..1_150).contains(&taken.len()), "{} of 20000", taken.len());
        }
        assert_eq!(filter, taken("filter"));
        let both = filter.iter().filter(|sender| other.contains(sender)).count();
        assert!(both < 120, "{both} senders are in both");
    }
}
