-- Takes events out of a shard's stream once SQL has them: each is subtracted from what is unposted once.
--
-- KEYS: events, then pool and seen of each account. ARGV: group, how long posted calls are kept, then of
--       each event: its identifier, the place of its account (0: none), epoch, charge, call.
-- Returns how many were there.

local now, kept, gone = clock(), tonumber(ARGV[2]), 0
for i = 3, #ARGV, 5 do
  local place = tonumber(ARGV[i + 1])
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
    gone = gone + 1
    if place > 0 then
      local pool, seen = KEYS[place * 2], KEYS[place * 2 + 1]
      if ARGV[i + 3] ~= '0' and redis.call('HGET', pool, 'epoch') == ARGV[i + 2] then
        redis.call('HINCRBY', pool, 'unposted', '-' .. ARGV[i + 3])
      end
      redis.call('ZADD', seen, 'XX', text(now), ARGV[i + 4])
    end
  end
end
for i = 3, #KEYS, 2 do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', text(now - kept))
end
return gone
