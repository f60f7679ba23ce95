-- Renews or releases the refresh lock of one account, if the caller still owns it.
--
-- KEYS[1]  string   the lock, with the owner's token as its value and an expiry
-- KEYS[2]  channel  where waiters listen for a release
-- ARGV[1]  the owner's token
-- ARGV[2]  "renew" or "release"
-- ARGV[3]  milliseconds to live ("renew")
--
-- Returns 1, or 0 if the caller no longer owns the lock.

if redis.call("GET", KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == "renew" then
  return redis.call("PEXPIRE", KEYS[1], ARGV[3])
end
redis.call("DEL", KEYS[1])
redis.call("PUBLISH", KEYS[2], "released")
return 1
