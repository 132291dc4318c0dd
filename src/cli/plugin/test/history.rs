//! The history of a case: kept messages by stream, or the word `off` or `away`.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::cases::MessageIn;
use super::run;
use super::words::{Name, Pairs};
use crate::id::{Device, Uid};
use crate::message::StreamName;
use crate::plugin::harness::{GivenHistory, GivenMessage};

/// The history that the plugin finds.
#[derive(Debug, Clone)]
pub(in crate::cli::plugin) enum HistoryIn {
    /// The node keeps no messages.
    Off,
    /// The history does not answer.
    Away,
    /// The messages of each stream, the oldest first.
    Kept(Pairs<Vec<KeptIn>>),
}

/// One kept message.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::cli::plugin) struct KeptIn {
    message: MessageIn,
    device: Option<Name<Device>>,
    except: Vec<Name<Uid>>,
}

impl HistoryIn {
    /// The history of the test host.
    ///
    /// # Errors
    /// A key is not the name of a stream.
    pub(super) fn given(&self) -> Result<GivenHistory, String> {
        let streams = match self {
            Self::Off => return Ok(GivenHistory::Off),
            Self::Away => return Ok(GivenHistory::Away),
            Self::Kept(streams) => &streams.0,
        };
        let named = streams.iter().map(|(name, kept)| {
            let name: StreamName = name.parse().map_err(|invalid| format!("given history: {invalid}"))?;
            Ok::<_, String>((name, kept.iter().map(message).collect()))
        });
        Ok(GivenHistory::Kept(named.collect::<Result<_, _>>()?))
    }
}

fn message(kept: &KeptIn) -> GivenMessage {
    GivenMessage {
        message: run::message(&kept.message),
        device: kept.device.clone().map(|Name(device)| device),
        except: kept.except.iter().map(|Name(uid)| uid.clone()).collect(),
    }
}

impl<'de> Deserialize<'de> for HistoryIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HistoryVisitor)
    }
}

struct HistoryVisitor;

impl<'de> Visitor<'de> for HistoryVisitor {
    type Value = HistoryIn;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("off, away, or a map from streams (u:UID, r:ROOM, all) to lists of {message, device, except}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HistoryIn, E> {
        match text {
            "off" => Ok(HistoryIn::Off),
            "away" => Ok(HistoryIn::Away),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<HistoryIn, M::Error> {
        Pairs::deserialize(MapAccessDeserializer::new(map)).map(HistoryIn::Kept)
    }
}
