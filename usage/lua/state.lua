-- How the counters stand. Writes nothing. KEYS: alive, one counter a limit.
-- ARGV: now ms, day, its end, month, its end, one code a limit.
-- Returns {-1}: the counters are gone. Else for each limit used, reserved, resets at ms.

local values = call('MGET', unpack(KEYS))
if #KEYS > 1 and not values[1] then return {-1} end
local now, reply = tonumber(ARGV[1]), {}
local periods = {tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])}
for i = 2, #KEYS do
  local c = counter(ARGV[4 + i], KEYS[i], values[i], now, periods)
  reply[#reply + 1] = c.used
  reply[#reply + 1] = c.reserved
  reply[#reply + 1] = resets(c, now)
end
return reply
