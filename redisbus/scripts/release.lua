-- ARGV fence publish channel
if redis.call('GET', LEASE) == ARGV[1] then
  redis.call('DEL', LEASE)
  redis.call(ARGV[2], ARGV[3], 'N')
end
return {'OK'}
