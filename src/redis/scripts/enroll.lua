-- Puts an instance on the list of the fleet, and takes off those that are gone, and those that no clock has made.
-- KEYS[1] fleet; ARGV: instance, its time in ms, before which the others are gone, after which they lie ahead, how long the list counts in ms
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. ARGV[4], '+inf')
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
