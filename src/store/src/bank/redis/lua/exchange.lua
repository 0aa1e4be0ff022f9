-- `domain::pool::Pool::exchange`, with one event for each settlement that is new.
--
-- KEYS: pool, seen, events, epoch, due, then every purse that is spoken of.
-- ARGV: epoch, account, node, funding, lease, asked, target, in_use, waiting,
--       number of settlements, and of each: call, charge, cost, body, number of purses, their places in KEYS;
--       number of wanted purses, and of each: its place, limit, target, in_use, waiting.
-- Returns STALE (another epoch), MISS (no pool), PURSE and the places of unopened purses, or
--       OK, now, recovering, [loan, free, lent to others, spare of it, silent], [the same for each wanted purse], and
--       [call, charge, excess of each settlement that was new, one after the other].

local PURSES = 5
local SECONDS_OF_A_PURSE = 90000

local at = 0
local function take()
  at = at + 1
  return ARGV[at]
end
local function take_number()
  return tonumber(take())
end

local epoch, account, node = take(), take(), take()
local prepaid = take() == 'prepaid'
local lease, asked = take_number(), take_number()

-- A want: the loan, what of it is in use, and what calls hold of that.
local function take_want()
  local target, in_use, waiting = take_number(), take_number(), take_number()
  return { target = target, in_use = in_use, holds = math.max(0, in_use - math.max(0, waiting)) }
end

local life = redis.call('HMGET', KEYS[4], 'number', 'recovering')
if life[1] ~= epoch then
  return { 'STALE' }
end
local recovering = life[2] == '1'
local want = take_want()

-- The most that an edge can get: of a store that has lost its memory what calls hold, or what it had.
local function most_of(wanted, had)
  local target = math.max(0, wanted.target)
  if recovering then
    target = math.min(target, math.max(had, wanted.holds))
  end
  return target
end

local pool, free = nil, 0
if prepaid then
  pool = load(KEYS[1], epoch)
  if not pool then
    return { 'MISS' }
  end
  free = tonumber(pool.fields.free)
end

local purses, unopened = {}, {}
for i = 1, #KEYS - PURSES do
  purses[i] = load(KEYS[PURSES + i], epoch)
  if purses[i] then
    purses[i].spent = tonumber(purses[i].fields.spent)
  else
    unopened[#unopened + 1] = i
  end
end
if #unopened > 0 then
  return { 'PURSE', unopened }
end

local settlements, calls = {}, {}
for i = 1, take_number() do
  local one = { call = take(), charge = take_number(), cost = take_number(), body = take(), purses = {} }
  for p = 1, take_number() do
    one.purses[p] = take_number()
  end
  settlements[i], calls[i] = one, one.call
end
local wants, limits = {}, {}
for i = 1, take_number() do
  local one = { place = take_number(), limit = take_number() }
  one.want = take_want()
  wants[i] = one
  limits[one.place] = limits[one.place] or one.limit
end

-- From here on things are changed, and nothing may fail.
local now = clock()
local deadline = now + lease
if pool then
  local lapsed, sum = reclaim(pool, now)
  free = free + sum
  tell_lapsed(KEYS[3], epoch, account, lapsed)
end
for _, purse in ipairs(purses) do
  reclaim(purse, now)
end

local function purse_free(purse, limit)
  return math.max(0, limit - purse.spent - lent(purse))
end

local seen = {}
if #calls > 0 then
  seen = redis.call('ZMSCORE', KEYS[2], unpack(calls))
end
local charged, told, marked, charges = {}, {}, {}, 0
for i, one in ipairs(settlements) do
  if not seen[i] and not told[one.call] then
    told[one.call] = true
    local loan = pool and amount_of(pool, node) or 0
    local charge = math.max(0, one.charge)
    if pool then
      charge = math.min(charge, loan + free)
    end
    for _, place in ipairs(one.purses) do
      local purse = purses[place]
      charge = math.min(charge, purse_free(purse, limits[place] or 0) + amount_of(purse, node))
    end
    if pool then
      local from_loan = math.min(charge, loan)
      lower(pool, node, from_loan)
      free = free - (charge - from_loan)
      charges = charges + charge
    end
    for _, place in ipairs(one.purses) do
      local purse = purses[place]
      purse.spent = purse.spent + charge
      purse.changed.spent = purse.spent
      lower(purse, node, charge)
    end
    local excess = math.max(0, one.cost - charge)
    redis.call('XADD', KEYS[3], '*', 'kind', 'call', 'epoch', epoch, 'account', account, 'call', one.call,
      'charge', text(charge), 'excess', text(excess), 'body', one.body)
    marked[#marked + 1] = '+inf'
    marked[#marked + 1] = one.call
    charged[#charged + 1] = one.call
    charged[#charged + 1] = charge
    charged[#charged + 1] = excess
  end
end
if #marked > 0 then
  redis.call('ZADD', KEYS[2], unpack(marked))
end

local granted = { 0, 0, 0, 0, 0 }
local due = nil
if pool then
  local loan = amount_of(pool, node)
  local amount = loan
  if not is_overtaken(pool, node, asked) then
    amount = math.min(most_of(want, loan), loan + free)
    free = free + loan - amount
    note(pool, node, amount, want.in_use, deadline, asked)
  end
  granted = { amount, free, others(pool, node, deadline) }
  if free ~= tonumber(pool.fields.free) then
    pool.changed.free = free
  end
  if charges > 0 then
    pool.changed.unposted = tonumber(pool.fields.unposted) + charges
  end
  drop_spent(pool, node)
  save(pool)
  due = next_deadline(pool)
end
if not due and #marked > 0 then
  due = deadline
end
if due then
  redis.call('ZADD', KEYS[5], text(due), account)
end

local lent_of_purses = {}
for i, one in ipairs(wants) do
  local purse = purses[one.place]
  local loan, all = amount_of(purse, node), lent(purse)
  local amount = loan
  if not is_overtaken(purse, node, asked) then
    -- A ceiling that was lowered leaves less than was lent: that much is taken back, except for what calls
    -- hold.
    local over = math.max(0, all + purse.spent - one.limit)
    local kept = math.max(loan - over, math.min(loan, one.want.holds))
    local most = kept + purse_free(purse, one.limit)
    amount = math.min(most_of(one.want, loan), most)
    note(purse, node, amount, one.want.in_use, deadline, asked)
  end
  lent_of_purses[i] = { amount, purse_free(purse, one.limit), others(purse, node, deadline) }
end
for _, purse in ipairs(purses) do
  drop_spent(purse, node)
  save(purse)
  redis.call('EXPIRE', purse.key, SECONDS_OF_A_PURSE)
end

return { 'OK', now, recovering and 1 or 0, granted, lent_of_purses, charged }
