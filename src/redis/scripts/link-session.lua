-- Notes that two sessions end together. KEYS[1] {sid}:session; ARGV: field, sealed link, how long it matters in ms
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
