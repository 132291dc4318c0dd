-- Releases a lease and deletes all data of the incarnation.
-- KEYS: members, lives, leases, users of the incarnation. ARGV: id, incarnation.
if string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%d+)') == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
end
redis.call('DEL', KEYS[4])
return 1
