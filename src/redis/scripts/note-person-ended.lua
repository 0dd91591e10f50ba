-- Adds ends of persons to those that outlast the stream, and drops those that no longer matter.
-- KEYS[1] persons-ended; ARGV: how long they matter in ms, then for each: when in ms, signed end
for at = 2, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], ARGV[at], ARGV[at + 1])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, string.format('%.0f', ARGV[at] - ARGV[1]))
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
