-- Takes lapsed loans of one account back, and forgets calls that were posted long ago.
--
-- KEYS: pool, seen, events, epoch, due. ARGV: epoch, account, how long posted calls are kept.
-- Returns STALE, or OK and node, amount, in_use of each loan.

if redis.call('HGET', KEYS[4], 'number') ~= ARGV[1] then
  return { 'STALE' }
end
local now = clock()
local kept = tonumber(ARGV[3])
local answer, due = {}, nil
local pool = load(KEYS[1], ARGV[1])
if pool then
  local lapsed, sum = reclaim(pool, now)
  if #lapsed > 0 then
    tell_lapsed(KEYS[3], ARGV[1], ARGV[2], lapsed)
    pool.changed.free = tonumber(pool.fields.free) + sum
    save(pool)
  end
  for _, one in ipairs(lapsed) do
    answer[#answer + 1] = one[1]
    answer[#answer + 1] = one[2]
    answer[#answer + 1] = one[3]
  end
  due = next_deadline(pool)
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now - kept))
if not due and redis.call('EXISTS', KEYS[2]) == 1 then
  due = now + kept
end
if due then
  redis.call('ZADD', KEYS[5], text(due), ARGV[2])
else
  redis.call('ZREM', KEYS[5], ARGV[2])
end
return { 'OK', answer }
