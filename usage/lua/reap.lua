-- Post the calls whose leases ran out. KEYS: the leases of the partition.
-- ARGV: base, now ms, and for each call: request id, day, its end, month, its end (in its reservation's time zone).
-- Returns the journaled events. A call that was renewed or settled meanwhile is left alone.

local _, reap = posting()
local base, now, events = ARGV[1], tonumber(ARGV[2]), {}
for i = 3, #ARGV, 5 do
  local ends = tonumber(call('ZSCORE', KEYS[1], ARGV[i]))
  if ends and ends <= now then
    local periods = {tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])}
    events[#events + 1] = reap(base, ARGV[i], now, periods)
  end
end
return events
