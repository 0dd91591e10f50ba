-- One use of a refresh token. The current part gives way to its successor. An earlier part that is still good gets the successor that it
-- had. A part that is newer than the current one shows that Redis has lost a write: it counts as the current one. Any other part, under
-- the right family secret, was used before and ends the family.
-- KEYS: {sid}:family:ID, {sid}:families, {sid}:session, {sid}:ended
-- ARGV: id, hash of the family secret, hash of the presented part, hash of the successor, the successor sealed under the
--       presented part, sealed grant, sealed session ('' leaves it), end of the family in ms, idle life in ms, grace in ms,
--       'allow' where a predecessor stays good until its successor has been used,
--       counter of the presented part ('' where its MAC is not ours), counter of the successor
-- Returns { 'gone' | 'junk' | 'reused' } or { 'ended', reason } or { 'rotated' } or { 'repeated', the sealed successor }
--      or { 'caught-up', how many rotations were lost } or { 'derived' }: the successor is the derived one, and nothing changes.
-- An earlier part without a sealed successor ('') has the derived one.
local id, secret, presented, successor, sealed = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local grant, session, ends, idle, grace, late = ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
local counter, next_counter = tonumber(ARGV[12]), ARGV[13]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function ms(value) return string.format('%.0f', value) end

local found = redis.call('HMGET', KEYS[1], 'secret', 'current', 'older', 'ended', 'counter', 'adopted')
if found[4] then return { 'ended', found[4] } end
if not found[1] then return { 'gone' } end
if found[1] ~= secret then return { 'junk' } end

-- Of the earlier parts only those are kept that are still good; until 0 is as long as the successor has not been used.
local older = {}
local ok, parts = pcall(cjson.decode, found[3] or '[]')
for _, part in ipairs(ok and type(parts) == 'table' and parts or {}) do
  local is_part = type(part) == 'table' and type(part[1]) == 'string' and type(part[2]) == 'string' and type(part[3]) == 'number'
  if is_part and (part[3] == 0 or (part[3] > now and part[3] < 2 ^ 53)) then older[#older + 1] = part end
end

-- The stored counter counts only with the part that it was written for: an earlier release rotates without it. A family that never had
-- one counts from 0.
local stored, of = string.match(found[5] or ('0.' .. (found[2] or '')), '^(%d+)%.(.+)$')
stored = of == found[2] and tonumber(stored) or nil
local adopted_until, adopted_from = string.match(found[6] or '', '^(%d+)%.(%d+)$')
local in_grace = adopted_until and tonumber(adopted_until) > now

-- Its successor is in use now, or overtaken.
local function date_last()
  if #older > 0 and older[#older][3] == 0 then older[#older][3] = now + grace end
end

local function use()
  date_last()
  older[#older + 1] = { presented, sealed, late == 'allow' and 0 or now + grace }
  redis.call('HSET', KEYS[1], 'current', successor, 'older', cjson.encode(older), 'grant', grant, 'counter', next_counter .. '.' .. successor)
end

local answer
if found[2] == presented then
  use()
  answer = { 'rotated' }
else
  for _, part in ipairs(older) do
    if part[1] == presented then answer = part[2] == '' and { 'derived' } or { 'repeated', part[2] } end
  end
end
if not answer and counter and stored and counter > stored then
  -- What was good before stays so until its time is over. The current part of an earlier release has no counter by which it could be told.
  date_last()
  if not found[5] then older[#older + 1] = { found[2], '', now + grace } end
  use()
  local from = in_grace and math.min(stored, tonumber(adopted_from)) or stored
  redis.call('HSET', KEYS[1], 'adopted', ms(now + grace) .. '.' .. ms(from))
  answer = { 'caught-up', ms(counter - stored) }
elseif not answer and counter and stored and in_grace and counter >= tonumber(adopted_from) then
  answer = { 'derived' }
end
if not answer then
  -- Untold until every instance was told: an instance may die in between.
  redis.call('HSET', KEYS[1], 'ended', 'reused', 'untold', '1')
  redis.call('HDEL', KEYS[1], 'grant', 'current', 'older')
  redis.call('ZREM', KEYS[2], id)
  return { 'reused' }
end
if session ~= '' then
  redis.call('HSET', KEYS[3], 'sealed', session)
  if redis.call('PTTL', KEYS[3]) == -1 then redis.call('PEXPIREAT', KEYS[3], ms(ends)) end
end
if redis.call('EXISTS', KEYS[4]) == 0 then redis.call('SET', KEYS[4], '', 'PX', ms(math.max(1, ends - now))) end
redis.call('PEXPIREAT', KEYS[1], ms(math.min(ends, now + idle)))
redis.call('ZADD', KEYS[2], ms(now), id)
local left = redis.call('PTTL', KEYS[2])
if now + left < ends then redis.call('PEXPIREAT', KEYS[2], ms(ends)) end
return answer
