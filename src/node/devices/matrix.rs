//! Conflicts between the connections of a user: CIM's device matrix as a pure function. It is the same within one node
//! and across nodes.
//!
//! Source: farsunset/cim 4.2, its session group rules; the exception for `web` was measured with its web SDK.

use crate::config::DevicePolicy;
use crate::hub::Binding;
use crate::id::Device;

/// Fields of a bound connection that the device matrix uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct BoundDevice {
    /// [`Binding::number`].
    pub(in crate::node) number: u64,
    pub(in crate::node) device: Option<Device>,
    pub(in crate::node) channel: Option<String>,
    /// Display name of the device.
    pub(in crate::node) name: String,
}

impl BoundDevice {
    pub(super) fn of(binding: &Binding) -> Self {
        let named = binding.facts.get("deviceName").filter(|name| !name.is_empty());
        let name = named.or(binding.channel.as_deref()).unwrap_or("another device");
        Self {
            number: binding.number,
            device: binding.device.clone(),
            channel: binding.channel.as_deref().map(str::to_owned),
            name: name.to_owned(),
        }
    }

    /// True if the connection can exclude another one.
    pub(super) fn excludes_any(&self) -> bool {
        group(self.channel.as_deref()).is_some() || self.device.is_some()
    }
}

/// Connection that must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loser {
    /// The newly bound one, because the other one was bound even later.
    Newcomer,
    /// The existing one.
    Holder,
}

/// Kind of conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conflict {
    /// The same device reconnected. The old socket is closed without a message.
    SameDevice,
    /// Another device replaces it. A message tells the loser, so that its SDK stops reconnecting.
    OtherDevice,
}

/// Returns the loser if the two connections of one user exclude each other. `policy` is that of the newcomer's
/// listener.
pub(super) fn loser_of(
    policy: DevicePolicy,
    newcomer: &BoundDevice,
    holder: &BoundDevice,
) -> Option<(Loser, Conflict)> {
    let conflict = conflict(policy, newcomer, holder)?;
    let loser = if holder.number < newcomer.number { Loser::Holder } else { Loser::Newcomer };
    Some((loser, conflict))
}

fn conflict(policy: DevicePolicy, a: &BoundDevice, b: &BoundDevice) -> Option<Conflict> {
    if policy == DevicePolicy::AllowAll {
        return None;
    }
    let (a_channel, b_channel) = (a.channel.as_deref(), b.channel.as_deref());
    let same_device = a.device.is_some() && a.device == b.device;
    // Tabs of one browser share a deviceId. Without a message they would replace each other forever.
    if same_device && a_channel == b_channel {
        return (a_channel != Some("web")).then_some(Conflict::SameDevice);
    }
    match (group(a_channel), group(b_channel)) {
        (Some(a), Some(b)) if a == b => Some(Conflict::OtherDevice),
        _ => None,
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

    fn bound(number: u64, channel: &str, device: &str) -> BoundDevice {
        let channel = Some(channel.to_owned()).filter(|c| !c.is_empty());
        BoundDevice { number, device: Device::parse(device).ok(), channel, name: String::new() }
    }

    #[test]
    fn pairs_of_channels_conflict_as_in_cim() {
        let rows = [
            ("android", "1", "ios", "2", Some(Conflict::OtherDevice)),
            ("android", "1", "android", "2", Some(Conflict::OtherDevice)),
            ("android", "1", "android", "1", Some(Conflict::SameDevice)),
            ("windows", "1", "mac", "2", Some(Conflict::OtherDevice)),
            ("web", "1", "windows", "2", Some(Conflict::OtherDevice)),
            ("web", "1", "web", "1", None),
            ("web", "1", "web", "2", Some(Conflict::OtherDevice)),
            ("android", "1", "web", "1", None),
            ("watch", "1", "watch", "2", None),
            ("watch", "1", "watch", "1", Some(Conflict::SameDevice)),
            ("", "", "", "", None),
        ];
        for (ca, da, cb, db, expected) in rows {
            let (a, b) = (bound(1, ca, da), bound(2, cb, db));
            assert_eq!(conflict(DevicePolicy::Cim, &a, &b), expected, "{ca}/{da} and {cb}/{db}");
            assert_eq!(conflict(DevicePolicy::Cim, &b, &a), expected, "{cb}/{db} and {ca}/{da}");
            assert_eq!(conflict(DevicePolicy::AllowAll, &a, &b), None);
            assert!(expected.is_none() || a.excludes_any() && b.excludes_any(), "{ca}/{da} and {cb}/{db}");
        }
    }

    #[test]
    fn lower_bind_number_loses_on_every_node() {
        let (early, late) = (bound(1, "android", "1"), bound(2, "ios", "2"));
        let rule = |newcomer, holder| loser_of(DevicePolicy::Cim, newcomer, holder).map(|(loser, _)| loser);
        assert_eq!(rule(&late, &early), Some(Loser::Holder));
        assert_eq!(rule(&early, &late), Some(Loser::Newcomer));
        assert_eq!(rule(&late, &bound(0, "android", "1")), Some(Loser::Holder), "0 gives way to everyone");
    }
}
