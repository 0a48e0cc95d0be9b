-- ARGV orders, then order …, then invoice …
local function newest(states)
  local ms, seq = 0, 0
  for object = 1, 3 do
    local m, s = string.match(states[object] or '', '^(%d+):(%d+):')
    m, s = tonumber(m or '0'), tonumber(s or '0')
    if m > ms or (m == ms and s > seq) then ms, seq = m, s end
  end
  return ms, seq
end

local n, out = tonumber(ARGV[1]), {}
for i = 2, n + 1 do
  local j = redis.call('HMGET', JOIN, 'c' .. ARGV[i], 'v' .. ARGV[i])
  local s = redis.call('HMGET', STATE, '1o' .. ARGV[i], '2o' .. ARGV[i], '3o' .. ARGV[i])
  local ms, seq = newest(s)
  out[#out + 1] = {j[1] or '', j[2] or '', redis.call('ZSCORE', STATE_AT, 'o' .. ARGV[i]) and 1 or 0,
    s[1] and 1 or 0, ms, seq}
end
for i = n + 2, #ARGV do
  local ms, seq = newest(redis.call('HMGET', STATE, '1v' .. ARGV[i], '2v' .. ARGV[i], '3v' .. ARGV[i]))
  out[#out + 1] = {redis.call('HGET', JOIN, 'i' .. ARGV[i]) or '',
    redis.call('ZSCORE', STATE_AT, 'v' .. ARGV[i]) and 1 or 0, ms, seq}
end
return out
