-- Adds users to one incarnation of a node, or removes them.
-- KEYS: lives, lapsed, users of the incarnation. ARGV: id, incarnation, prefix of the user keys, then '+' or '-' before
-- each uid.
-- Answer: for each user 1 if no other incarnation has it, else 0. Empty if the node has another incarnation.
if string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+)') ~= ARGV[2] then return {} end
local others = {}
for _, life in ipairs(redis.call('HVALS', KEYS[1])) do
  local incarnation = string.match(life, '^(%d+)')
  if incarnation ~= ARGV[2] then others[#others + 1] = ARGV[3] .. incarnation end
end
-- Expired incarnations with users that are not reported offline yet.
for _, incarnation in ipairs(redis.call('HKEYS', KEYS[2])) do others[#others + 1] = ARGV[3] .. incarnation end
local alone = {}
for at = 4, #ARGV do
  local uid = string.sub(ARGV[at], 2)
  redis.call(string.sub(ARGV[at], 1, 1) == '+' and 'SADD' or 'SREM', KEYS[3], uid)
  local is_alone = 1
  for _, users in ipairs(others) do
    if redis.call('SISMEMBER', users, uid) == 1 then
      is_alone = 0
      break
    end
  end
  alone[#alone + 1] = is_alone
end
return alone
