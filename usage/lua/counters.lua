-- Shared by the verbs: it stands before each of their scripts. What a counter is, how it is read and written.
--
-- A counter is of one limit of one subject. Its code says what it counts and over which time:
--   m requests per minute   h tokens per hour   d tokens per day   M tokens per month   $ money per month   c slots
-- All but c are four numbers, each at its place in one string of the subject: reserved, used, at, last. A call may be under
-- limits of six kinds on three subjects: with a string and a table a subject, not a counter, reserving takes Redis six tenths of
-- the time, and the string as it is tells the caller how all of them stand (2026-11).
--   m, h: a window of 61 buckets (the running one and 60 past ones), so that no minute or hour, wherever it begins, holds
--     more than the limit. at: the newest bucket seen; last: the newest one used. Each bucket is in the hash <counters>:<code>.
--   d, M, $: a calendar period. at: the period (20261130, 202611); last: its end in ms.
--   c: the sorted set of the subject's reservations by the end of their leases. A slot is held, never used.
-- `at` is 0 of a counter that was never written. It never goes back: when a clock does, its moment counts as the latest one seen.

local call, floor, max = redis.call, math.floor, math.max
local BUCKETS = 61
local WIDTH_MS = {m = 1000, h = 60000}
local LEASE_MS = 30000
local KEPT_MS = 86400000 -- counters outlive their last change, or their last period, by a day; no call lives as long
local LEASES_MAX = 50 -- of one subject, that one call ends or looks into
local PLACES = {m = 0, h = 4, d = 8, M = 12, ['$'] = 16} -- before a counter's four numbers
local RESERVED, USED, AT, LAST = 1, 2, 3, 4
local NUMBERS = '<i8i8i8i8i8i8i8i8i8i8i8i8i8i8i8i8i8i8i8i8'

-- A subject. key: of its counters; packed: what that holds; codes: of its limits that are asked for. It has all its fields from
-- the start: a table that grows later costs more than what is put into it.
local function subject_of(key, packed, codes)
  return {key = key, codes = codes, slots = 0, gone = false, n = {struct.unpack(NUMBERS, packed or string.rep('\0', 160))}}
end

-- Move a window on to `index`: what the new buckets push out of the ring leaves it.
local function roll(s, code, place, index)
  local n = s.n
  if n[place + USED] > 0 then
    local gone = {}
    for i = max(n[place + AT] + 1, index - BUCKETS + 1), index do gone[#gone + 1] = i % BUCKETS end
    for _, amount in ipairs(call('HMGET', s.key .. ':' .. code, unpack(gone))) do
      n[place + USED] = n[place + USED] - (tonumber(amount) or 0)
    end
    s.gone = s.gone or {}
    s.gone[code] = gone
  end
  n[place + AT] = index
end

-- Bring a counter to how it stands at `now`. periods: the day of now, its end, the month, its end. Returns its place.
-- Writes nothing: what a refused call has read stays as it is.
local function bring(s, code, now, periods)
  local n, place, width = s.n, PLACES[code], WIDTH_MS[code]
  if width then
    local index = floor(now / width)
    if index > n[place + AT] then roll(s, code, place, index) end
    return place
  end
  local id, ends = periods[3], periods[4]
  if code == 'd' then id, ends = periods[1], periods[2] end
  if id > n[place + AT] then n[place + USED] = 0 end
  if id >= n[place + AT] then n[place + AT], n[place + LAST] = id, ends end
  return place
end

-- Let the buckets go that have left a window: before anything is counted, as one of them is the newest bucket.
local function let_go(s, code)
  if s.gone and s.gone[code] then
    call('HDEL', s.key .. ':' .. code, unpack(s.gone[code]))
    s.gone[code] = nil
  end
end

-- Count in the bucket or period of now. write() is to follow.
local function count(s, code, amount)
  local n, place = s.n, PLACES[code]
  n[place + USED] = n[place + USED] + amount
  if not WIDTH_MS[code] or amount == 0 then return end
  let_go(s, code)
  local ring, index = s.key .. ':' .. code, n[place + AT]
  call('HINCRBY', ring, index % BUCKETS, amount)
  if n[place + LAST] ~= index then call('PEXPIRE', ring, KEPT_MS) end
  n[place + LAST] = index
end

local function packed(s)
  return struct.pack(NUMBERS, unpack(s.n, 1, 20))
end

-- Write the counters of a subject. Returns them packed.
local function write(s, now)
  if s.gone then
    let_go(s, 'm')
    let_go(s, 'h')
  end
  local ends, all = max(now, s.n[PLACES.d + LAST], s.n[PLACES.M + LAST], s.n[PLACES['$'] + LAST]), packed(s)
  call('SET', s.key, all, 'PX', KEPT_MS + ends - now)
  return all
end
