-- Hold a call's amounts in every counter, or in none. Dead leases of its subjects are posted first, where that is asked for.
-- KEYS: alive, of each subject its counters, and then of each its slots: the same for many calls.
-- ARGV: base, request id, now ms, tokens, cost, day, its end, month, its end, the call as read_reservation reads it, 1 when
--   the call runs already, whatever may be gone; 1 when dead leases are to be posted; for each subject the codes of its limits;
--   and the maxima of all of them as packed numbers, infinite where a limit refuses nothing.
-- Returns -1: the counters are gone. 2: settled before. Else signed 64-bit little-endian numbers in one string, as the client
--   makes of each number of a list a value of its own: 0 refused, 1 admitted, 2 admitted with much room left; 0; of each subject
--   its counters as they are packed, and how many slots are held; and of a refused call, for each limit, 0 or when the call would
--   fit it (ms; -1: never).

local base, id, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local periods = {tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])}
local tokens = tonumber(ARGV[4])
local amounts = {m = 1, c = 1, h = tokens, d = tokens, M = tokens, ['$'] = tonumber(ARGV[5])}
local subjects = (#KEYS - 1) / 2
local MUCH_ROOM = 32 -- further calls like this one, under every limit that refuses

-- What a counter loses by itself: {at ms, amount} when buckets leave the window or the period ends.
local function departures(s, code, place)
  local width = WIDTH_MS[code]
  if not width then return {{at = s.n[place + LAST], frees = s.n[place + USED]}} end
  local ring, stale, events = {}, {}, {}
  for i = 1, BUCKETS do ring[i] = i - 1 end
  for _, position in ipairs(s.gone and s.gone[code] or {}) do stale[position] = true end
  local values = call('HMGET', s.key .. ':' .. code, unpack(ring))
  for index = s.n[place + AT] - BUCKETS + 1, s.n[place + AT] do
    local position = index % BUCKETS
    local frees = not stale[position] and tonumber(values[position + 1]) or 0
    if frees > 0 then events[#events + 1] = {at = (index + BUCKETS) * width, frees = frees} end
  end
  return events
end

-- Is it in this counter that a call is held?
local function is_in(holds, s, code)
  for codes, subject in string.gmatch(holds, '(%S+) ([^\n]+)\n') do
    if subject .. 'counters' == s.key then return string.find(codes, code, 1, true) end
  end
end

-- When `need` will have been freed: by departures, and by the ends of `leases` (ids and ends) if nobody renews these, which
-- free what is held less what is known and not posted yet. Else nil, and the last moment seen.
local function first_with(s, code, need, departs, leases)
  local _, _, read_reservation, known_cost, still_to_post = posting()
  local d, l, at = 1, 1, now
  while departs[d] or leases[l] do
    local ends = leases[l] and max(now, tonumber(leases[l + 1]))
    if departs[d] and not (ends and ends < departs[d].at) then
      at, need, d = departs[d].at, need - departs[d].frees, d + 1
    else
      local held = read_reservation(base, leases[l])
      if held and is_in(held.holds, s, code) then
        at = ends
        local known = {prompt = held.prompt, cached = 0, completion = held.completion, cost = 0}
        if code == '$' then known.cost = known_cost(held, cjson.decode(held.meta)) end
        local due = still_to_post(call('GET', base .. 's:' .. leases[l]), known)
        if code == '$' then
          need = need - held.cost + (due and due.cost or 0)
        else
          need = need - held.tokens + (due and due.prompt + due.completion or 0)
        end
      end
      l = l + 2
      if l > 2 * LEASES_MAX and need > 0 then return nil, at end -- there may be more: no sooner than this
    end
    if need <= 0 then return at end
  end
  return nil, at
end

-- The earliest moment at which a limit has room for the call. Reservations count as if they stayed, as long as anything else is
-- in the way; where nothing else is, the ends of their leases bound it. 0: it fits now. -1: never.
local function fits_at(s, live, code, limit)
  local asked = amounts[code]
  local place = PLACES[code]
  local used, reserved = 0, s.slots
  if place then used, reserved = s.n[place + USED], s.n[place + RESERVED] end
  local need = used + reserved + asked - limit
  if need <= 0 then return 0 end
  if asked > limit then return -1 end
  if code == 'c' then
    local slot = call('ZRANGE', live, '(' .. now, '+inf', 'BYSCORE', 'LIMIT', need - 1, 1, 'WITHSCORES')
    return tonumber(slot[2])
  end
  local departs = departures(s, code, place)
  local at = used + asked > limit and first_with(s, code, need, departs, {})
  if at then return at end
  local first, last = first_with(s, code, need, departs, call('ZRANGE', live, 0, LEASES_MAX - 1, 'WITHSCORES'))
  return first or last
end

if subjects > 0 and ARGV[12] == '1' and call('ZCOUNT', base .. 'leases', '-inf', now) > 0 then
  local _, reap = posting()
  for i = subjects + 2, #KEYS do
    for _, dead in ipairs(call('ZRANGE', KEYS[i], '-inf', now, 'BYSCORE', 'LIMIT', 0, LEASES_MAX)) do
      reap(base, dead, now, periods)
    end
  end
end

local values = call('MGET', base .. 's:' .. id, unpack(KEYS, 1, subjects + 1))
if subjects > 0 and not values[2] and ARGV[11] == '0' then return -1 end
if values[1] == 'settled' then return 2 end

local all, is_admitted, has_much_room, limits = {}, true, true, #ARGV[13 + subjects] / 8
local maxima, limit = {struct.unpack('<' .. string.rep('d', limits), ARGV[13 + subjects])}, 0
for i = 1, subjects do
  local s = subject_of(KEYS[1 + i], values[2 + i], ARGV[12 + i])
  for at = 1, #s.codes do
    local code, taken = string.sub(s.codes, at, at), nil
    if code == 'c' then
      s.slots = call('ZCOUNT', KEYS[1 + subjects + i], '(' .. now, '+inf')
      taken = s.slots
    else
      local place = bring(s, code, now, periods)
      taken = s.n[place + RESERVED] + s.n[place + USED]
    end
    limit = limit + 1
    local own = amounts[code]
    local left = maxima[limit] - taken - own
    if left < 0 then is_admitted = false end
    if left < MUCH_ROOM * own then has_much_room = false end
  end
  all[i] = s
end

-- It is held already when the answer to the first asking got lost.
local lease_ends_ms, is_new = now + LEASE_MS, false
if not is_admitted then
  is_admitted = call('EXISTS', base .. 'r:' .. id) == 1
else
  is_new = call('ZADD', base .. 'leases', 'NX', lease_ends_ms, id) == 1
end
if is_new then call('HSET', base .. 'r:' .. id, 'call', ARGV[10]) end

local reply = struct.pack('<i8i8', is_admitted and (has_much_room and 2 or 1) or 0, 0)
for i, s in ipairs(all) do
  if is_new then
    for at = 1, #s.codes do
      local code = string.sub(s.codes, at, at)
      if code == 'm' then
        count(s, code, 1)
      elseif code == 'c' then
        s.slots = s.slots + 1
      else
        local place = PLACES[code]
        s.n[place + RESERVED] = s.n[place + RESERVED] + amounts[code]
      end
    end
    call('ZADD', KEYS[1 + subjects + i], lease_ends_ms, id)
  end
  reply = reply .. (is_new and s.codes ~= 'c' and write(s, now) or packed(s)) .. struct.pack('<i8', s.slots)
end
if is_admitted then return reply end
limit = 0
for i, s in ipairs(all) do
  for at = 1, #s.codes do
    limit = limit + 1
    reply = reply .. struct.pack('<i8', fits_at(s, KEYS[1 + subjects + i], string.sub(s.codes, at, at), maxima[limit]))
  end
end
return reply
