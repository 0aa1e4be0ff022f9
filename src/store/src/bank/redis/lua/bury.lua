-- Moves an event that cannot be posted to the shard's dead letters.
--
-- KEYS: events, dead. ARGV: group, its identifier, how many dead letters are kept.

local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
if found[1] then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'was', ARGV[2], unpack(found[1][2]))
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
