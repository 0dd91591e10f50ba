-- Adds the end of a person to those that outlast the stream, and drops those that no longer matter.
-- KEYS[1] persons-ended; ARGV: when in ms, signed end, how long it matters in ms
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, string.format('%.0f', ARGV[1] - ARGV[3]))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
