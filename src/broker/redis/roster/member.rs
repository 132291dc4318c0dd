//! A member as stored in Redis. The format is JSON, so that operators can read it and other versions can add fields.

use serde_json::{Value, json};

use crate::broker::roster::Member;
use crate::id::NodeId;

/// Encodes a member. `process` is the name of its process.
pub(super) fn encode(member: &Member, process: &str) -> String {
    json!({
        "process": process,
        "id": member.id.as_str(),
        "number": member.number,
        "address": member.address,
        "gateway": member.gateway,
        "intake": member.intake,
        "version": member.version,
        "connections": member.connections,
        "capacity": member.capacity,
        "draining": member.draining,
        "started_at": member.started_at,
    })
    .to_string()
}

/// Returns the name of the process. Empty if it is missing.
pub(super) fn process_of(text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    value["process"].as_str().unwrap_or_default().to_owned()
}

/// Decodes a member. `None` if the text is not a member. Missing fields are empty, 0 or false.
pub(super) fn decode(text: &str) -> Option<Member> {
    let value: Value = serde_json::from_str(text).ok()?;
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let flag = |key: &str| value[key].as_bool().unwrap_or_default();
    Some(Member {
        id: NodeId::parse(value["id"].as_str()?).ok()?,
        number: u16::try_from(value["number"].as_u64()?).ok()?,
        incarnation: 0,
        address: text("address"),
        gateway: flag("gateway"),
        intake: flag("intake"),
        version: text("version"),
        connections: value["connections"].as_u64().unwrap_or_default(),
        capacity: value["capacity"].as_u64().unwrap_or_default(),
        draining: flag("draining"),
        started_at: value["started_at"].as_i64().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_read_as_it_was_written_and_by_other_versions() {
        let member = Member {
            id: "n1".parse().unwrap(),
            number: 7,
            incarnation: 0,
            address: "ws://10.0.0.1:8080".to_owned(),
            gateway: true,
            intake: false,
            version: "0.1.0".to_owned(),
            connections: 5,
            capacity: 100,
            draining: true,
            started_at: 1_763_000_000_000,
        };
        assert_eq!(process_of(&encode(&member, "p 1")), "p 1");
        assert_eq!((process_of("{}"), process_of("[")), (String::new(), String::new()));
        assert_eq!(decode(&encode(&member, "")), Some(member));
        assert_eq!(decode(r#"{"id": "n2", "number": 8, "news": 1}"#).unwrap().number, 8);
        for text in ["", "[]", r#"{"id": "n2"}"#, r#"{"id": "", "number": 1}"#, r#"{"id": "a", "number": 70000}"#] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
