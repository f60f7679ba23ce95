-- Circuit breakers of one upstream host: admits a call or says when to come back, and records how calls ended.
--
-- KEYS[1]  hash     one tenant's breaker for the host:
--                   failures  consecutive failures
--                   last      the source of the last failure: a job here, a tenant in KEYS[2]
--                   opened    how often the breaker opened in this outage
--                   open      no call passes before this time; after it, one probe does
--                   since     when the breaker first opened in this outage
--                   probe     how long the running probe is waited for
--                   prober    the job that makes the probe
--                   line      the next place in the waiting line: of the tenant's jobs here, of tenants in KEYS[2]
--                   seen      time of the last query; if it lies ahead, the clock was set back
-- KEYS[2]  hash     the same for all tenants together
-- ARGV[1]  "enter", "line", "answered", "back" (it was not sent), "failed", or "away" (how long without a break)
-- ARGV[2]  interval between two places of a line   ARGV[3] the longest line   ARGV[4] the job   ARGV[5] its tenant
-- ARGV[6]  threshold   ARGV[7] retry interval of callers that arrive during a probe
-- enter:   ARGV[8] time allowed for a probe
-- line:    ARGV[8] when the line begins, from now
-- failed:  ARGV[8] first cooling   ARGV[9] longest cooling   ARGV[10] "1": it may be the request's own fault
--
-- All times are microseconds of this server's clock. Returns how long to wait; 0: go on, or after "failed": the host
-- does not count as away. If the call may go on but state exists, "enter" returns -1; minus 2 if a failure now would
-- make the host count as away, and minus 4 if a failure that may be the request's own would be this job's again.
-- pipeline/throttle/breaker_state.py is the same in Python, for when this server is away.

local FORGOTTEN = 900000000 -- state is dropped this long after its last date

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
    local named = fields[i] == "last" or fields[i] == "prober"
    state[fields[i]] = named and fields[i + 1] or tonumber(fields[i + 1])
  end
  local set_back = (state.seen or now) - now
  if set_back > 0 then -- keep the distance of every date from now
    for _, field in ipairs({ "open", "since", "probe", "line" }) do
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
  if state.open > now then
    return state.open - now
  end
  return math.max(math.min((state.probe or now) - now, tonumber(ARGV[7])), 0)
end

-- A place in the line that begins after *wait*; callers that arrive together get successive places.
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
  return math.max(wait_of(whose), wait_of(host))
end

-- A place in the tenant's line. The tenants' lines run in parallel, with staggered starts.
local function stand(wait)
  local begins = 0
  if (whose.line or 0) < now + wait and wait_of(whose) < wait then
    begins = place(host, wait) - wait
  end
  return place(whose, wait + begins)
end

local function is_own() -- a failure now would be this job's again, while the host's breaker is closed
  return whose.last == ARGV[4] and not host.open
end

local function is_last_straw(state, who)
  return state.open or (state.last ~= who and (state.failures or 0) + 1 >= tonumber(ARGV[6]))
end

-- While the breaker is open, failures other than the probe's were sent earlier and say nothing new.
local function fail(state, who, same)
  if state.open and state.prober ~= ARGV[4] then
    return
  end
  set(state, "last", who)
  if not same then
    set(state, "failures", (state.failures or 0) + 1)
  end
  if state.open or (state.failures or 0) >= tonumber(ARGV[6]) then
    set(state, "since", state.since or now)
    local cooling = tonumber(ARGV[8])
    if not same then
      set(state, "opened", (state.opened or 0) + 1)
      cooling = math.min(cooling * 2 ^ (state.opened - 1), tonumber(ARGV[9]))
    end
    set(state, "open", now + cooling)
    set(state, "probe", nil)
    set(state, "prober", nil)
  end
end

local function away_for(state)
  return state.open and state.open > now and now - (state.since or now) or 0
end

local what, answer = ARGV[1], 0
if what == "enter" then
  local wait = longest()
  if wait > 0 then
    answer = stand(wait)
  else
    if whose.there or host.there then
      local straw = is_last_straw(whose, "") or is_last_straw(host, ARGV[5])
      answer = -1 - (straw and 2 or 0) - (is_own() and 4 or 0)
    end
    for _, state in ipairs(both) do
      if state.open then
        set(state, "probe", now + tonumber(ARGV[8]))
        set(state, "prober", ARGV[4])
      end
    end
  end
elseif what == "line" then
  answer = stand(tonumber(ARGV[8]))
elseif what == "away" then
  answer = math.max(away_for(whose), away_for(host))
elseif what == "answered" then
  for _, state in ipairs(both) do
    if state.there then
      redis.call("DEL", state.key)
    end
  end
  return "0"
elseif what == "back" then
  for _, state in ipairs(both) do
    if state.prober == ARGV[4] then
      set(state, "probe", nil)
      set(state, "prober", nil)
    end
  end
else
  local own = ARGV[10] == "1" and is_own()
  fail(whose, ARGV[4], own)
  fail(host, ARGV[5], own or host.last == ARGV[5])
  answer = own and 0 or longest()
end

for _, state in ipairs(both) do
  if state.there then
    set(state, "seen", now)
    local last = math.max(now, state.open or 0, state.probe or 0, state.line or 0)
    redis.call("PEXPIRE", state.key, string.format("%.0f", (last - now + FORGOTTEN) / 1000))
  end
end
return string.format("%.0f", answer)
