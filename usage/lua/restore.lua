-- Set what a counter has used, from the ledger. While the partition's counters are whole, only where there is none.
-- The ledger knows ended calls: of the live ones, whose tokens are reserved, it is the requests that are added here.
-- KEYS: alive, the counter, the `live` set of its subject.
-- ARGV: base, now ms, code, and for a window bucket and amount of each bucket, for a period its id, its end and the amount.
-- Returns 1, or 0 when the counter was there.

local base, now, code, key = ARGV[1], tonumber(ARGV[2]), ARGV[3], KEYS[2]
local packed = call('GET', key)
if packed and call('EXISTS', KEYS[1]) == 1 then return 0 end
local reserved = packed and struct.unpack(NUMBERS, packed) or 0
local width = WIDTH_MS[code]
if not width then
  write({code = code, key = key, reserved = reserved, used = 0, at = tonumber(ARGV[4]), last = tonumber(ARGV[5])},
        tonumber(ARGV[6]), now)
  return 1
end
call('DEL', key .. ':ring')
local used, last, index = 0, 0, floor(now / width)
local function add(bucket, amount)
  if bucket > index - BUCKETS and bucket <= index then
    call('HINCRBY', key .. ':ring', bucket % BUCKETS, amount)
    used, last = used + amount, max(last, bucket)
  end
end
for i = 4, #ARGV, 2 do add(tonumber(ARGV[i]), tonumber(ARGV[i + 1])) end
if code == 'm' then
  local _, _, read_reservation = posting()
  for _, id in ipairs(call('ZRANGE', KEYS[3], 0, -1)) do
    local held = read_reservation(base, id)
    if held then add(floor(cjson.decode(held.meta).created_s), 1) end
  end
end
call('PEXPIRE', key .. ':ring', KEPT_MS)
write({code = code, key = key, reserved = reserved, used = used, at = index, last = last}, 0, now)
return 1
