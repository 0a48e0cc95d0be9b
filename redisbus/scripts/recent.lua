-- ARGV customer max order …
local orders, seqs = {}, {}
for i = 3, #ARGV do orders[#orders + 1] = ARGV[i] end
if #orders == 0 then
  for order in string.gmatch(redis.call('HGET', JOIN, 'l' .. ARGV[1]) or '', '[^\n]+') do orders[#orders + 1] = order end
end
for _, order in ipairs(orders) do
  local j = redis.call('HMGET', JOIN, 'c' .. order, 'v' .. order)
  for s in string.gmatch(redis.call('HGET', STATE, 'ro' .. order) or '', '%d+') do
    seqs[#seqs + 1] = {tonumber(s), order, j[1] or '', j[2] or ''}
  end
end
table.sort(seqs, function(a, b) return a[1] > b[1] end)
local out, bytes = {}, 0
for _, x in ipairs(seqs) do
  if #out == tonumber(ARGV[2]) or bytes > 8388608 then break end
  local e = redis.call('XRANGE', LOG, id_of(x[1]), id_of(x[1]))
  if #e > 0 then
    out[#out + 1] = {e[1], x[2], x[3], x[4]}
    bytes = bytes + #e[1][2][4]
  end
end
return out
