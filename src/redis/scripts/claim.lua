-- Claims a work that one instance does for all. KEYS[1] the claim; ARGV: who claims, for how long in ms. Returns whose it is now.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
