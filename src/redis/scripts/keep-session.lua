-- Replaces what is kept of a session, where anything is kept. KEYS[1] {sid}:session; ARGV[1] the sealed session
if redis.call('HEXISTS', KEYS[1], 'sealed') == 0 then return 0 end
redis.call('HSET', KEYS[1], 'sealed', ARGV[1])
return 1
