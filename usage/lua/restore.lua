-- Set what a counter has used, from the ledger. While the partition's counters are whole, only where there is none.
-- The ledger knows ended calls: of the live ones, whose tokens are reserved, it is the requests that are added here.
-- KEYS: alive, the counters of the subject, its slots.
-- ARGV: base, now ms, code, and for a window bucket and amount of each bucket, for a period its id, its end and the amount.
-- Returns 1, or 0 when the counter was there.

local base, now, code = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local s, place, width = subject_of(KEYS[2], call('GET', KEYS[2]), code), PLACES[code], WIDTH_MS[code]
if s.n[place + AT] > 0 and call('EXISTS', KEYS[1]) == 1 then return 0 end
if not width then
  s.n[place + USED], s.n[place + AT], s.n[place + LAST] = tonumber(ARGV[6]), tonumber(ARGV[4]), tonumber(ARGV[5])
  write(s, now)
  return 1
end
local ring = s.key .. ':' .. code
call('DEL', ring)
local used, last, index = 0, 0, floor(now / width)
local function add(bucket, amount)
  if bucket > index - BUCKETS and bucket <= index then
    call('HINCRBY', ring, bucket % BUCKETS, amount)
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
call('PEXPIRE', ring, KEPT_MS)
s.n[place + USED], s.n[place + AT], s.n[place + LAST] = used, index, last
write(s, now)
return 1
