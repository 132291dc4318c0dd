-- Takes a lease for a node unless a living one has its name or number.
-- KEYS: members, lives, leases, lapsed, incarnation. ARGV: id, number, member, milliseconds of the lease, the incarnation
-- of a former life of this name that is known to have ended, or ''.
-- A life is "incarnation number". Answer: {incarnation, '', '', ''} or {0, why, incarnation and member of who has the
-- name, or '', ''}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. now, '+inf')) do
  local life, number = string.match(redis.call('HGET', KEYS[2], id) or '', '^(%d+) (%d+)$')
  if id ~= ARGV[1] then
    if number == ARGV[2] then
      return {0, 'the living node ' .. id .. ' has number ' .. number .. ' already', '', ''}
    end
  elseif life ~= ARGV[5] then
    return {0, 'a living node is called ' .. id .. ' already', life or '', redis.call('HGET', KEYS[1], id) or ''}
  end
end
-- A former life that nobody cleared away keeps its users until somebody does.
local former = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%d+)')
if former then redis.call('HSET', KEYS[4], former, ARGV[1]) end
-- Greater than every one before, even where the keys were lost.
local incarnation = math.max(tonumber(redis.call('GET', KEYS[5]) or 0) + 1, now)
local text = string.format('%.0f', incarnation)
redis.call('SET', KEYS[5], text)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], text .. ' ' .. ARGV[2])
redis.call('ZADD', KEYS[3], now + ARGV[4], ARGV[1])
return {incarnation, '', '', ''}
