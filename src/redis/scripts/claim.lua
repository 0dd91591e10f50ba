-- Claims a work that one instance does for all. KEYS[1] the claim; ARGV: who claims, what is to stand there (the same, or that it
-- is done), how long in ms. Returns what stands there now.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return held end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return ARGV[2]
