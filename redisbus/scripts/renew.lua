-- ARGV fence ttl_ms health publish channel leader_channel acked
-- Also announces the tip, as an empty batch, and counts that: whoever reads the
-- count and hears nothing has a dead subscription. (An ACL that does not know the
-- leader's channel costs the leader that, not the lease.) Also takes back a lease that ran out and that nobody took.
local m = redis.call('HMGET', META, 'epoch', 'history', 'seq', 'health')
if m[1] ~= ARGV[1] then return {'FENCED'} end
redis.call('SET', LEASE, ARGV[1], 'PX', ARGV[2])
if not intact(m[2], tonumber(m[3])) then return {'LOST'} end
if tonumber(m[3]) < tonumber(ARGV[7]) then return {'REWIND', m[3]} end -- nobody but the leader knows
if m[4] ~= ARGV[3] then
  redis.call('HSET', META, 'health', ARGV[3])
  redis.call(ARGV[4], ARGV[5], 'N')
  redis.pcall(ARGV[4], ARGV[6], 'N')
end
redis.call('HINCRBY', META, 'rung', 1)
redis.call('HSET', META, 'now', string.format('%.0f', now_ms())) -- what append takes the time from
local ring = 'B1 ' .. hex_of(ARGV[1]) .. string.format(' %.0f 0\n', tonumber(m[3]))
redis.call(ARGV[4], ARGV[5], ring)
redis.pcall(ARGV[4], ARGV[6], ring)
return {'OK'}
