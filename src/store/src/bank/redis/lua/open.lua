-- Opens an account's pool with what SQL has put in escrow for it, once in an epoch.
--
-- KEYS: pool, epoch, opened. ARGV: epoch, account, free, sequence of the last move into escrow.
-- Returns STALE, LOST (it was open in this epoch and is gone: the store forgets), or
--       OPEN and the last sequence that the pool knows.

if redis.call('HGET', KEYS[2], 'number') ~= ARGV[1] then
  return { 'STALE' }
end
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[1] then
  return { 'OPEN', tonumber(redis.call('HGET', KEYS[1], 'sequence')) }
end
if redis.call('SADD', KEYS[3], ARGV[2]) == 0 then
  return { 'LOST' }
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'free', ARGV[3], 'sequence', ARGV[4], 'unposted', '0')
return { 'OPEN', tonumber(ARGV[4]) }
