-- Ends one family. What remains says that it was ended, and why, for as long as the family would have lived.
-- KEYS: {sid}:family:ID, {sid}:families, {sid}:session; ARGV: id, reason, what a repeated way back is answered with ('' for none),
--       hash of the part that took the way back
-- Returns { 'gone' } or { 'ended', reason, that answer } for one that had ended before, or { 'done' }.
local found = redis.call('HMGET', KEYS[1], 'secret', 'ended', 'returned')
if found[2] then return { 'ended', found[2], found[3] or '' } end
if not found[1] then return { 'gone' } end
redis.call('HSET', KEYS[1], 'ended', ARGV[2])
-- Its access tokens end as well: untold until every instance was told.
if ARGV[2] ~= 'returned' then redis.call('HSET', KEYS[1], 'untold', '1') end
redis.call('HDEL', KEYS[1], 'grant', 'current', 'older')
-- Of all parts, only the one that took the way back is answered again.
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'returned', ARGV[3], 'current', ARGV[4]) end
redis.call('ZREM', KEYS[2], ARGV[1])
-- The session went while the family was made: what was kept of it goes too.
if ARGV[2] == 'taken-back' and redis.call('ZCARD', KEYS[2]) == 0 then redis.call('HDEL', KEYS[3], 'sealed') end
return { 'done' }
