-- Puts another text in the place of one, where that one still stands there. How long the key lives stays as it is.
-- KEYS: a string, a hash or a sorted set
-- ARGV: 'string', 'field' or 'member', the text, the other text, the field of a hash
-- Returns 1 where it was replaced, else 0.
local kind, before, after, field = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if kind == 'string' then
  if redis.call('GET', KEYS[1]) ~= before then return 0 end
  redis.call('SET', KEYS[1], after, 'KEEPTTL')
elseif kind == 'field' then
  if redis.call('HGET', KEYS[1], field) ~= before then return 0 end
  redis.call('HSET', KEYS[1], field, after)
else
  local score = redis.call('ZSCORE', KEYS[1], before)
  if not score then return 0 end
  redis.call('ZREM', KEYS[1], before)
  redis.call('ZADD', KEYS[1], score, after)
end
return 1
