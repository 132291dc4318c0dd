-- Lists the living members. KEYS: members, lives, leases. Answer: incarnation, member, incarnation, member, …
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. now, '+inf')) do
  local life = string.match(redis.call('HGET', KEYS[2], id) or '', '^(%d+)')
  local member = redis.call('HGET', KEYS[1], id)
  if life and member then
    found[#found + 1] = life
    found[#found + 1] = member
  end
end
return found
