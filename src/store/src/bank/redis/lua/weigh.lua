-- What a pool holds, for the comparison with SQL's escrow.
--
-- KEYS: pool, epoch. ARGV: epoch. Returns STALE, MISS, or OK, free, loans, unposted, sequence.

if redis.call('HGET', KEYS[2], 'number') ~= ARGV[1] then
  return { 'STALE' }
end
local pool = load(KEYS[1], ARGV[1])
if not pool then
  return { 'MISS' }
end
local fields = pool.fields
return { 'OK', tonumber(fields.free), lent(pool), tonumber(fields.unposted), tonumber(fields.sequence) }
