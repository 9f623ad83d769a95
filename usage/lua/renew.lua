-- Keep a reservation for another lease, and note how far its call has come. A dead lease that nobody has reaped lives again.
-- KEYS: the reservation.
-- ARGV: base, request id, now ms, completion tokens so far, prompt tokens or -1 while they are not known.
-- Returns 1, or 0 when there is no such reservation.

local base, id, lease_ends_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]) + LEASE_MS
local asked = call('HGET', KEYS[1], 'call')
if not asked then return 0 end
call('HSET', KEYS[1], 'completion', ARGV[4])
if tonumber(ARGV[5]) >= 0 then call('HSET', KEYS[1], 'prompt', ARGV[5]) end
call('ZADD', base .. 'leases', 'GT', lease_ends_ms, id)
for subject in string.gmatch(asked, '\n[%a$]+ ([^\n]+)') do
  call('ZADD', subject .. 'live', 'GT', lease_ends_ms, id)
end
return 1
