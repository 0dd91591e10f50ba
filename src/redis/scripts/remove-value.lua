-- Removes a value, where it is still the one that was read.
-- KEYS[1]; ARGV: the value, what stands for the content of a key that is no string
-- Returns 1 where it was removed, else 0.
local current = redis.pcall('GET', KEYS[1])
if type(current) == 'table' then current = ARGV[2] end
if current ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
