-- Shared by every script but append and beat: the keys of one stream (all in one slot, all declared)
-- and the functions that more than one script needs.
local META, LEASE, LOG, SEEN, FORK, STATE, STATE_AT, JOIN =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]

-- Every key carries the id of its history, so that one deleted or evicted by
-- hand is noticed: continuity is then over, and never guessed.
local function intact(history, seq)
  local mark = '#' .. history
  return redis.call('ZSCORE', SEEN, mark) and redis.call('ZSCORE', FORK, mark)
    and redis.call('ZSCORE', STATE_AT, mark)
    and redis.call('HGET', STATE, '#') == history and redis.call('HGET', JOIN, '#') == history
    and (seq == 0 or redis.call('XLEN', LOG) > 0)
end

-- Lua prints large numbers as 1e+14.
local function id_of(seq) return string.format('%d-0', seq) end

local function hex_of(fence) return string.match(fence, '-(%x+)$') end

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
