-- Deletes a record if it still is what was read. KEYS[1] record; ARGV: 'string' and its bytes, or 'hash' and its fields and values in turn
-- Returns 1 if it was deleted.
if ARGV[1] == 'string' then
  if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
else
  if redis.call('HLEN', KEYS[1]) * 2 ~= #ARGV - 1 then return 0 end
  for at = 2, #ARGV, 2 do
    if redis.call('HGET', KEYS[1], ARGV[at]) ~= ARGV[at + 1] then return 0 end
  end
end
return redis.call('DEL', KEYS[1])
