-- ARGV fence acked cursor began, then per record: flags id order invoice customer object
-- version blob, where version is "millis:seq:"
-- flags: e event, and then n its links are new; w no state it could replace is newer;
-- f its order is in front of its customer's and its activity noted not long ago
-- j join entry (and object j), and then n; l hand the states on; c covered; q missing upstream;
-- m the customer may have more orders than were looked up
-- began, not '': the history began then, and the events with the flag p may be older.
-- In front of this: settings, namely LOG_MAX SEEN_MAX STATE_MAX STATE_TTL_MS PUBLISH CHANNEL.
-- KEYS are the prelude's but for the lease.
local META, LOG, SEEN, FORK, STATE, STATE_AT, JOIN = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local FIRST, WIDTH, MOST = 5, 8, 1000 -- MOST bytes of an order's recent seqs
local call, find, EPOCH = redis.call, string.find, string.sub(ARGV[1], -12)
local m = call('HMGET', META, 'epoch', 'seq')
if m[1] ~= ARGV[1] then return {'FENCED'} end
local seq = tonumber(m[2])
if seq < tonumber(ARGV[2]) then return {'REWIND', seq} end
-- A key that is gone, before anything here makes it anew. Its mark is compared
-- with each renewal: one of another history could only be put there by hand.
if call('EXISTS', SEEN, FORK, STATE, STATE_AT, JOIN, seq > 0 and LOG or SEEN) < 6 then return {'LOST'} end

local BEGAN, prior = ARGV[4], nil -- prior: the newest seq that may be older than the history
local tip, parts, n, duplicates, linked = m[2], {''}, 0, 0, false

-- The time of the last renewal: asking for it is a call.
local renewed
local function now()
  renewed = renewed or tonumber(call('HGET', META, 'now') or call('TIME')[1] .. '000')
  return renewed
end

