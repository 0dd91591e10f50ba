-- Notes that a person has this session, so that ending the person finds it; forgets those whose time has passed.
-- KEYS[1] subject:{HASH}; ARGV: sid, when the session's tokens end at the latest in ms, the key's life in ms
-- Returns the signed not-before of the person, or false.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all = redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
  if all[at] ~= 'not-before' and (tonumber(all[at + 1]) or 0) < now then redis.call('HDEL', KEYS[1], all[at]) end
end
local before = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') or 0
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', math.max(before, tonumber(ARGV[2]))))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return redis.call('HGET', KEYS[1], 'not-before')
