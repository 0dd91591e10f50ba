-- Adds an event to the stream and drops those that no instance needs any more.
-- KEYS[1] the stream; ARGV: the signed event, how long events are kept in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = string.format('%.0f', math.max(0, now - ARGV[2]))
local id = redis.call('XADD', KEYS[1], 'MINID', '=', oldest, '*', 'event', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return id
