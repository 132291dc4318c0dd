-- Renews a lease that has not expired.
-- KEYS: members, lives, leases. ARGV: id, incarnation, member, time to live in milliseconds. Answer: 1, or 0 if the
-- lease is lost.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local life = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%d+)')
local ends = redis.call('ZSCORE', KEYS[3], ARGV[1])
if life ~= ARGV[2] or not ends or tonumber(ends) <= now then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[3], now + ARGV[4], ARGV[1])
return 1
