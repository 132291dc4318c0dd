-- Takes a lease for a node, unless a living node has its name or number.
-- KEYS: members, lives, leases, lapsed, incarnation. ARGV: id, number, member, time to live in milliseconds, an earlier
-- incarnation of this name whose process has exited, or ''.
-- An entry of lives is "incarnation number". Answer: {incarnation, '', '', ''}, or {0, reason, incarnation and member
-- of the current owner of the name, or '', ''}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. now, '+inf')) do
  local life, number = string.match(redis.call('HGET', KEYS[2], id) or '', '^(%d+) (%d+)$')
  if id ~= ARGV[1] then
    if number == ARGV[2] then
      return {0, 'node ' .. id .. ' already uses number ' .. number .. ': expected an unused number', '', ''}
    end
  elseif life ~= ARGV[5] then
    local reason = 'a living node already uses the name ' .. id .. ': expected an unused name'
    return {0, reason, life or '', redis.call('HGET', KEYS[1], id) or ''}
  end
end
-- An earlier incarnation that no node has cleaned up keeps its users until a node does.
local former = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%d+)')
if former then redis.call('HSET', KEYS[4], former, ARGV[1]) end
-- Greater than every earlier incarnation, even if the keys were lost.
local incarnation = math.max(tonumber(redis.call('GET', KEYS[5]) or 0) + 1, now)
local text = string.format('%.0f', incarnation)
redis.call('SET', KEYS[5], text)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], text .. ' ' .. ARGV[2])
redis.call('ZADD', KEYS[3], now + ARGV[4], ARGV[1])
return {incarnation, '', '', ''}
