-- Opens a purse with what SQL knows to be spent under it, once in an epoch.
--
-- KEYS: purse, epoch. ARGV: epoch, spent. Returns STALE or OPEN.

local SECONDS_OF_A_PURSE = 90000

if redis.call('HGET', KEYS[2], 'number') ~= ARGV[1] then
  return { 'STALE' }
end
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'spent', ARGV[2])
end
redis.call('EXPIRE', KEYS[1], SECONDS_OF_A_PURSE)
return { 'OPEN' }
