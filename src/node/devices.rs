//! Which connections of a user must give way to which: CIM's device matrix as a pure function.
//!
//! Source: farsunset/cim 4.2, its session group rules; the exception for `web` was measured with its web SDK.

use crate::config::DevicePolicy;
use crate::hub::Binding;

/// What happens to the loser of two connections of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conflict {
    /// Both stay.
    None,
    /// The same device came back: the old socket is closed without a word to its user.
    SameDevice,
    /// Another device took the place: the loser is told, so that its SDK stops dialling.
    OtherDevice,
}

/// How `a` and `b`, two connections of one user, get along.
pub(super) fn conflict(policy: DevicePolicy, a: &Binding, b: &Binding) -> Conflict {
    if policy == DevicePolicy::AllowAll {
        return Conflict::None;
    }
    let (a_channel, b_channel) = (a.channel.as_deref(), b.channel.as_deref());
    let same_device = a.device.is_some() && a.device == b.device;
    // Tabs of one browser share a deviceId: replaced silently they would redial each other to death.
    if same_device && a_channel == b_channel {
        return if a_channel == Some("web") { Conflict::None } else { Conflict::SameDevice };
    }
    match (group(a_channel), group(b_channel)) {
        (Some(a), Some(b)) if a == b => Conflict::OtherDevice,
        _ => Conflict::None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Phone,
    Desk,
}

fn group(channel: Option<&str>) -> Option<Group> {
    match channel? {
        "android" | "ios" => Some(Group::Phone),
        "windows" | "mac" | "web" => Some(Group::Desk),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Device, Uid};
    use crate::message::Entries;

    fn bound(channel: &str, device: &str) -> Binding {
        Binding {
            number: 1,
            uid: Uid::parse("u").unwrap(),
            device: Device::parse(device).ok(),
            channel: Some(channel.to_owned()).filter(|c| !c.is_empty()),
            since: 0,
            expires: None,
            facts: Entries::new(),
        }
    }

    #[test]
    fn cims_matrix() {
        let rows = [
            ("android", "1", "ios", "2", Conflict::OtherDevice),
            ("android", "1", "android", "2", Conflict::OtherDevice),
            ("android", "1", "android", "1", Conflict::SameDevice),
            ("windows", "1", "mac", "2", Conflict::OtherDevice),
            ("web", "1", "windows", "2", Conflict::OtherDevice),
            ("web", "1", "web", "1", Conflict::None),
            ("web", "1", "web", "2", Conflict::OtherDevice),
            ("android", "1", "web", "1", Conflict::None),
            ("watch", "1", "watch", "2", Conflict::None),
            ("watch", "1", "watch", "1", Conflict::SameDevice),
            ("", "", "", "", Conflict::None),
        ];
        for (ca, da, cb, db, expected) in rows {
            let (a, b) = (bound(ca, da), bound(cb, db));
            assert_eq!(conflict(DevicePolicy::Cim, &a, &b), expected, "{ca}/{da} and {cb}/{db}");
            assert_eq!(conflict(DevicePolicy::Cim, &b, &a), expected, "{cb}/{db} and {ca}/{da}");
            assert_eq!(conflict(DevicePolicy::AllowAll, &a, &b), Conflict::None);
        }
    }
}
