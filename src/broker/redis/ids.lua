-- Reserves a block of ids of one node number.
-- KEYS: ids. ARGV: node number, lower bound of the block, its begin if nothing is stored, size (0 = only keep the
-- bound), '1' for the first call of a process, which reserves nothing.
-- A field is "bound size": the first free number and the size of the last block. Answer: begin of the block.
local bound, last = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) (%d+)$')
local begin = tonumber(bound or ARGV[3])
-- A failover may have lost the last write, which reserved at most eight times the size of the block before. So the
-- first call skips that many numbers, and stores the new bound in a write of its own before the next block.
if bound and ARGV[5] == '1' then begin = begin + 8 * tonumber(last) end
begin = math.max(begin, tonumber(ARGV[2]))
local size = tonumber(ARGV[4])
local bound_after = ARGV[5] == '1' and begin or begin + size
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f', bound_after, size > 0 and size or tonumber(last or 0)))
return begin
