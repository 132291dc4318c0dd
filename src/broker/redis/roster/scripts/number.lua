-- Returns a number greater than every earlier one. The server's milliseconds ensure this even if the key has expired.
-- KEYS: number. ARGV: time to live in milliseconds.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local number = math.max(tonumber(redis.call('GET', KEYS[1]) or 0) + 1, now)
redis.call('SET', KEYS[1], string.format('%.0f', number), 'PX', ARGV[1])
return number
