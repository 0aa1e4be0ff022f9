-- Takes money out of a pool for good, with the event that moves it in SQL.
--
-- KEYS: pool, seen, events, epoch, withdrawn. ARGV: epoch, account, identifier, amount, body.
-- Returns STALE, MISS, DUP (done before), OTHER (done before, of another amount), SHORT and what is free, or OK
-- and what is free.

-- For longer than an event may wait to be posted; then SQL knows the amount.
local SECONDS_KEPT = 604800

if redis.call('HGET', KEYS[4], 'number') ~= ARGV[1] then
  return { 'STALE' }
end
local pool = redis.call('HMGET', KEYS[1], 'epoch', 'free')
if pool[1] ~= ARGV[1] then
  return { 'MISS' }
end
if redis.call('ZSCORE', KEYS[2], ARGV[3]) then
  local amount = redis.call('HGET', KEYS[5], ARGV[3])
  return { (not amount or amount == ARGV[4]) and 'DUP' or 'OTHER' }
end
if tonumber(pool[2]) < tonumber(ARGV[4]) then
  return { 'SHORT', tonumber(pool[2]) }
end
local free = redis.call('HINCRBY', KEYS[1], 'free', '-' .. ARGV[4])
redis.call('HINCRBY', KEYS[1], 'unposted', ARGV[4])
redis.call('ZADD', KEYS[2], '+inf', ARGV[3])
redis.call('HSET', KEYS[5], ARGV[3], ARGV[4])
redis.call('EXPIRE', KEYS[5], SECONDS_KEPT)
redis.call('XADD', KEYS[3], '*', 'kind', 'withdrawal', 'epoch', ARGV[1], 'account', ARGV[2], 'call', ARGV[3],
  'charge', ARGV[4], 'excess', '0', 'body', ARGV[5])
return { 'OK', free }
