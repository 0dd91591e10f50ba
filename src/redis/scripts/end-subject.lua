-- Sets the not-before of a person, where the one that stands there is still the one that was read.
-- KEYS[1] subject:{HASH}; ARGV: signed not-before, the key's life in ms, the not-before that was read ('' for none; absent: whatever it is)
-- Returns the sids of the sessions that the person has tokens of, or 'changed'.
if ARGV[3] and (redis.call('HGET', KEYS[1], 'not-before') or '') ~= ARGV[3] then return 'changed' end
redis.call('HSET', KEYS[1], 'not-before', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local sids = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if field ~= 'not-before' then sids[#sids + 1] = field end
end
return sids
