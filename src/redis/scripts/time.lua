-- The time of the node that holds KEYS[1], in ms: what happens to one session is ordered by one clock.
local time = redis.call('TIME')
return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