-- The score in state_at: the time, and the seq where that is the same.
local function at(seq) return string.format('%d.%03d', now(), seq % 1000) end

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
  local function adopt(order, invoice, at)
    local from_, to = 'v' .. invoice, 'o' .. order
    if not call('ZSCORE', STATE_AT, from_) then return end
    for object = 1, 3 do
      local v = call('HGET', STATE, object .. from_)
      if v then call('HSET', STATE, object .. to, newer(call('HGET', STATE, object .. to), v)) end
    end
    local recent = call('HGET', STATE, 'r' .. from_)
    if recent then call('HSET', STATE, 'r' .. to, cut((call('HGET', STATE, 'r' .. to) or '') .. recent)) end
    call('HDEL', STATE, '1' .. from_, '2' .. from_, '3' .. from_, 'r' .. from_)
    call('ZREM', STATE_AT, from_)
    call('ZADD', STATE_AT, at, to)
  end

  local function without(list, item)
    local s, e = find('\n' .. list .. '\n', '\n' .. item .. '\n', 1, true)
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
      at = find(list, '\n', at + 1, true)
      if not at then break end
      n = n + 1
      if n == 101 then list = string.sub(list, 1, at - 1) break end
    end
    call('HSET', JOIN, 'l' .. customer, list)
  end

  -- An order's first customer and an invoice's first order win.
  local function learn(order, invoice, customer, at)
    if order == '' then return end
    if invoice ~= '' and call('HSETNX', JOIN, 'i' .. invoice, order) == 1 then
      local list = call('HGET', JOIN, 'v' .. order)
      call('HSET', JOIN, 'v' .. order, list and list .. '\n' .. invoice or invoice)
      adopt(order, invoice, at)
    end
    if customer ~= '' then call('HSETNX', JOIN, 'c' .. order, customer) end
  end

  local function states(order)
    local out = {}
    if order == '' then return '' end
    for object = 1, 3 do
      local v = call('HGET', STATE, object .. 'o' .. order)
      if v then
        v = string.match(v, '^%d+:%d+:%d+:(.*)$')
        out[#out + 1] = #v .. ':' .. v
      end
    end
    return table.concat(out)
  end

  local function forget(subject)
    local kind, id = string.sub(subject, 1, 1), string.sub(subject, 2)
    call('ZREM', STATE_AT, subject)
    if kind == 'k' then call('HDEL', JOIN, subject) return end
    call('HDEL', STATE, '1' .. subject, '2' .. subject, '3' .. subject, 'r' .. subject)
    if kind ~= 'o' then return end
    local j = call('HMGET', JOIN, 'c' .. id, 'v' .. id)
    call('HDEL', JOIN, 'c' .. id, 'v' .. id, 'q' .. id)
    for invoice in string.gmatch(j[2] or '', '[^\n]+') do call('HDEL', JOIN, 'i' .. invoice) end
    if j[1] then
      local list = without(call('HGET', JOIN, 'l' .. j[1]) or '', id)
      if list == '' then call('HDEL', JOIN, 'l' .. j[1]) else call('HSET', JOIN, 'l' .. j[1], list) end
    end
  end

  made = {newer = newer, cut = cut, to_front = to_front, learn = learn, states = states, forget = forget}
  return made
end

for i = FIRST, #ARGV, WIDTH do
  local flags, id, order, invoice, customer = ARGV[i], ARGV[i+1], ARGV[i+2], ARGV[i+3], ARGV[i+4]
  local object, version, blob = ARGV[i+5], ARGV[i+6], ARGV[i+7]
  if call('ZSCORE', SEEN, id) then
    duplicates = duplicates + 1
  else
    seq = seq + 1
    tip = string.format('%d', seq)
    local is_join, handed = object == 'j', ''
    if is_join then
      -- XADD must come first: a full memory has to refuse the script as a whole.
      -- What the states are is known before, but for an adopted invoice's.
      if find(flags, 'l', 1, true) then
        linked = true
        if invoice ~= '' and order ~= '' and call('ZSCORE', STATE_AT, 'v' .. invoice) then
          call('HSET', META, 'v', 1)
          rarely().learn(order, invoice, customer, at(seq))
        end
        handed = rarely().states(order)
      end
      call('XADD', LOG, tip .. '-0', 'e', EPOCH, 'b', blob, 's', handed)
    else
      call('XADD', LOG, tip .. '-0', 'e', EPOCH, 'b', blob)
    end
    call('ZADD', SEEN, tip, id)
    if BEGAN ~= '' and find(flags, 'p', 1, true) then prior = tip end
    if find(flags, 'n', 1, true) then rarely().learn(order, invoice, customer, at(seq)) end

    local front = find(flags, 'f', 1, true)
    local subject = order ~= '' and 'o' .. order or (invoice ~= '' and 'v' .. invoice or nil)
    if not is_join and subject then
      local field, list = object .. subject, 'r' .. subject
      local value, recent
      if object ~= '0' then value = version .. tip .. ':' .. blob end
      if value and not find(flags, 'w', 1, true) then
        local had = call('HMGET', STATE, field, list)
        value, recent = rarely().newer(had[1], value), had[2]
      else
        recent = call('HGET', STATE, list)
      end
      front = front and recent -- without: the order was forgotten since
      recent = (recent or '') .. tip .. ','
      if #recent > MOST then recent = rarely().cut(recent) end
      if value then
        call('HSET', STATE, field, value, list, recent)
      else
        call('HSET', STATE, list, recent)
      end
      if not front then call('ZADD', STATE_AT, at(seq), subject) end
    end
    if not front and order ~= '' and customer ~= '' then
      local j = call('HMGET', JOIN, 'c' .. order, 'l' .. customer)
      local first = j[1]
      if not first then -- the writer remembers what was trimmed here
        rarely().learn(order, invoice, customer, at(seq))
        first = customer
      end
      local orders = j[2] or ''
      if first == customer and orders ~= order and string.sub(orders, 1, #order + 1) ~= order .. '\n' then
        rarely().to_front(customer, orders, order)
      end
    end
    if is_join and find(flags, 'c', 1, true) then
      if order ~= '' then
        if find(flags, 'q', 1, true) then call('HSET', JOIN, 'q' .. order, 1) end
        call('ZADD', STATE_AT, 'NX', at(seq), 'o' .. order)
      elseif customer ~= '' then
        call('HSET', JOIN, 'k' .. customer, find(flags, 'm', 1, true) and 2 or 1)
        call('ZADD', STATE_AT, at(seq), 'k' .. customer)
      end
    end
    n = n + 1
    local k = #parts -- joined at the end only: Lua hashes each byte of a string that it makes
    parts[k + 1], parts[k + 2], parts[k + 3] = string.format('%d,%d:', #blob, #handed), blob, handed
  end
end
if ARGV[3] ~= '' then
  call('HSET', META, 'seq', tip, 'cursor', ARGV[3])
else
  call('HSET', META, 'seq', tip)
end
if BEGAN ~= '' then
  local had = call('HMGET', META, 'history', 'prior')
  local before, of = string.match(had[2] or '', '^(%d+) %d+ (%x+)$')
  if not prior then prior = of == had[1] and before or '0' end
  call('HSET', META, 'prior', prior .. ' ' .. BEGAN .. ' ' .. had[1])
end

-- Trimming is six calls: for sixteen events at once, and by more than they added.
if seq % 16 < n then
  call('XTRIM', LOG, 'MAXLEN', '~', LOG_MAX)
  call('ZREMRANGEBYRANK', SEEN, 0, -(SEEN_MAX + 2)) -- the newest, and the mark
  local mark = '#' .. call('HGET', META, 'history')
  local extra, most = call('ZCARD', STATE_AT) - 1 - STATE_MAX, n + 24
  for _, subject in ipairs(call('ZRANGEBYSCORE', STATE_AT, '-inf', now() - STATE_TTL_MS, 'LIMIT', 0, most)) do
    rarely().forget(subject)
    extra = extra - 1
  end
  if extra > 0 then
    -- Snapshots say that there is more than they show, while what had to go would
    -- not have been forgotten for its age.
    local last
    local pushed = call('ZRANGE', STATE_AT, 0, math.min(extra, most) - 1, 'WITHSCORES')
    for i = 1, #pushed, 2 do
      if pushed[i] ~= mark then
        rarely().forget(pushed[i])
        if string.sub(pushed[i], 1, 1) == 'o' then last = pushed[i + 1] end
      end
    end
    if last then
      last = math.max(math.floor(tonumber(last)), tonumber(call('HGET', META, 'pushed') or '0'))
      call('HSET', META, 'pushed', string.format('%d', last))
    end
  end
end
local announced = ''
if n > 0 then
  parts[1] = string.format('B1 %s %s %d\n', EPOCH, m[2], n)
  announced = table.concat(parts)
  call(PUBLISH, CHANNEL, announced)
end
if duplicates == 0 and not linked then return seq end -- the rest the writer knows
return {'OK', seq, n, duplicates, announced}
