-- Takes money out of a pool for good, with the event that moves it in SQL.
--
-- KEYS: pool, seen, events, epoch. ARGV: epoch, account, identifier, amount, body.
-- Returns STALE, MISS, DUP (done before), SHORT and what is free, or OK and what is free.

if redis.call('HGET', KEYS[4], 'number') ~= ARGV[1] then
  return { 'STALE' }
end
local pool = redis.call('HMGET', KEYS[1], 'epoch', 'free')
if pool[1] ~= ARGV[1] then
  return { 'MISS' }
end
if redis.call('ZSCORE', KEYS[2], ARGV[3]) then
  return { 'DUP' }
end
if tonumber(pool[2]) < tonumber(ARGV[4]) then
  return { 'SHORT', tonumber(pool[2]) }
end
local free = redis.call('HINCRBY', KEYS[1], 'free', '-' .. ARGV[4])
redis.call('HINCRBY', KEYS[1], 'unposted', ARGV[4])
redis.call('ZADD', KEYS[2], '+inf', ARGV[3])
redis.call('XADD', KEYS[3], '*', 'kind', 'withdrawal', 'epoch', ARGV[1], 'account', ARGV[2], 'call', ARGV[3],
  'charge', ARGV[4], 'excess', '0', 'body', ARGV[5])
return { 'OK', free }
