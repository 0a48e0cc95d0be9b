-- ARGV fence acked cursor log_max seen_max state_max state_ttl_ms publish channel,
-- then per record: flags id order invoice customer object millis version_seq blob
-- flags: e event, j join entry; n its links are new; w no state it could replace is
-- newer; l hand the states on; c covered; q missing upstream
local FIRST, WIDTH, MOST = 10, 9, 1000 -- MOST bytes of an order's recent seqs
local m = redis.call('HMGET', META, 'epoch', 'seq', 'history', 'now')
if m[1] ~= ARGV[1] then return {'FENCED'} end
local seq = tonumber(m[2])
if seq < tonumber(ARGV[2]) then return {'REWIND', seq} end
-- A key that is gone, before anything here makes it anew. Its mark is compared
-- with each renewal: one of another history could only be put there by hand.
if redis.call('EXISTS', SEEN, FORK, STATE, STATE_AT, JOIN, seq > 0 and LOG or SEEN) < 6 then return {'LOST'} end

-- As of the last renewal: asking for the time is a call.
local hex, now, from = hex_of(ARGV[1]), tonumber(m[4]) or now_ms(), seq
local parts, n, duplicates, linked = {''}, 0, 0, false
local at -- scores of state_at: the time, and the seq where that is the same

-- What a plain event of a known order does not need. Lua makes a function anew
-- whenever it comes to its definition: these not before one of them is used.
local made
local function rarely()
  if made then return made end

  -- What a state field holds next. The newest version wins; without versions the
  -- later in the log does.
  local function newer(old, value)
    if not old then return value end
    local oms, ovs, oseq = string.match(old, '^(%d+):(%d+):(%d+):')
    local nms, nvs, nseq = string.match(value, '^(%d+):(%d+):(%d+):')
    oms, ovs, oseq, nms, nvs, nseq =
      tonumber(oms), tonumber(ovs), tonumber(oseq), tonumber(nms), tonumber(nvs), tonumber(nseq)
    local older
    if oms == 0 or nms == 0 or (oms == nms and ovs == nvs) then
      older = nseq < oseq
    else
      older = nms < oms or (nms == oms and nvs < ovs)
    end
    return older and old or value
  end

  -- The newest seqs of a list that has grown too long.
  local function cut(recent)
    if #recent <= MOST then return recent end
    return string.match(recent, '^%d*,(.*)$', #recent - MOST + 1) or recent
  end

  -- Events of an invoice whose order was unknown become the order's.
  local function adopt(order, invoice)
    local from_, to = 'v' .. invoice, 'o' .. order
    if not redis.call('ZSCORE', STATE_AT, from_) then return end
    for object = 1, 3 do
      local v = redis.call('HGET', STATE, object .. from_)
      if v then redis.call('HSET', STATE, object .. to, newer(redis.call('HGET', STATE, object .. to), v)) end
    end
    local recent = redis.call('HGET', STATE, 'r' .. from_)
    if recent then redis.call('HSET', STATE, 'r' .. to, cut((redis.call('HGET', STATE, 'r' .. to) or '') .. recent)) end
    redis.call('HDEL', STATE, '1' .. from_, '2' .. from_, '3' .. from_, 'r' .. from_)
    redis.call('ZREM', STATE_AT, from_)
    redis.call('ZADD', STATE_AT, at, to)
  end

  local function without(list, item)
    local s, e = string.find('\n' .. list .. '\n', '\n' .. item .. '\n', 1, true)
    if not s then return list end
    local rest = string.sub(list, 1, s - 1) .. string.sub(list, e)
    return (string.gsub(string.gsub(rest, '^\n', ''), '\n$', ''))
  end

  -- A customer's orders, newest first; one more than a snapshot covers.
  local function to_front(customer, list, order)
    local rest = without(list, order)
    list = rest == '' and order or order .. '\n' .. rest
    local n, at = 0, 0
    while true do
      at = string.find(list, '\n', at + 1, true)
      if not at then break end
      n = n + 1
      if n == 101 then list = string.sub(list, 1, at - 1) break end
    end
    redis.call('HSET', JOIN, 'l' .. customer, list)
  end

  -- An order's first customer and an invoice's first order win.
  local function learn(order, invoice, customer)
    if order == '' then return end
    if invoice ~= '' and redis.call('HSETNX', JOIN, 'i' .. invoice, order) == 1 then
      local list = redis.call('HGET', JOIN, 'v' .. order)
      redis.call('HSET', JOIN, 'v' .. order, list and list .. '\n' .. invoice or invoice)
      adopt(order, invoice)
    end
    if customer ~= '' then redis.call('HSETNX', JOIN, 'c' .. order, customer) end
  end

  local function states(order)
    local out = {}
    if order == '' then return '' end
    for object = 1, 3 do
      local v = redis.call('HGET', STATE, object .. 'o' .. order)
      if v then
        v = string.match(v, '^%d+:%d+:%d+:(.*)$')
        out[#out + 1] = #v .. ':' .. v
      end
    end
    return table.concat(out)
  end

  local function forget(subject)
    local kind, id = string.sub(subject, 1, 1), string.sub(subject, 2)
    redis.call('ZREM', STATE_AT, subject)
    if kind == 'k' then redis.call('HDEL', JOIN, subject) return end
    redis.call('HDEL', STATE, '1' .. subject, '2' .. subject, '3' .. subject, 'r' .. subject)
    if kind ~= 'o' then return end
    local j = redis.call('HMGET', JOIN, 'c' .. id, 'v' .. id)
    redis.call('HDEL', JOIN, 'c' .. id, 'v' .. id, 'q' .. id)
    for invoice in string.gmatch(j[2] or '', '[^\n]+') do redis.call('HDEL', JOIN, 'i' .. invoice) end
    if j[1] then
      local list = without(redis.call('HGET', JOIN, 'l' .. j[1]) or '', id)
      if list == '' then redis.call('HDEL', JOIN, 'l' .. j[1]) else redis.call('HSET', JOIN, 'l' .. j[1], list) end
    end
  end

  made = {newer = newer, cut = cut, to_front = to_front, learn = learn, states = states, forget = forget}
  return made
end

for i = FIRST, #ARGV, WIDTH do
  local flags, id, order, invoice, customer, object, ms, vs, blob =
    ARGV[i], ARGV[i+1], ARGV[i+2], ARGV[i+3], ARGV[i+4], ARGV[i+5], ARGV[i+6], ARGV[i+7], ARGV[i+8]
  if redis.call('ZSCORE', SEEN, id) then
    duplicates = duplicates + 1
  else
    seq = seq + 1
    local number = string.format('%d', seq)
    at = string.format('%d.%03d', now, seq % 1000)
    local is_join, handed = string.find(flags, 'j', 1, true), ''
    if is_join then
      -- XADD must come first: a full memory has to refuse the script as a whole.
      -- What the states are is known before, but for an adopted invoice's.
      if string.find(flags, 'l', 1, true) then
        linked = true
        if invoice ~= '' and order ~= '' and redis.call('ZSCORE', STATE_AT, 'v' .. invoice) then
          redis.call('HSET', META, 'v', 1)
          rarely().learn(order, invoice, customer)
        end
        handed = rarely().states(order)
      end
      redis.call('XADD', LOG, 'MAXLEN', '~', ARGV[4], number .. '-0', 'e', hex, 'b', blob, 's', handed)
    else
      redis.call('XADD', LOG, 'MAXLEN', '~', ARGV[4], number .. '-0', 'e', hex, 'b', blob)
    end
    redis.call('ZADD', SEEN, number, id)
    if string.find(flags, 'n', 1, true) then rarely().learn(order, invoice, customer) end

    local subject = order ~= '' and 'o' .. order or (invoice ~= '' and 'v' .. invoice or nil)
    if not is_join and subject then
      local field, value, recent = object .. subject, nil, nil
      if object ~= '0' then value = ms .. ':' .. vs .. ':' .. number .. ':' .. blob end
      if value and not string.find(flags, 'w', 1, true) then
        local had = redis.call('HMGET', STATE, field, 'r' .. subject)
        value, recent = rarely().newer(had[1], value), had[2]
      else
        recent = redis.call('HGET', STATE, 'r' .. subject)
      end
      recent = (recent or '') .. number .. ','
      if #recent > MOST then recent = rarely().cut(recent) end
      if value then
        redis.call('HSET', STATE, field, value, 'r' .. subject, recent)
      else
        redis.call('HSET', STATE, 'r' .. subject, recent)
      end
      redis.call('ZADD', STATE_AT, at, subject)
    end
    if order ~= '' and customer ~= '' then
      local j = redis.call('HMGET', JOIN, 'c' .. order, 'l' .. customer)
      local first = j[1]
      if not first then -- the writer remembers what was trimmed here
        rarely().learn(order, invoice, customer)
        first = customer
      end
      local list = j[2] or ''
      if first == customer and list ~= order and string.sub(list, 1, #order + 1) ~= order .. '\n' then
        rarely().to_front(customer, list, order)
      end
    end
    if string.find(flags, 'c', 1, true) then
      if order ~= '' then
        if string.find(flags, 'q', 1, true) then redis.call('HSET', JOIN, 'q' .. order, 1) end
        redis.call('ZADD', STATE_AT, 'NX', at, 'o' .. order)
      elseif customer ~= '' then
        redis.call('HSET', JOIN, 'k' .. customer, 1)
        redis.call('ZADD', STATE_AT, at, 'k' .. customer)
      end
    end
    n = n + 1
    parts[#parts + 1] = string.format('%d,%d:', #blob, #handed)
    parts[#parts + 1] = blob
    parts[#parts + 1] = handed
  end
end
local tip = string.format('%d', seq)
if ARGV[3] ~= '' then
  redis.call('HSET', META, 'seq', tip, 'cursor', ARGV[3])
else
  redis.call('HSET', META, 'seq', tip)
end

-- Trimming is three calls: for sixteen events at once, and by more than they added.
if seq % 16 < n then
  redis.call('ZREMRANGEBYRANK', SEEN, 0, -(tonumber(ARGV[5]) + 2)) -- the newest, and the mark
  local mark, extra, most = '#' .. m[3], redis.call('ZCARD', STATE_AT) - 1 - tonumber(ARGV[6]), n + 24
  for _, subject in ipairs(redis.call('ZRANGEBYSCORE', STATE_AT, '-inf', now - tonumber(ARGV[7]), 'LIMIT', 0, most)) do
    rarely().forget(subject)
    extra = extra - 1
  end
  if extra > 0 then
    for _, subject in ipairs(redis.call('ZRANGE', STATE_AT, 0, math.min(extra, most) - 1)) do
      if subject ~= mark then rarely().forget(subject) end
    end
  end
end
local announced = ''
if n > 0 then
  parts[1] = 'B1 ' .. hex .. string.format(' %d %d\n', from, n)
  announced = table.concat(parts)
  redis.call(ARGV[8], ARGV[9], announced)
  if duplicates == 0 and not linked then announced = '' end -- the writer knows it
end
return {'OK', seq, n, duplicates, announced}
