-- Hold a call's amounts in every counter, or in none. Dead leases of its subjects are posted first, where that is asked for.
-- KEYS: alive, one counter a limit, one `live` set a subject: the same for many calls.
-- ARGV: base, request id, now ms, tokens, cost, day, its end, month, its end, the call as read_reservation reads it, 1 when
--   the call runs already, whatever may be gone; 1 when dead leases are to be posted; number of limits, for each limit: code,
--   maximum, 1 when it is enforced.
-- Returns -1: the counters are gone. 2: settled before. Else signed 64-bit little-endian numbers in one string, as the client
--   makes of each number of a list a value of its own: 0 refused, 1 admitted, 2 admitted with much room left; and for each limit
--   used, reserved, resets at ms, and 0 or when this call would fit it (ms; -1: never).

local base, id, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local periods = {tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])}
local limits = tonumber(ARGV[13])
local first_live = limits + 2
local MUCH_ROOM = 32 -- further calls like this one, under every limit that refuses

local function amount(code)
  if code == 'm' or code == 'c' then return 1 end
  return tonumber(code == '$' and ARGV[5] or ARGV[4])
end

-- What a counter loses by itself: {at ms, amount} when buckets leave the window or the period ends.
local function departures(c)
  local width = WIDTH_MS[c.code]
  if not width then return {{at = c.last, frees = c.used}} end
  local ring, stale, events = {}, {}, {}
  for i = 1, BUCKETS do ring[i] = i - 1 end
  for _, position in ipairs(c.gone or {}) do stale[position] = true end
  local values = call('HMGET', c.key .. ':ring', unpack(ring))
  for index = c.at - BUCKETS + 1, c.at do
    local position = index % BUCKETS
    local frees = not stale[position] and tonumber(values[position + 1]) or 0
    if frees > 0 then events[#events + 1] = {at = (index + BUCKETS) * width, frees = frees} end
  end
  return events
end

-- When `need` will have been freed: by departures, and by the ends of `leases` (ids and ends) if nobody renews these, which
-- free what is held less what is known and not posted yet. Else nil, and the last moment seen.
local function first_with(c, need, departs, leases)
  local _, _, read_reservation, known_cost, still_to_post = posting()
  local d, l, at = 1, 1, now
  while departs[d] or leases[l] do
    local ends = leases[l] and max(now, tonumber(leases[l + 1]))
    if departs[d] and not (ends and ends < departs[d].at) then
      at, need, d = departs[d].at, need - departs[d].frees, d + 1
    else
      local held = read_reservation(base, leases[l])
      if held and string.find(held.holds, c.code .. ' ' .. c.key .. '\n', 1, true) then
        at = ends
        local known = {prompt = held.prompt, cached = 0, completion = held.completion, cost = 0}
        if c.code == '$' then known.cost = known_cost(held, cjson.decode(held.meta)) end
        local due = still_to_post(call('GET', base .. 's:' .. leases[l]), known)
        if c.code == '$' then
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

-- The earliest moment at which `asked` fits. Reservations count as if they stayed, as long as anything else is in the way;
-- where nothing else is, the ends of their leases bound it. 0: it fits now. -1: never.
local function fits_at(c, asked, limit)
  local need = c.used + c.reserved + asked - limit
  if need <= 0 then return 0 end
  if asked > limit then return -1 end
  if c.code == 'c' then
    local slot = call('ZRANGE', c.key, '(' .. now, '+inf', 'BYSCORE', 'LIMIT', need - 1, 1, 'WITHSCORES')
    return tonumber(slot[2])
  end
  local departs = departures(c)
  local at = c.used + asked > limit and first_with(c, need, departs, {})
  if at then return at end
  local live = string.match(c.key, '^.*:') .. 'live'
  local first, last = first_with(c, need, departs, call('ZRANGE', live, 0, LEASES_MAX - 1, 'WITHSCORES'))
  return first or last
end

if KEYS[first_live] and ARGV[12] == '1' and call('ZCOUNT', base .. 'leases', '-inf', now) > 0 then
  local _, reap = posting()
  for i = first_live, #KEYS do
    for _, dead in ipairs(call('ZRANGE', KEYS[i], '-inf', now, 'BYSCORE', 'LIMIT', 0, LEASES_MAX)) do
      reap(base, dead, now, periods)
    end
  end
end

local values = call('MGET', base .. 's:' .. id, unpack(KEYS, 1, first_live - 1))
if limits > 0 and not values[2] and ARGV[11] == '0' then return -1 end
if values[1] == 'settled' then return 2 end

local counters, is_admitted, has_much_room = {}, true, true
for i = 1, limits do
  local code, limit = ARGV[11 + 3 * i], tonumber(ARGV[12 + 3 * i])
  local c = counter(code, KEYS[1 + i], values[2 + i], now, periods)
  if ARGV[13 + 3 * i] == '1' then
    local own = amount(code)
    local left = limit - c.used - c.reserved - own
    if left < 0 then is_admitted = false end
    if left < MUCH_ROOM * own then has_much_room = false end
  end
  counters[i] = c
end

-- It is held already when the answer to the first asking got lost.
local lease_ends_ms = now + LEASE_MS
if not is_admitted then
  is_admitted = call('EXISTS', base .. 'r:' .. id) == 1
elseif call('ZADD', base .. 'leases', 'NX', lease_ends_ms, id) == 1 then
  for _, c in ipairs(counters) do
    if c.code == 'm' then
      write(c, 1, now)
    else
      c.reserved = c.reserved + amount(c.code)
      write(c, 0, now)
    end
  end
  for i = first_live, #KEYS do call('ZADD', KEYS[i], lease_ends_ms, id) end
  call('HSET', base .. 'r:' .. id, 'call', ARGV[10])
end

local reply = {is_admitted and (has_much_room and 2 or 1) or 0}
for i, c in ipairs(counters) do
  local is_asked = not is_admitted and ARGV[13 + 3 * i] == '1'
  local at = 4 * i - 2
  reply[at], reply[at + 1], reply[at + 2] = c.used, c.reserved, resets(c, now)
  reply[at + 3] = is_asked and fits_at(c, amount(c.code), tonumber(ARGV[12 + 3 * i])) or 0
end
return struct.pack('<' .. string.rep('i8', #reply), unpack(reply))
