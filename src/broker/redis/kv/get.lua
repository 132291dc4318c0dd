-- Reads a key of a plugin. KEYS: values, marks. ARGV: key. Answer: {version} or {version, value}.
-- A mark is "version ends"; 0 = no expiry.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local version, ends = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%d+) (%d+)$')
if not version or (ends ~= '0' and tonumber(ends) <= now) then return {0} end
return {tonumber(version), redis.call('HGET', KEYS[1], ARGV[1])}
