-- What an instance says of itself, for a while. KEYS[1] fleet:ID; ARGV: signed announcement, how long it counts in ms
redis.call('HSET', KEYS[1], 'announcement', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
