-- Renews or releases the lock of one account's refresh, if it is still the caller's.
--
-- KEYS[1]  string   the lock; its value is the owner's token, it expires by itself
-- KEYS[2]  channel  where those who wait for the lock listen
-- ARGV[1]  the owner's token
-- ARGV[2]  "renew" or "release"
-- ARGV[3]  milliseconds to live ("renew")
--
-- Returns 1, or 0 if the lock has passed to someone else.

if redis.call("GET", KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == "renew" then
  return redis.call("PEXPIRE", KEYS[1], ARGV[3])
end
redis.call("DEL", KEYS[1])
redis.call("PUBLISH", KEYS[2], "released")
return 1
