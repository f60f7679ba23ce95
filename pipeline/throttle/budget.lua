-- Rate budget of one endpoint class: admits a request or says how long to wait, and learns from answers.
--
-- KEYS[1]  hash     the class's state for one account or tenant:
--                   limit      requests per window, as last stated
--                   remaining  requests left in this window; absent: not stated yet
--                   resets     when the window ends
--                   told       "1": an answer stated this very window; otherwise it is a guess
--                   flying     requests admitted and not answered yet
--                   held       no request before this time: the upstream asked for a pause
--                   seen       time of the last query; if it lies ahead, the clock was set back
-- KEYS[2]  hash     the account's or tenant's pause for all classes: held and seen
-- ARGV[1]  "enter", "back" (it was not sent), or "told"
-- enter:   ARGV[2] most requests in flight while nothing is known   ARGV[3] length of a guessed window
--          ARGV[4] wait when that many are in flight
-- told:    ARGV[2] remaining, or ""   ARGV[3] limit   ARGV[4] time until it resets   ARGV[5] pause, or 0
--          ARGV[6] "1": the pause is for all classes
--
-- All times are microseconds of this server's clock. Returns how long to wait; 0: go on.

local SAME = 2000000 -- two statements of the same window differ by less, as an answer's Date has whole seconds
local DAY = 86400000000 -- cap on any window or pause
local LATE = 30000000 -- a window that ends sooner than this may have ended while the answer was on its way

local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]

-- Reads a hash, with its dates corrected for a clock that was set back.
local function read(key)
  local found = {}
  local fields = redis.call("HGETALL", key)
  for i = 1, #fields, 2 do
    found[fields[i]] = tonumber(fields[i + 1])
  end
  local set_back = math.max((found.seen or now) - now, 0)
  for _, field in ipairs({ "resets", "held" }) do
    local before = found[field]
    if before then -- keep its distance from now, a day at most
      found[field] = math.min(before - set_back, now + DAY)
      if found[field] ~= before then
        redis.call("HSET", key, field, string.format("%.0f", found[field]))
      end
    end
  end
  return found
end

local state, whole = read(KEYS[1]), read(KEYS[2])
redis.call("HSET", KEYS[1], "seen", string.format("%.0f", now))
if whole.held then
  redis.call("HSET", KEYS[2], "seen", string.format("%.0f", now))
end
if (state.limit or 1) < 1 then
  state.limit = nil
end

local function set(field, value)
  state[field] = value
  if value then
    redis.call("HSET", KEYS[1], field, string.format("%.0f", value))
  else
    redis.call("HDEL", KEYS[1], field)
  end
end

local wait = 0
local flying = state.flying or 0
if ARGV[1] == "enter" then
  wait = math.max((state.held or 0) - now, (whole.held or 0) - now, 0)
  if wait == 0 then
    if (state.resets or 0) <= now then
      -- Guess a window as large as the last one, and forget requests that never got an answer.
      set("resets", now + tonumber(ARGV[3]))
      set("remaining", state.limit)
      set("told", nil)
      flying = 0
    end
    if state.remaining then
      if state.remaining < 1 then
        wait = state.resets - now
      end
    elseif flying >= tonumber(ARGV[2]) then
      wait = tonumber(ARGV[4])
    end
    if wait == 0 then
      set("flying", flying + 1)
      if state.remaining then
        set("remaining", state.remaining - 1)
      end
    end
  end
elseif ARGV[1] == "back" then
  set("flying", math.max(flying - 1, 0))
  if state.remaining then
    set("remaining", state.remaining + 1)
  end
else
  flying = math.max(flying - 1, 0)
  set("flying", flying)
  local said, resets = tonumber(ARGV[2]), now + (tonumber(ARGV[4]) or 0)
  if said and tonumber(ARGV[3]) >= 1 then -- a limit of 0 would block everything, so it is ignored
    set("limit", tonumber(ARGV[3]))
    local sooner = resets < (state.resets or 0) - SAME
    if not state.told or resets > state.resets + SAME or (sooner and resets > now + LATE) then
      -- Assume that the stated remainder does not count requests in flight yet.
      set("remaining", math.max(said - flying, 0))
      set("resets", resets)
      set("told", 1)
    elseif not sooner then
      set("remaining", math.min(state.remaining, said)) -- others may draw on it as well
    end
  end
  local pause = tonumber(ARGV[5])
  if pause > 0 then
    if ARGV[6] == "1" then
      local held = math.max(whole.held or 0, now + pause)
      redis.call("HSET", KEYS[2], "held", string.format("%.0f", held), "seen", string.format("%.0f", now))
      redis.call("PEXPIRE", KEYS[2], string.format("%.0f", (held - now) / 1000 + 3600000))
    else
      set("held", math.max(state.held or 0, now + pause))
    end
  end
end

-- Remember the size of the windows for an hour.
local last = math.max(now, state.resets or 0, state.held or 0)
redis.call("PEXPIRE", KEYS[1], string.format("%.0f", (last - now) / 1000 + 3600000))
return string.format("%.0f", wait)
