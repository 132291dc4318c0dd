-- Applies all writes of one plugin call, or none.
-- KEYS: values, marks, ends (by time), state (bytes, version). ARGV: 1 to write or 0 to check only, maximum bytes,
-- maximum keys, number of reads; for each read: key, version; for each write: key, value, 1 to set or 0 to delete, time
-- to live in milliseconds or 0.
-- Answer: 1 = applied, 0 = a key that was read has changed, 2 = over the quota.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local values, marks, ends, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local at = 5
for _ = 1, tonumber(ARGV[4]) do
  local version, until_ = string.match(redis.call('HGET', marks, ARGV[at]) or '', '^(%d+) (%d+)$')
  if not version or (until_ ~= '0' and tonumber(until_) <= now) then version = '0' end
  if version ~= ARGV[at + 1] then return 0 end
  at = at + 2
end
local first = at

local function forget(key)
  redis.call('HINCRBY', state, 'bytes', -(#key + redis.call('HSTRLEN', values, key)))
  redis.call('HDEL', values, key)
  redis.call('HDEL', marks, key)
  redis.call('ZREM', ends, key)
end

local function has_room()
  local bytes = tonumber(redis.call('HGET', state, 'bytes') or 0)
  local keys = redis.call('HLEN', values)
  local new_bytes, new_keys = bytes, keys
  for write = first, #ARGV, 4 do
    local key = ARGV[write]
    if redis.call('HEXISTS', values, key) == 1 then
      new_bytes = new_bytes - #key - redis.call('HSTRLEN', values, key)
      new_keys = new_keys - 1
    end
    if ARGV[write + 2] == '1' then
      new_bytes = new_bytes + #key + #ARGV[write + 1]
      new_keys = new_keys + 1
    end
  end
  return (new_bytes <= tonumber(ARGV[2]) and new_keys <= tonumber(ARGV[3])) or (new_bytes <= bytes and new_keys <= keys)
end

if not has_room() then
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now)) do forget(key) end
  if not has_room() then return 2 end
end
if ARGV[1] == '0' then return 1 end
-- Greater than every earlier version, even if the keys were lost.
local version = math.max(tonumber(redis.call('HGET', state, 'version') or 0), now)
for write = first, #ARGV, 4 do
  local key, value, stays, ttl = ARGV[write], ARGV[write + 1], ARGV[write + 2], tonumber(ARGV[write + 3])
  if redis.call('HEXISTS', values, key) == 1 then forget(key) end
  if stays == '1' then
    version = version + 1
    redis.call('HSET', values, key, value)
    redis.call('HSET', marks, key, string.format('%.0f %.0f', version, ttl > 0 and now + ttl or 0))
    redis.call('HINCRBY', state, 'bytes', #key + #value)
    if ttl > 0 then redis.call('ZADD', ends, now + ttl, key) end
  end
end
redis.call('HSET', state, 'version', string.format('%.0f', version))
return 1
