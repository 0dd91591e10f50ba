-- Claims a work that one instance does for all. KEYS[1] the claim; ARGV: who claims, for how long in ms.
-- What is written behind a finished work begins with 'done:' and holds nobody back. Returns whose it is now.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] and string.sub(held, 1, 5) ~= 'done:' then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
