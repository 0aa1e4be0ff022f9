-- Adds a move into escrow to a pool, in the order of the moves and each once.
--
-- KEYS: pool, epoch. ARGV: epoch, sequence, amount.
-- Returns STALE, MISS (no pool), DUP (it has it), GAP (one before it is missing) or OK.

if redis.call('HGET', KEYS[2], 'number') ~= ARGV[1] then
  return { 'STALE' }
end
local pool = redis.call('HMGET', KEYS[1], 'epoch', 'sequence')
if pool[1] ~= ARGV[1] then
  return { 'MISS' }
end
local last, sequence = tonumber(pool[2]), tonumber(ARGV[2])
if sequence <= last then
  return { 'DUP' }
elseif sequence > last + 1 then
  return { 'GAP' }
end
redis.call('HINCRBY', KEYS[1], 'free', ARGV[3])
redis.call('HSET', KEYS[1], 'sequence', ARGV[2])
return { 'OK' }
