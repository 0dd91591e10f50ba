-- Opens a family of refresh tokens for a session, ends the least recently used where a client has too many, and those of
-- other persons: the id has gone from them to this one.
-- KEYS: {sid}:families, {sid}:session, {sid}:family: (what the keys of families start with), {sid}:ended
-- ARGV: random part of the id, client, person, hash of the family secret, hash of the rotating secret, sealed grant,
--       end of the family in ms, idle life in ms, sealed session ('' for none), families that may live at once,
--       counter of the rotating secret
-- Returns the family's id (the time in ms in 13 digits, then the random part), then the ids of those of other persons.
local random, client, person, secret, current, grant = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local ends, idle, session, most = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function ms(value) return string.format('%.0f', value) end

local id = string.format('%013.0f', now) .. random
local family = KEYS[3] .. id
redis.call('HSET', family, 'client', client, 'person', person, 'secret', secret, 'current', current, 'grant', grant,
  'counter', ARGV[11] .. '.' .. current)
redis.call('PEXPIREAT', family, ms(math.min(ends, now + idle)))
redis.call('ZADD', KEYS[1], ms(now), id)
if session ~= '' then redis.call('HSET', KEYS[2], 'sealed', session) end
-- Empty: nothing has ended, and there are tokens. Whoever reads the record sees it beside.
if redis.call('EXISTS', KEYS[4]) == 0 then redis.call('SET', KEYS[4], '', 'PX', ms(math.max(1, ends - now))) end
for _, key in ipairs({ KEYS[1], KEYS[2], KEYS[4] }) do
  local left = redis.call('PTTL', key)
  if left ~= -2 and now + left < ends then redis.call('PEXPIREAT', key, ms(ends)) end
end

local same, others = {}, { id }
for _, other in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local found = redis.pcall('HMGET', KEYS[3] .. other, 'client', 'ended', 'person')
  if not found[1] or found[2] then redis.call('ZREM', KEYS[1], other)
  elseif found[3] ~= person then
    redis.call('HSET', KEYS[3] .. other, 'ended', 'other-person', 'untold', '1')
    redis.call('HDEL', KEYS[3] .. other, 'grant', 'current', 'older')
    redis.call('ZREM', KEYS[1], other)
    others[#others + 1] = other
  elseif found[1] == client then same[#same + 1] = other end
end
for at = 1, #same - most do
  redis.call('HSET', KEYS[3] .. same[at], 'ended', 'superseded')
  redis.call('HDEL', KEYS[3] .. same[at], 'grant', 'current', 'older')
  redis.call('ZREM', KEYS[1], same[at])
end
return others
