-- ARGV customer max order …
local m = redis.call('HMGET', META, 'epoch', 'seq', 'history', 'key', 'floor', 'pushed')
if not m[1] or not m[3] then return {'NONE'} end
if not intact(m[3], tonumber(m[2])) then return {'LOST'} end
local max, orders, truncated, covered = tonumber(ARGV[2]), {}, 0, 1
if ARGV[1] ~= '' then covered = tonumber(redis.call('HGET', JOIN, 'k' .. ARGV[1]) or '0') end
if covered == 2 and #ARGV == 2 then truncated = 1 end -- as looked up
if #ARGV > 2 then
  for i = 3, #ARGV do orders[#orders + 1] = ARGV[i] end
else
  for order in string.gmatch(redis.call('HGET', JOIN, 'l' .. ARGV[1]) or '', '[^\n]+') do
    if #orders == max then truncated = 1 break end
    orders[#orders + 1] = order
  end
end
local items = {}
for _, order in ipairs(orders) do
  local j = redis.call('HMGET', JOIN, 'c' .. order, 'v' .. order, 'q' .. order)
  local s = redis.call('HMGET', STATE, '1o' .. order, '2o' .. order, '3o' .. order)
  items[#items + 1] = {order, j[1] or '', j[2] or '', j[3] or '', s[1] or '', s[2] or '', s[3] or ''}
end
local pushed = m[6] and math.max(0, now_ms() - tonumber(m[6])) or -1 -- the age of what there was no room for
return {'OK', hex_of(m[1]), tonumber(m[2]), m[4], now_ms() - tonumber(m[5] or '0'), covered, truncated, items, pushed}
