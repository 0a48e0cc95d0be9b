-- ARGV orders, then order …, then invoice …
local n, out = tonumber(ARGV[1]), {}
for i = 2, n + 1 do
  local j = redis.call('HMGET', JOIN, 'c' .. ARGV[i], 'v' .. ARGV[i])
  out[#out + 1] = {j[1] or '', j[2] or '', redis.call('ZSCORE', STATE_AT, 'o' .. ARGV[i]) and 1 or 0,
    redis.call('HEXISTS', STATE, '1o' .. ARGV[i])}
end
for i = n + 2, #ARGV do
  out[#out + 1] = {redis.call('HGET', JOIN, 'i' .. ARGV[i]) or '',
    redis.call('ZSCORE', STATE_AT, 'v' .. ARGV[i]) and 1 or 0}
end
return out
