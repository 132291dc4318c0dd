-- A number greater than each before, even where the key is gone: the server's milliseconds carry it on.
-- KEYS: the number. ARGV: milliseconds that it is kept.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local number = math.max(tonumber(redis.call('GET', KEYS[1]) or 0) + 1, now)
redis.call('SET', KEYS[1], string.format('%.0f', number), 'PX', ARGV[1])
return number
