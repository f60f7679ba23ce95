-- Admits a request to one token endpoint or returns how long to wait, and records how requests ended.
--
-- KEYS[1]  hash     the endpoint's state, times and counts; expires once it is of no use:
--                   due       when the pace allows the next request, ignoring the burst
--                   held      the provider asked for a pause until then
--                   failures  consecutive failures
--                   opened    how often in a row the breaker has opened
--                   open      the breaker is open until then; afterwards it admits one half-open probe
--                   probe     how long to wait for that probe's outcome
--                   seen      time of the last call; if it lies ahead, the clock was set back
--                   places    number of places given out
--                   swept     callers due back before this, who did not come, have left the line
--                   absent    places up to this number are not counted: their turns went unused and nobody came
-- KEYS[2]  zset     the line: callers by rank, and by arrival within a rank
-- KEYS[3]  zset     callers by the time they were told to come back; late ones stay here for a while
-- ARGV[1]  "enter", "back" (it was not sent), "look", "leave", "answered", "failed", "pause" or "paused"
-- enter, look:  ARGV[2] interval   ARGV[3] burst allowed to this caller   ARGV[4] time limit of a probe
--               ARGV[5] caller; "" takes no place   ARGV[6] its rank; a lower rank goes first
--               ARGV[7] a caller this late no longer blocks the line
--               ARGV[8] a caller this late is forgotten; also the longest wait that is told
--               ARGV[9] burst allowed to the caller that leaves most to others: by then all in line may go
--               ARGV[10] if turns went unused for this long, everyone in line is taken for absent
-- leave:        ARGV[2] caller
-- failed:       ARGV[2] threshold  ARGV[3] first cooling  ARGV[4] longest cooling  ARGV[5] how long the request took
-- pause:        ARGV[2] duration
--
-- All times are microseconds of this server's clock. Returns how long to wait; 0 admits the request. "back" admits
-- another probe even if the unsent request was not the probe: one request too many does little harm.
-- identity/token_endpoint/endpoint_state.py is the same in Python, for when this server is unreachable.

local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]
local state = {}
local fields = redis.call("HGETALL", KEYS[1])
for i = 1, #fields, 2 do
  state[fields[i]] = tonumber(fields[i + 1])
end
local what, wait = ARGV[1], 0
local RANK = 1000000000000 -- more places than a rank ever gives out

local function set(field, value)
  state[field] = value
  if value then
    redis.call("HSET", KEYS[1], field, string.format("%.0f", value))
  else
    redis.call("HDEL", KEYS[1], field)
  end
end

local function shut() -- until when nothing passes, whatever the pace
  return math.max(state.held or 0, state.open or 0, state.probe or 0)
end

-- Callers far back look again part-way, at staggered times: those ahead may have left by then.
local function told(wait, longest)
  return wait <= longest and wait or longest / 2 + wait % (longest / 2)
end

local set_back = (state.seen or now) - now
if set_back > 0 then -- shift future times by the same amount
  for _, field in ipairs({ "due", "held", "open", "probe" }) do
    if state[field] then
      set(field, state[field] - set_back)
    end
  end
  redis.call("DEL", KEYS[2], KEYS[3]) -- waiting callers come back as told and get a new place
  set("swept", nil)
  set("absent", nil)
end
set("seen", now)

if what == "enter" or what == "look" then
  local interval, burst, probe = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
  local who, rank, late, longest = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
  local fewest, unused = tonumber(ARGV[9]), tonumber(ARGV[10])
  local from = string.format("%.0f", state.swept or 0)
  for _, one in ipairs(redis.call("ZRANGEBYSCORE", KEYS[3], from, string.format("(%.0f", now - late))) do
    redis.call("ZREM", KEYS[2], one)
  end
  set("swept", now - late)
  redis.call("ZREMRANGEBYSCORE", KEYS[3], "-inf", string.format("(%.0f", now - longest))
  local due = math.max(state.due or now, now)
  local free = math.max(due - (burst - 1) * interval, shut())
  local place, number = tonumber(redis.call("ZSCORE", KEYS[2], who)), RANK
  local came = redis.call("ZSCORE", KEYS[3], who)
  if place then
    rank = math.floor(place / RANK)
    number = place - rank * RANK
  elseif came then
    rank = -1 -- it came after its turn
  end
  if now - math.max((state.due or 0) - (fewest - 1) * interval, shut()) >= unused then
    set("absent", state.places)
  elseif came and (not place or number <= (state.absent or 0)) then
    set("absent", nil) -- one of them came, so the rest may come as well
  end
  local before = 0
  for one = -1, rank do
    local from, to = one * RANK + (state.absent or 0), one * RANK + (one < rank and RANK or number)
    before = before + redis.call("ZCOUNT", KEYS[2], string.format("(%.0f", from), string.format("(%.0f", to))
  end
  wait = math.max(free + before * interval - now, 0)
  if wait > 0 and who ~= "" then
    local first = math.max(free - now, 0)
    wait = first + told(wait - first, longest)
    if not place then
      set("places", (state.places or 0) + 1)
      redis.call("ZADD", KEYS[2], string.format("%.0f", rank * RANK + state.places), who)
    end
    redis.call("ZADD", KEYS[3], string.format("%.0f", now + wait), who)
  elseif wait == 0 and what == "enter" then
    redis.call("ZREM", KEYS[2], who)
    redis.call("ZREM", KEYS[3], who)
    set("due", due + interval)
    if state.open then
      set("probe", now + probe)
    end
  end
elseif what == "paused" then
  wait = math.max(shut() - now, 0)
elseif what == "back" then
  set("probe", nil)
elseif what == "leave" then
  redis.call("ZREM", KEYS[2], ARGV[2])
  redis.call("ZREM", KEYS[3], ARGV[2])
elseif what == "answered" then
  for _, field in ipairs({ "failures", "opened", "open", "probe" }) do
    set(field, nil)
  end
elseif what == "failed" then
  -- A request that was sent before the cooling was over is no probe: its failure says nothing new.
  if not state.open or state.open <= now - tonumber(ARGV[5]) then
    set("failures", (state.failures or 0) + 1)
    if state.open or state.failures >= tonumber(ARGV[2]) then
      set("opened", (state.opened or 0) + 1)
      set("open", now + math.min(tonumber(ARGV[3]) * 2 ^ (state.opened - 1), tonumber(ARGV[4])))
      set("probe", nil)
    end
  end
elseif what == "pause" then
  set("held", math.max(state.held or 0, now + tonumber(ARGV[2])))
end

-- Fifteen minutes after the last of these times, the failure counts are stale as well.
local back = tonumber(redis.call("ZREVRANGE", KEYS[3], 0, 0, "WITHSCORES")[2] or 0)
local last = math.max(now, state.due or 0, shut(), back)
for _, key in ipairs(KEYS) do
  redis.call("PEXPIRE", key, string.format("%.0f", (last - now) / 1000 + 900000))
end
return string.format("%.0f", wait)
