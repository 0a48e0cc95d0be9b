-- ARGV nonce ttl_ms previous_fence new_history cursor_key
local nonce = ARGV[1]

-- What append.lua noted of when this history began; not of one before it.
local function began_of(prior, history)
  local began, of = string.match(prior or '', '^%d+ (%d+) (%x+)$')
  return of == history and began or ''
end

local held = redis.call('GET', LEASE)
local m = redis.call('HMGET', META, 'term', 'epoch', 'seq', 'cursor', 'history', 'key', 'prior')
if m[2] and hex_of(m[2]) == nonce and (not held or held == m[2]) then -- my own acquire, the reply was lost
  redis.call('SET', LEASE, m[2], 'PX', ARGV[2])
  return {'OK', m[2], tonumber(m[3]), m[4] or '', began_of(m[7], m[5])}
end
if held and held ~= ARGV[3] then
  return {'HELD', held, redis.call('PTTL', LEASE)}
end
if redis.call('ZSCORE', FORK, nonce) then return {'USED'} end

local seq, history, cursor = tonumber(m[3] or '0'), m[5], m[4] or ''
local fresh = ARGV[4] == '1' or not history or not m[6]
if not fresh then
  local last = redis.call('XREVRANGE', LOG, '+', '-', 'COUNT', 1)
  local lastseq = #last > 0 and tonumber(string.match(last[1][1], '^(%d+)')) or 0
  fresh = lastseq ~= seq or not intact(history, seq)
end

redis.call('HSET', META, 'v', 1) -- first a write that a full memory refuses
if fresh then
  redis.call('DEL', LOG, SEEN, FORK, STATE, STATE_AT, JOIN)
  redis.call('HDEL', META, 'cursor', 'pushed')
  seq, history, cursor = 0, nonce, ''
  local mark = '#' .. history
  redis.call('ZADD', SEEN, '+inf', mark)
  redis.call('ZADD', FORK, '+inf', mark)
  redis.call('ZADD', STATE_AT, '+inf', mark)
  redis.call('HSET', STATE, '#', history)
  redis.call('HSET', JOIN, '#', history)
  redis.call('HSET', META, 'history', history, 'floor', now_ms())
elseif m[2] then
  redis.call('ZADD', FORK, seq, hex_of(m[2]))
  redis.call('ZREMRANGEBYRANK', FORK, 0, -258) -- the newest 256, and the mark
end
if not m[6] then redis.call('HSET', META, 'key', ARGV[5]) end
local term = tonumber(m[1] or '0') + 1
local fence = string.format('%.0f', term) .. '-' .. nonce
-- What the last leader said of the upstream is no news of this term.
local now = string.format('%.0f', now_ms())
redis.call('HSET', META, 'term', term, 'epoch', fence, 'seq', seq, 'now', now,
  'health', 'catching_up ' .. now .. ' starting')
redis.call('SET', LEASE, fence, 'PX', ARGV[2])
return {'OK', fence, seq, cursor, began_of(m[7], history)}
