-- KEYS nodes, ARGV node report max_age_ms; the value is "<ms>:<report>"
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f:', now) .. ARGV[2])
local all, out = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  local at, report = string.match(all[i + 1], '^(%d+):(.*)$')
  if at and now - tonumber(at) <= tonumber(ARGV[3]) then
    out[#out + 1] = all[i]
    out[#out + 1] = report
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return out
