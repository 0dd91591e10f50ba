-- Whether this user may do what the bridge does here, by its scripts and outside of them. KEYS[1] a key that only probes use; ARGV[1] how long
-- it is kept, in ms. On a key of another type a command that is allowed is WRONGTYPE, and one that is not is refused before.
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
local needed = {
  { 'GET' }, { 'MGET' }, { 'EXISTS' }, { 'PTTL' }, { 'PEXPIRE', ARGV[1] }, { 'PEXPIREAT', '32503680000000' }, { 'INCRBY', '1' }, { 'TYPE' },
  { 'HSET', '1', '1' }, { 'HGET', '1' }, { 'HMGET', '1' }, { 'HGETALL' }, { 'HKEYS' }, { 'HLEN' }, { 'HEXISTS', '1' }, { 'HDEL', '1' },
  { 'HINCRBY', '1', '1' }, { 'ZADD', '1', '1' }, { 'ZCARD' }, { 'ZSCORE', '1' }, { 'ZRANGE', '0', '0' }, { 'ZRANGEBYSCORE', '0', '0' },
  { 'ZREM', '1' }, { 'ZREMRANGEBYSCORE', '0', '0' }, { 'XADD', '*', '1', '1' }, { 'XRANGE', '-', '+' }, { 'XREVRANGE', '+', '-' }, { 'TIME' },
  { 'XREAD' }, { 'DEL' },
}
for _, command in ipairs(needed) do
  local name = command[1]
  local found
  if name == 'TIME' then found = redis.pcall('TIME')
  elseif name == 'XREAD' then found = redis.pcall('XREAD', 'STREAMS', KEYS[1], '0')
  else found = redis.pcall(name, KEYS[1], unpack(command, 2)) end
  local failure = type(found) == 'table' and found.err
  if failure and not string.find(failure, 'WRONGTYPE') then
    if string.find(failure, "can't run this command") or string.find(failure, 'NOPERM') then
      return redis.error_reply('NOPERM ' .. name .. ' is not allowed')
    end
    return { err = failure }
  end
end
return 1
