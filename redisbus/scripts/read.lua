-- ARGV mode epoch seq count id order customer
-- mode: t the tip, p after (epoch, seq), i after the event id. order (and
-- customer) are given when the reader's scope is that one order.
local m = redis.call('HMGET', META, 'epoch', 'seq', 'history', 'key', 'health', 'rung', 'prior')
local holder = redis.call('GET', LEASE) or ''
local health, rung = m[5] or '', tonumber(m[6] or '0')
if not m[1] or not m[3] then return {'NONE', '', 0, 0, '', health, holder, {}, {}, '', rung} end
local hex, tip, key = hex_of(m[1]), tonumber(m[2]), m[4] or ''
local function reply(status, start, entries, forks, named)
  return {status, hex, tip, start, key, health, holder, entries or {}, forks or {}, named or '', rung}
end
if not intact(m[3], tip) then return reply('LOST', tip) end

local s, forks, named = tip, nil, nil
if ARGV[1] == 'p' then
  s = tonumber(ARGV[3])
  if ARGV[2] == '000000000000' then
    s = 0
  elseif ARGV[2] ~= hex then
    forks = redis.call('ZRANGE', FORK, 0, -1, 'WITHSCORES')
    local f = redis.call('ZSCORE', FORK, ARGV[2])
    if not f then return reply('UNKNOWN', tip, nil, forks) end
    s = math.min(s, tonumber(f))
  end
elseif ARGV[1] == 'i' then
  local at = redis.call('ZSCORE', SEEN, ARGV[5])
  if not at then return reply('UNKNOWN', tip) end
  s = tonumber(at)
  -- Up to there are events from before this history. Whoever names one may have
  -- got it from an older log, and not what stands before it in this one.
  local prior, _, of = string.match(m[7] or '', '^(%d+) (%d+) (%x+)$')
  if of == m[3] and s <= tonumber(prior) then return reply('UNKNOWN', tip) end
  local e = redis.call('XRANGE', LOG, id_of(s), id_of(s))
  if #e > 0 then
    named = e[1][2][4] -- for the reader's scope check
  elseif ARGV[6] == '' or (ARGV[7] ~= '' and redis.call('HGET', JOIN, 'c' .. ARGV[6]) ~= ARGV[7]) then
    return reply('UNKNOWN', tip)
  end
  if #e == 0 then
    local newest = 0 -- they are not in order where an invoice was joined
    for n in string.gmatch(redis.call('HGET', STATE, 'ro' .. ARGV[6]) or '', '%d+') do newest = math.max(newest, tonumber(n)) end
    if newest ~= s then return reply('UNKNOWN', tip) end
    s = tip -- nothing newer of this order exists
  end
  -- After a rewind events come again, perhaps in another order. One named from
  -- shortly after an epoch's end may have followed others there.
  local f = redis.call('ZRANGEBYSCORE', FORK, s - 500, '(' .. string.format('%.0f', s), 'WITHSCORES', 'LIMIT', 0, 1)
  if #f > 0 then s = tonumber(f[2]) end
end
if s > tip then s = tip end

local entries, bytes, from = {}, 0, s
while from < tip and #entries < tonumber(ARGV[4]) and bytes < 4194304 do
  local page = redis.call('XRANGE', LOG, id_of(from + 1), '+', 'COUNT', math.min(32, tonumber(ARGV[4]) - #entries))
  if #page == 0 or tonumber(string.match(page[1][1], '^(%d+)')) ~= from + 1 then
    if from == s then return reply('EXPIRED', tip, nil, forks) end
    break
  end
  for _, e in ipairs(page) do
    entries[#entries + 1] = e
    bytes = bytes + #e[2][4]
  end
  from = from + #page
end
return reply('OK', s, entries, forks, named)
