-- Takes some users of one incarnation whose lease expired. No other caller gets these users.
-- KEYS: members, lives, leases, lapsed. ARGV: prefix of the user keys, maximum number of users.
-- Answer: {}, or {id, incarnation, '1' if no users are left, users that are online in no other incarnation …}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)) do
  local life = string.match(redis.call('HGET', KEYS[2], id) or '', '^(%d+)')
  if life then redis.call('HSET', KEYS[4], life, id) end
  redis.call('ZREM', KEYS[3], id)
  redis.call('HDEL', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
local lapsed = redis.call('HGETALL', KEYS[4])
if #lapsed == 0 then return {} end
local incarnation, id = lapsed[1], lapsed[2]
local others = {}
for _, life in ipairs(redis.call('HVALS', KEYS[2])) do others[#others + 1] = ARGV[1] .. string.match(life, '^(%d+)') end
for at = 3, #lapsed, 2 do others[#others + 1] = ARGV[1] .. lapsed[at] end
local answer = {id, incarnation, '0'}
for _, uid in ipairs(redis.call('SPOP', ARGV[1] .. incarnation, ARGV[2])) do
  local is_alone = true
  for _, users in ipairs(others) do
    if redis.call('SISMEMBER', users, uid) == 1 then
      is_alone = false
      break
    end
  end
  if is_alone then answer[#answer + 1] = uid end
end
if redis.call('EXISTS', ARGV[1] .. incarnation) == 0 then
  redis.call('HDEL', KEYS[4], incarnation)
  answer[3] = '1'
end
return answer
