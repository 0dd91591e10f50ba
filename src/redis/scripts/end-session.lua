-- A logout: sets the tombstone and ends the families of a session.
-- KEYS: {sid}:ended, {sid}:families, {sid}:session, {sid}:family: (what the keys of families start with)
-- ARGV: signed tombstone, its life in ms, reason, only families made up to this time in ms ('' for all), only those of
--       this person ('' for all), what must stand in the place of the tombstone (left out: anything)
-- Returns the ids of the families that it ended; { 'changed' } where something else stands in the place of the tombstone.
local tombstone, life, reason, upTo, person = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
if tombstone ~= '' and ARGV[6] and (redis.call('GET', KEYS[1]) or '') ~= ARGV[6] then return { 'changed' } end
if tombstone ~= '' then redis.call('SET', KEYS[1], tombstone, 'PX', life) end
local ended = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local made = tonumber(string.sub(id, 1, 13)) or 0
  local found = redis.pcall('HMGET', KEYS[4] .. id, 'person', 'ended')
  if not found[1] or found[2] then redis.call('ZREM', KEYS[2], id)
  elseif (not upTo or made <= upTo) and (person == '' or found[1] == person) then
    redis.call('HSET', KEYS[4] .. id, 'ended', reason)
    redis.call('HDEL', KEYS[4] .. id, 'grant', 'current', 'older')
    redis.call('ZREM', KEYS[2], id)
    ended[#ended + 1] = id
  end
end
if redis.call('ZCARD', KEYS[2]) == 0 then redis.call('HDEL', KEYS[3], 'sealed') end
return ended
