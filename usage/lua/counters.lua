-- Shared by the verbs: it stands before each of their scripts. What a counter is, how it is read and written.
--
-- A counter is of one limit of one subject. Its code says what it counts and over which time:
--   m requests per minute   h tokens per hour   d tokens per day   M tokens per month   $ money per month   c slots
-- All but c are four packed numbers: reserved, used, at, last. They are packed, because eight of them are then read and
-- written in half the time that hashes take.
--   m, h: a window of 61 buckets (the running one and 60 past ones), so that no minute or hour, wherever it begins, holds
--     more than the limit. at: the newest bucket seen; last: the newest one used. Each bucket is in the hash <key>:ring.
--   d, M, $: a calendar period. at: the period (20261130, 202611); last: its end in ms.
--   c: the sorted set of the subject's reservations by the end of their leases. A slot is held, never used.
-- `at` never goes back: when a clock does, its moment counts as the latest one seen.

local call, floor, max = redis.call, math.floor, math.max
local BUCKETS = 61
local WIDTH_MS = {m = 1000, h = 60000}
local LEASE_MS = 30000
local KEPT_MS = 86400000 -- a counter outlives its last change, or its period, by a day; no call lives as long
local LEASES_MAX = 50 -- of one subject, that one call ends or looks into
local NUMBERS = '<dddd'

-- Move a window on to `index`: what the new buckets push out of the ring leaves it.
local function roll(c, index)
  if c.used > 0 then
    local gone = {}
    for i = max(c.at + 1, index - BUCKETS + 1), index do gone[#gone + 1] = i % BUCKETS end
    for _, amount in ipairs(call('HMGET', c.key .. ':ring', unpack(gone))) do
      c.used = c.used - (tonumber(amount) or 0)
    end
    c.gone = gone
  end
  c.at = index
end

-- A counter as it stands at `now`. packed: what its key holds. periods: the day of now, its end, the month, its end.
-- Writes nothing: what a refused call has read stays as it is.
local function counter(code, key, packed, now, periods)
  if code == 'c' then
    return {code = code, key = key, reserved = call('ZCOUNT', key, '(' .. now, '+inf'), used = 0}
  end
  local reserved, used, at, last = 0, 0, 0, 0
  if packed then reserved, used, at, last = struct.unpack(NUMBERS, packed) end
  local c = {code = code, key = key, reserved = reserved, used = used, at = at, last = last}
  if WIDTH_MS[code] then
    local index = floor(now / WIDTH_MS[code])
    if index > at then roll(c, index) end
    return c
  end
  local id, ends = periods[3], periods[4]
  if code == 'd' then id, ends = periods[1], periods[2] end
  if id > at then c.used = 0 end
  if id >= at then c.at, c.last = id, ends end
  return c
end

-- When all that is used now will be gone, in ms.
local function resets(c, now)
  local width = WIDTH_MS[c.code]
  if c.code == 'c' or width and c.used == 0 then return now end
  return width and (c.last + BUCKETS) * width or c.last
end

-- Write a counter, with `used` more in the bucket or period of now. Slots are written with the lease.
local function write(c, used, now)
  if c.code == 'c' then return end
  local kept = KEPT_MS
  c.used = c.used + used
  if WIDTH_MS[c.code] then
    local ring = c.key .. ':ring'
    if c.gone then call('HDEL', ring, unpack(c.gone)) end
    if used > 0 then
      call('HINCRBY', ring, c.at % BUCKETS, used)
      if c.last ~= c.at then call('PEXPIRE', ring, KEPT_MS) end
      c.last = c.at
    end
  else
    kept = kept + max(0, c.last - now)
  end
  call('SET', c.key, struct.pack(NUMBERS, c.reserved, c.used, c.at, c.last), 'PX', kept)
end
