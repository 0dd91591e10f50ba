-- Puts an instance on the list of the fleet, and takes off those that are gone.
-- KEYS[1] fleet; ARGV: instance, its time in ms, before which the others are gone, how long the list counts in ms
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
