-- Set what a counter has used, from the ledger. While the partition's counters are whole, only where there is none.
-- KEYS: alive, the counter.
-- ARGV: now ms, code, and for a window bucket and amount of each bucket, for a period its id, its end and the amount.
-- Returns 1, or 0 when the counter was there.

local now, code, key = tonumber(ARGV[1]), ARGV[2], KEYS[2]
local packed = call('GET', key)
if packed and call('EXISTS', KEYS[1]) == 1 then return 0 end
local reserved = packed and struct.unpack(NUMBERS, packed) or 0
local width = WIDTH_MS[code]
if not width then
  write({code = code, key = key, reserved = reserved, used = 0, at = tonumber(ARGV[3]), last = tonumber(ARGV[4])},
        tonumber(ARGV[5]), now)
  return 1
end
call('DEL', key .. ':ring')
local used, last, index = 0, 0, floor(now / width)
for i = 3, #ARGV, 2 do
  local bucket, amount = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  if bucket > index - BUCKETS and bucket <= index then
    call('HINCRBY', key .. ':ring', bucket % BUCKETS, amount)
    used, last = used + amount, max(last, bucket)
  end
end
call('PEXPIRE', key .. ':ring', KEPT_MS)
write({code = code, key = key, reserved = reserved, used = used, at = index, last = last}, 0, now)
return 1
