-- Ends one family. What remains says that it was ended, and why, for as long as the family would have lived.
-- KEYS: {sid}:family:ID, {sid}:families, {sid}:session; ARGV: id, reason, what a repeated way back is answered with ('' for none)
-- Returns { 'gone' } or { 'ended', reason, that answer } for one that had ended before, or { 'done' }.
local found = redis.call('HMGET', KEYS[1], 'secret', 'ended', 'returned')
if found[2] then return { 'ended', found[2], found[3] or '' } end
if not found[1] then return { 'gone' } end
redis.call('HSET', KEYS[1], 'ended', ARGV[2])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'returned', ARGV[3])
else redis.call('HDEL', KEYS[1], 'current', 'older') end
redis.call('HDEL', KEYS[1], 'grant')
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('ZCARD', KEYS[2]) == 0 then redis.call('HDEL', KEYS[3], 'sealed') end
return { 'done' }
