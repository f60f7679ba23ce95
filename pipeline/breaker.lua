-- Lets a call through to an upstream's host, or says when to come back; and remembers how calls ended.
--
-- KEYS[1]  hash     what one tenant met at the host:
--                   failures  in a row
--                   last      whose failure was the last: here a job, for the host a tenant
--                   opened    how often the breaker opened in a row
--                   open      it lets nothing through before; after it, one probe
--                   probe     until when that probe is waited for
--                   line      the next place of those who wait
--                   seen      when it was asked about last: where that lies ahead, the clock was set back
-- KEYS[2]  hash     the same of all tenants together
-- ARGV[1]  "enter", "line", "answered", "back": it was not sent, or "failed"
-- ARGV[2]  between two places of a line   ARGV[3] the longest line
-- enter:   ARGV[4] time for a probe
-- line:    ARGV[4] when the line begins, from now
-- failed:  ARGV[4] threshold   ARGV[5] first cooling   ARGV[6] longest cooling   ARGV[7] the job   ARGV[8] its tenant
--          ARGV[9] "1": it may be the request's own fault
--
-- All times are microseconds of this server's clock. Returns how long to wait; 0: go on, or of a failure: it is nobody
-- else's. pipeline/breaker_state.py is the same in Python, for when this server is away.

local FORGOTTEN = 900000000 -- so long after its last date, what is remembered of failures is old, too

local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]

local function set(state, field, value)
  state[field] = value
  if value then
    state.there = true
    redis.call("HSET", state.key, field, type(value) == "number" and string.format("%.0f", value) or value)
  else
    redis.call("HDEL", state.key, field)
  end
end

local function read(key)
  local state = { key = key }
  local fields = redis.call("HGETALL", key)
  for i = 1, #fields, 2 do
    state.there = true
    state[fields[i]] = fields[i] == "last" and fields[i + 1] or tonumber(fields[i + 1])
  end
  local set_back = (state.seen or now) - now
  if set_back > 0 then -- what lay ahead lies as far ahead as before
    for _, field in ipairs({ "open", "probe", "line" }) do
      if state[field] then
        set(state, field, state[field] - set_back)
      end
    end
  end
  return state
end

local whose, host = read(KEYS[1]), read(KEYS[2])
local both = { whose, host }

local function wait_of(state)
  if not state.open then
    return 0
  end
  return math.max(state.open > now and state.open - now or (state.probe or now) - now, 0)
end

-- A place in the line that begins after *wait*: who waits for one moment comes one after the other.
local function place(state, wait)
  local first = now + wait
  local at = math.max(state.line or first, first)
  if at - first > tonumber(ARGV[3]) then
    at = first
  end
  set(state, "line", at + tonumber(ARGV[2]))
  return at - now
end

local function longest()
  local ours, all = wait_of(whose), wait_of(host)
  return math.max(ours, all), ours > all and whose or host
end

local function fail(state, who, same)
  set(state, "last", who)
  if not same then
    set(state, "failures", (state.failures or 0) + 1)
  end
  local probed = state.open and state.open <= now
  if probed or (not state.open and (state.failures or 0) >= tonumber(ARGV[4])) then
    local cooling = tonumber(ARGV[5])
    if not same then
      set(state, "opened", (state.opened or 0) + 1)
      cooling = math.min(cooling * 2 ^ (state.opened - 1), tonumber(ARGV[6]))
    end
    set(state, "open", now + cooling)
    set(state, "probe", nil)
  end
end

local what, answer = ARGV[1], 0
if what == "enter" then
  local wait, of = longest()
  if wait > 0 then
    answer = place(of, wait)
  else
    for _, state in ipairs(both) do
      if state.open then
        set(state, "probe", now + tonumber(ARGV[4]))
      end
    end
  end
elseif what == "line" then
  answer = place(host, tonumber(ARGV[4]))
elseif what == "answered" then
  for _, state in ipairs(both) do
    if state.there then
      redis.call("DEL", state.key)
    end
  end
  return "0"
elseif what == "back" then
  for _, state in ipairs(both) do
    if state.probe then
      set(state, "probe", nil)
    end
  end
else
  local own = ARGV[9] == "1" and whose.last == ARGV[7]
  fail(whose, ARGV[7], own)
  fail(host, ARGV[8], own or host.last == ARGV[8])
  answer = own and 0 or longest() -- its first result alone
end

for _, state in ipairs(both) do
  if state.there then
    set(state, "seen", now)
    local last = math.max(now, state.open or 0, state.probe or 0, state.line or 0)
    redis.call("PEXPIRE", state.key, string.format("%.0f", (last - now + FORGOTTEN) / 1000))
  end
end
return string.format("%.0f", answer)
