-- Say that the counters of a partition are whole, unless its journal has moved on since they were worked out.
-- KEYS: alive, journal, counting. ARGV: the journal's last id by then, now ms. Returns 1 or 0.

if call('EXISTS', KEYS[1]) == 1 then return 1 end
local info = redis.pcall('XINFO', 'STREAM', KEYS[2])
local last = '0-0'
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last = info[i + 1] end
end
if last ~= ARGV[1] then return 0 end
call('SET', KEYS[1], ARGV[2])
call('DEL', KEYS[3])
return 1
