-- What the scripts share. Amounts are nano-USD and times microseconds: whole numbers below 2^53, which
-- doubles hold exactly. They are written by `text`, since Lua's own conversion rounds to 14 digits.

local function text(number)
  return string.format('%.0f', number)
end

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- A pool or a purse of this epoch: plain fields, and `amount`, `held`, `deadline` and `asked` of each node's
-- loan.
local function load(key, epoch)
  local flat = redis.call('HGETALL', key)
  local state = { key = key, fields = {}, loans = {}, changed = {}, touched = {} }
  for i = 1, #flat, 2 do
    local colon = string.find(flat[i], ':', 1, true)
    if colon then
      local node = string.sub(flat[i], colon + 1)
      state.loans[node] = state.loans[node] or {}
      state.loans[node][string.sub(flat[i], 1, colon - 1)] = tonumber(flat[i + 1])
    else
      state.fields[flat[i]] = flat[i + 1]
    end
  end
  if state.fields.epoch ~= epoch then
    return nil
  end
  return state
end

local function save(state)
  local set, drop = {}, {}
  for name, value in pairs(state.changed) do
    set[#set + 1] = name
    set[#set + 1] = text(value)
  end
  for node in pairs(state.touched) do
    local loan = state.loans[node]
    for _, name in ipairs({ 'amount', 'held', 'deadline', 'asked' }) do
      if loan then
        set[#set + 1] = name .. ':' .. node
        set[#set + 1] = text(loan[name])
      else
        drop[#drop + 1] = name .. ':' .. node
      end
    end
  end
  if #set > 0 then
    redis.call('HSET', state.key, unpack(set))
  end
  if #drop > 0 then
    redis.call('HDEL', state.key, unpack(drop))
  end
end

-- Takes lapsed loans out, and returns them as node, amount, held, and their sum.
local function reclaim(state, now)
  local lapsed, sum = {}, 0
  for node, loan in pairs(state.loans) do
    if loan.deadline <= now then
      sum = sum + loan.amount
      lapsed[#lapsed + 1] = { node, loan.amount, loan.held }
      state.loans[node] = nil
      state.touched[node] = true
    end
  end
  return lapsed, sum
end

-- Tells of lapsed loans that calls held: their edge is gone, and the house pays for what it did.
local function tell_lapsed(events, epoch, account, lapsed)
  for _, one in ipairs(lapsed) do
    if one[3] > 0 then
      redis.call('XADD', events, '*', 'kind', 'lapsed', 'epoch', epoch, 'account', account,
        'node', one[1], 'amount', text(one[2]), 'in_use', text(one[3]))
    end
  end
end

-- When the sweep has to look at the account again: as soon as its first loan lapses.
local function next_deadline(state)
  local first = nil
  for _, loan in pairs(state.loans) do
    if not first or loan.deadline < first then
      first = loan.deadline
    end
  end
  return first
end

local function lent(state)
  local sum = 0
  for _, loan in pairs(state.loans) do
    sum = sum + loan.amount
  end
  return sum
end

-- What others have: all of it, what of it no call of theirs held, and how long the one that has been silent
-- the longest was not heard of.
local function others(state, node, deadline)
  local all, spare, silent = 0, 0, 0
  for other, loan in pairs(state.loans) do
    if other ~= node then
      all = all + loan.amount
      spare = spare + loan.amount - loan.held
      silent = math.max(silent, deadline - loan.deadline)
    end
  end
  return all, spare, silent
end

-- Whether an edge has asked for its loan later than this.
local function is_overtaken(state, node, asked)
  local loan = state.loans[node]
  return loan and asked < loan.asked
end

local function amount_of(state, node)
  local loan = state.loans[node]
  return loan and loan.amount or 0
end

-- Lowers a loan by what was charged, down to nothing.
local function lower(state, node, by)
  local loan = state.loans[node]
  if loan then
    loan.amount = math.max(0, loan.amount - by)
    loan.held = math.min(loan.held, loan.amount)
    state.touched[node] = true
  end
end

-- A loan of nothing is none, also where it was spent and nothing was said of it.
local function drop_spent(state, node)
  local loan = state.loans[node]
  if loan and loan.amount == 0 then
    state.loans[node] = nil
    state.touched[node] = true
  end
end

-- Writes a loan down; one of nothing is none.
local function note(state, node, amount, held, deadline, asked)
  state.touched[node] = true
  if amount == 0 then
    state.loans[node] = nil
  else
    held = math.min(math.max(0, held), amount)
    state.loans[node] = { amount = amount, held = held, deadline = deadline, asked = asked }
  end
end
