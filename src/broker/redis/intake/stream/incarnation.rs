//! Incarnations of a stream. They distinguish the record `7-1` from the same id in an earlier stream of this name.
//!
//! A Redis stream has no identity of its own. So a random number is stored in the key
//! `{<prefix>:intake:<topic>}:life:<group>`, with the last id and the count of entries ever added (Redis 7). One script
//! draws a new number before any record is read, in two cases. Either the group is missing, because it or the stream
//! was deleted. Or the count has fallen; before Redis 7, the last id has fallen.

use std::hash::{BuildHasher, RandomState};

use ::redis::{Cmd, Script, cmd};

/// KEYS: stream, key of the incarnation. ARGV: group; a number for a new incarnation; the incarnation that the caller
/// knows (three texts, the first empty = none). Creates a missing group at the oldest record. Answers the incarnation
/// as three texts.
const INCARNATION_SCRIPT: &str = r"
local function fields(list)
  local found = {}
  for at = 1, #list, 2 do found[list[at]] = list[at + 1] end
  return found
end
local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end
local function is_before(a, b)
  local a1, a2 = string.match(a, '(%d+)-(%d+)')
  local b1, b2 = string.match(b, '(%d+)-(%d+)')
  if not a1 or not b1 then return false end
  if a1 ~= b1 then return less(a1, b1) end
  return less(a2, b2)
end
local function has_fallen(added, last, by_added, by_last)
  if added ~= '-' and by_added ~= '-' then return less(added, by_added) end
  return is_before(last, by_last)
end
local has_group = false
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then
  if not string.find(groups.err, 'no such key', 1, true) then return groups end
else
  for _, group in ipairs(groups) do
    if fields(group).name == ARGV[1] then has_group = true end
  end
end
if not has_group then
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
  if made.err then return made end
end
local stream = fields(redis.call('XINFO', 'STREAM', KEYS[1]))
local added, last = '-', stream['last-generated-id']
if stream['entries-added'] then added = string.format('%.0f', stream['entries-added']) end
local stored = redis.call('GET', KEYS[2]) or ''
local life, old_added, old_last = string.match(stored, '^(%S+) (%S+) (%S+)$')
if not life and ARGV[3] ~= '' then
  life, old_added, old_last = ARGV[3], ARGV[4], ARGV[5]
end
local is_new = not life or not has_group or has_fallen(added, last, old_added, old_last)
if life == ARGV[3] then is_new = is_new or has_fallen(added, last, ARGV[4], ARGV[5]) end
if is_new then life = ARGV[2] end
local value = life .. ' ' .. added .. ' ' .. last
if value ~= stored then
  local set = redis.pcall('SET', KEYS[2], value)
  if set.err and is_new then return set end
end
return { life, added, last }
";

/// KEYS: stream, key of the incarnation. ARGV: group; the incarnation in which the records were read; their ids.
/// Acknowledges the records unless a new incarnation has begun, in which the same ids are other records.
const ACK_SCRIPT: &str = r"
local life = string.match(redis.call('GET', KEYS[2]) or '', '^(%S+)')
if life and life ~= ARGV[2] then return -1 end
return redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 3))
";

/// One incarnation of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Incarnation {
    /// Random number of the incarnation. Empty if none is known.
    pub(super) number: String,
    /// Count of entries ever added, and the last id, at the last check.
    added: String,
    last: String,
}

impl Incarnation {
    /// Converts the answer of the script.
    pub(super) fn of((number, added, last): (String, String, String)) -> Self {
        Self { number, added, last }
    }
}

/// Scripts for incarnations, with their keys.
pub(super) struct IncarnationScripts {
    incarnation: Script,
    ack: Script,
    stream: String,
    key: String,
    group: String,
}

impl IncarnationScripts {
    pub(super) fn new(prefix: &str, stream: &str, group: &str) -> Self {
        Self {
            incarnation: Script::new(INCARNATION_SCRIPT),
            ack: Script::new(ACK_SCRIPT),
            stream: stream.to_owned(),
            key: format!("{{{prefix}:intake:{stream}}}:life:{group}"),
            group: group.to_owned(),
        }
    }

    /// Commands to run once per connection before the commands below.
    pub(super) fn load(&self) -> [Cmd; 2] {
        [INCARNATION_SCRIPT, ACK_SCRIPT].map(|script| cmd("SCRIPT").arg("LOAD").arg(script).to_owned())
    }

    /// Asks for the current incarnation. The answer has three texts.
    pub(super) fn current(&self, known: &Incarnation) -> Cmd {
        let drawn = RandomState::new().hash_one(std::process::id());
        let mut command = self.call(&self.incarnation);
        command.arg(format!("{drawn:016x}")).arg(&known.number).arg(&known.added).arg(&known.last);
        command
    }

    /// Acknowledges records of this incarnation. Answers −1 if a new one has begun.
    pub(super) fn acknowledge(&self, incarnation: &Incarnation, ids: impl Iterator<Item = String>) -> Cmd {
        let mut command = self.call(&self.ack);
        command.arg(&incarnation.number);
        ids.for_each(|id| {
            command.arg(id);
        });
        command
    }

    fn call(&self, script: &Script) -> Cmd {
        cmd("EVALSHA").arg(script.get_hash()).arg(2).arg(&self.stream).arg(&self.key).arg(&self.group).to_owned()
    }
}
