-- Puts a value in the place of another, where that is still the one that was read.
-- KEYS[1]; ARGV: the value that was read ('' for none), what stands for the content of a key that is no string, the next value
-- Returns 1 where it was replaced, else 0.
local current = redis.pcall('GET', KEYS[1])
if type(current) == 'table' then current = ARGV[2] end
if (current or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[3])
return 1
