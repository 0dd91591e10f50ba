-- Sets the not-before of a person. KEYS[1] subject:{HASH}; ARGV: signed not-before, the key's life in ms
-- Returns the sids of the sessions that the person has tokens of.
redis.call('HSET', KEYS[1], 'not-before', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local sids = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if field ~= 'not-before' then sids[#sids + 1] = field end
end
return sids
