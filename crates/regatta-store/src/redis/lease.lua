-- One step of `Ledger::ask` (regatta-policy, quota/lease.rs), atomic in the store and on the store's clock. Times in
-- microseconds.
-- KEYS[1]: the key under a rule. ARGV:
--   1 algorithm: window | gcra     2 allow, or the interval     3 within, or the slack     4 block, 0 for none
--   5 holder   6 used   7 last_ago   8 cost, 0 if nothing is wanted   9 once | held   10 extra   11 term
--   12 now, empty for the store's own
-- Answers {1, held, remaining, reset_after} or {0, retry_after}; a retry_after of -1 means never.
-- The value is a cmsgpack of {runs, leases, tat, blocked}; a run is {last, units}, a lease {holder, units, from, until}.
local RUNS_MAX, LEASES_MAX = 128, 64
local algorithm, first, second, block = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local holder, used, last_ago = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local cost, way, extra, term = tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11])
local now = tonumber(ARGV[12])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local stored = redis.call('GET', KEYS[1])
local runs, leases, tat, blocked = {}, {}, 0, 0
if stored then
  local held = cmsgpack.unpack(stored)
  runs, leases, tat, blocked = held[1], held[2], held[3], held[4]
end

local function int(number) return string.format('%.0f', number) end

local function note(last, units)
  local at = #runs + 1
  while at > 1 and runs[at - 1][1] > last do at = at - 1 end
  table.insert(runs, at, {last, units})
  if #runs > RUNS_MAX then
    local closest, gap = 1, math.huge
    for i = 1, #runs - 1 do
      local this = runs[i + 1][1] - runs[i][1]
      if this < gap then closest, gap = i, this end
    end
    local gone = table.remove(runs, closest)
    runs[closest][2] = runs[closest][2] + gone[2]
  end
end

local function settle()
  for at, lease in ipairs(leases) do
    if lease[1] == holder then
      table.remove(leases, at)
      local units = math.min(used, lease[2])
      if units > 0 then note(math.min(math.max(math.max(now - last_ago, 0), lease[3]), lease[4]), units) end
      break
    end
  end
  local kept = {}
  for _, run in ipairs(runs) do if now < run[1] + second then kept[#kept + 1] = run end end
  runs = kept
  kept = {}
  for _, lease in ipairs(leases) do if now < lease[4] + second then kept[#kept + 1] = lease end end
  leases = kept
end

local function wait(missing)
  local ends = {}
  for _, run in ipairs(runs) do ends[#ends + 1] = {run[1], run[2]} end
  for _, lease in ipairs(leases) do ends[#ends + 1] = {lease[4], lease[2]} end
  table.sort(ends, function(a, b) return a[1] < b[1] end)
  local freed = 0
  for _, one in ipairs(ends) do
    freed = freed + one[2]
    if missing <= freed then return math.max(one[1] + second - now, 0) end
  end
  return -1
end

local function window()
  local room = first
  for _, run in ipairs(runs) do room = room - run[2] end
  for _, lease in ipairs(leases) do room = room - lease[2] end
  room = math.max(room, 0)
  if room < cost then return {0, wait(cost - room)} end
  local left, may_hold, more = room - cost, #leases < LEASES_MAX, 0
  if may_hold then more = math.min(extra, math.ceil(left / 2)) end
  local held = more
  if way == 'held' and may_hold then
    held = held + cost
  elseif cost > 0 then
    note(now, cost)
  end
  if held > 0 then leases[#leases + 1] = {holder, held, now, now + term} end
  return {1, held, left - more, second}
end

-- Units that an even rate grants at once.
local function room(at)
  local ahead = math.max(at - now, 0)
  if ahead > second then return 0 end
  return math.floor((second - ahead) / first) + 1
end

local function gcra()
  if cost == 0 then return {1, 0, room(tat), math.max(tat - now, 0)} end
  local ahead, more = math.max(tat - now, 0), first * (cost - 1)
  if second < more then return {0, -1} end
  if second - more < ahead then return {0, ahead - (second - more)} end
  tat = now + ahead + more + first
  local from = math.max(tat, now + term)
  local held = math.min(extra, math.floor(room(from) / 2))
  if held > 0 then tat = from + first * held end
  return {1, held, room(tat), math.max(tat - now, 0)}
end

if algorithm == 'window' then settle() end
local answer
if now < blocked then
  answer = {0, blocked - now}
else
  answer = algorithm == 'window' and window() or gcra()
  if answer[1] == 0 and block > 0 then
    blocked = now + block
    answer[2] = block
  end
end

-- An end always: what nobody asks for any more goes by itself.
local over = math.max(blocked, tat)
for _, run in ipairs(runs) do over = math.max(over, run[1] + second) end
for _, lease in ipairs(leases) do over = math.max(over, lease[4] + second) end
if over > now then
  redis.call('SET', KEYS[1], cmsgpack.pack({runs, leases, tat, blocked}), 'PX', int(math.ceil((over - now) / 1000) + 1000))
else
  redis.call('DEL', KEYS[1])
end
for at, number in ipairs(answer) do answer[at] = int(number) end
return answer
