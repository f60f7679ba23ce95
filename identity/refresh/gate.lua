-- Lets a request through to one token endpoint, or says how long to wait; and remembers how requests ended.
--
-- KEYS[1]  hash     the endpoint's state, all of it times and counts; it expires when it says nothing any more:
--                   due       when the pace allows the next request, the burst left aside
--                   held      not to be asked before: the provider said so
--                   failures  in a row
--                   opened    how often the breaker opened in a row
--                   open      the breaker lets nothing through before; after it, one probe
--                   probe     until when that probe is waited for
--                   seen      when it was asked about last: where that lies ahead, the clock was set back
-- ARGV[1]  "enter", "look", "answered", "failed" or "pause"
-- enter, look:  ARGV[2] interval   ARGV[3] requests that may come at once   ARGV[4] time for a probe
-- failed:       ARGV[2] threshold  ARGV[3] first cooling  ARGV[4] longest cooling
-- pause:        ARGV[2] for how long
--
-- All times are microseconds of this server's clock. Returns how long to wait; 0: go on.
-- identity/refresh/endpoint_state.py is the same in Python, for when this server is away.

local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]
local state = {}
local fields = redis.call("HGETALL", KEYS[1])
for i = 1, #fields, 2 do
  state[fields[i]] = tonumber(fields[i + 1])
end
local what, wait = ARGV[1], 0

local function set(field, value)
  state[field] = value
  if value then
    redis.call("HSET", KEYS[1], field, string.format("%.0f", value))
  else
    redis.call("HDEL", KEYS[1], field)
  end
end

local set_back = (state.seen or now) - now
if set_back > 0 then -- what lay ahead lies as far ahead as before
  for _, field in ipairs({ "due", "held", "open", "probe" }) do
    if state[field] then
      set(field, state[field] - set_back)
    end
  end
end
set("seen", now)

if what == "enter" or what == "look" then
  local interval, burst, probe = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
  local due = math.max(state.due or now, now)
  wait = math.max((state.held or now) - now, (state.open or now) - now, due - (burst - 1) * interval - now, 0)
  if wait == 0 and state.open then
    wait = math.max((state.probe or now) - now, 0)
  end
  if wait == 0 and what == "enter" then
    set("due", due + interval)
    if state.open then
      set("probe", now + probe)
    end
  end
elseif what == "answered" then
  for _, field in ipairs({ "failures", "opened", "open", "probe" }) do
    set(field, nil)
  end
elseif what == "failed" then
  set("failures", (state.failures or 0) + 1)
  local probing = state.open and state.open <= now
  if probing or (not state.open and state.failures >= tonumber(ARGV[2])) then
    set("opened", (state.opened or 0) + 1)
    set("open", now + math.min(tonumber(ARGV[3]) * 2 ^ (state.opened - 1), tonumber(ARGV[4])))
    set("probe", nil)
  end
elseif what == "pause" then
  set("held", math.max(state.held or 0, now + tonumber(ARGV[2])))
end

-- A quarter of an hour after its last date, what it remembers of failures is old, too.
local last = math.max(now, state.due or 0, state.held or 0, state.open or 0, state.probe or 0)
redis.call("PEXPIRE", KEYS[1], string.format("%.0f", (last - now) / 1000 + 900000))
return string.format("%.0f", wait)
