-- What domain::limit::shared says, for the subjects of one account.
-- KEYS: per subject its buckets and its slots. ARGV: edge, lease in milliseconds, then 22 numbers a subject:
-- three times limit (-1: none), period in microseconds, correction, need, least, ahead; then limit of slots
-- (-1: none), in use, need, ahead. Answers eight numbers a subject: three times granted and taken in thousandths; held and left.
local EDGE, LEASE = ARGV[1], tonumber(ARGV[2])
-- Longest time that a debt is paid off in, in microseconds; as in domain::limit::gcra.
local DEBT = 3600000000
-- Fractions of a unit that only rounding can have taken.
local GRAIN = 0.000001
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local place, answer = 3, {}

local function number()
  place = place + 1
  return tonumber(ARGV[place - 1])
end

-- What of the free may be given for calls to come.
local function spare(free, limit)
  if free * 2 >= limit then return math.ceil(free / 3) end
  return math.floor(free / 16)
end

local function tell(value)
  answer[#answer + 1] = value
end

local function draw(level, past)
  local limit, period, correction = number(), number(), number()
  local need, least, ahead = number(), number(), number()
  if limit < 0 then
    tell(0)
    tell(0)
    return 0, 0
  end
  level = math.max(0, level - past * limit / period)
  level = math.max(0, math.min(level + correction, limit + DEBT * limit / period))
  local available = math.max(0, math.floor(limit - level + GRAIN))
  local granted = 0
  if available >= least then granted = math.min(need, available) end
  if granted == need then
    granted = granted + math.min(ahead, spare(available - granted, limit))
  end
  level = level + granted
  tell(granted)
  tell(math.ceil(level * 1000 - GRAIN))
  local full = 0
  if limit > 0 then full = level * period / limit end
  return level, full
end

local function hold(key)
  local limit, used, need, ahead = number(), number(), number(), number()
  if limit < 0 then
    tell(0)
    tell(0)
    return
  end
  local all, others, last = redis.call('HGETALL', key), 0, 0
  for field = 1, #all, 2 do
    local held, ends = string.match(all[field + 1], '^(%d+) (%d+)$')
    held, ends = tonumber(held or 0), tonumber(ends or 0)
    if all[field] ~= EDGE then
      if ends > now then
        others = others + held
        last = math.max(last, ends)
      else
        redis.call('HDEL', key, all[field])
      end
    end
  end
  local room = math.max(0, limit - others)
  local held = math.max(used, math.min(need, room))
  if held >= need then
    held = held + math.min(ahead, spare(math.max(0, room - held), limit))
  end
  if held > 0 then
    redis.call('HSET', key, EDGE, string.format('%d %.0f', held, now + LEASE * 1000))
    redis.call('PEXPIRE', key, math.ceil(math.max(LEASE, (last - now) / 1000)) + 1000)
  elseif #all > 0 then
    redis.call('HDEL', key, EDGE)
  end
  tell(held)
  tell(math.max(0, room - held))
end

for subject = 1, #KEYS, 2 do
  local kept = redis.call('GET', KEYS[subject]) or ''
  local at, one, two, three = string.match(kept, '^(%S+) (%S+) (%S+) (%S+)$')
  local past = math.max(0, now - tonumber(at or now))
  local full
  local longest, levels = 0, {}
  for kind, level in ipairs({ one or 0, two or 0, three or 0 }) do
    levels[kind], full = draw(tonumber(level), past)
    longest = math.max(longest, full)
  end
  if longest > 0 then
    local text = string.format('%.0f %.17g %.17g %.17g', now, levels[1], levels[2], levels[3])
    -- A bucket that is full again need not be remembered.
    redis.call('SET', KEYS[subject], text, 'PX', math.ceil(longest / 1000) + 1000)
  elseif kept ~= '' then
    redis.call('DEL', KEYS[subject])
  end
  hold(KEYS[subject + 1])
end
return answer
