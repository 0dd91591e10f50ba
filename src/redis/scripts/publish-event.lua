-- Adds events to the stream and drops those that no instance needs any more.
-- KEYS[1] the stream; ARGV: how long events are kept in ms, then the signed events. Returns the id of the last.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = string.format('%.0f', math.max(0, now - ARGV[1]))
local id
for at = 2, #ARGV do
  id = redis.call('XADD', KEYS[1], 'MINID', '=', oldest, '*', 'event', ARGV[at])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return id
