-- Whether this user may do what the bridge's scripts do. KEYS[1] a key that only probes use; ARGV[1] how long it is kept, in ms.
-- On a key of another type a command that is allowed is WRONGTYPE, and one that is not is refused before.
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
for _, command in ipairs({ { 'HSET', '1', '1' }, { 'ZADD', '1', '1' }, { 'XADD', '*', '1', '1' } }) do
  local found = redis.pcall(command[1], KEYS[1], unpack(command, 2))
  if type(found) == 'table' and found.err and not string.find(found.err, 'WRONGTYPE') then
    return redis.error_reply('NOPERM ' .. command[1] .. ' is not allowed')
  end
end
return 1
