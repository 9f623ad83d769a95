-- What the verbs share: the places of one deployment, and who waits for one. waiting.py tells the rules, and is their model.
-- KEYS[1]: what all keys of the deployment begin with. ARGV: the ceiling (-1: none), how many may wait, how many members, and
-- each one's name and ceiling; then the verb's own. Time is Redis' own: the clocks of machines differ, and leases are short.
--
-- live     sorted set: who holds a place, by the end of its lease in ms        where  hash: at which member
-- at:<m>   set: who holds a place at member m
-- line:<t> sorted set: who of tenant t waits, by arrival; 0 for a call that was served before
-- lines    sorted set: tenants that wait, by the tag at which their next call is served (0: it was served before)
-- lengths  sorted set: tenants that wait, by how many calls
-- tickets  hash: of each that waits "tokens\nworker\ntenant\nwish\nwish..."     due  sorted set: by the end of its lease in ms
-- tags     hash: the tag of each tenant's next call                            state  hash: served, arrivals, and the rate

local call = redis.call
local LEASE_MS, GRANT_MS, TICKET_MS, KEPT_MS = 30000, 5000, 5000, 3600000
local RATE_MS, UNKNOWN_MS, REAP_MAX = 60000, 30000, 100

local base = KEYS[1]
local ceiling, waiting_max, members = tonumber(ARGV[1]), tonumber(ARGV[2]), {}
local own = 4 -- the first of the verb's own arguments
for _ = 1, tonumber(ARGV[3]) do
  members[#members + 1] = {name = ARGV[own], ceiling = tonumber(ARGV[own + 1])}
  own = own + 2
end
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function whole(number) return string.format('%.0f', number) end

local function state(name) return tonumber(call('HGET', base .. 'state', name) or 0) end

local function place(id, member, lease_ms)
  call('ZADD', base .. 'live', whole(now + lease_ms), id)
  call('HSET', base .. 'where', id, member)
  call('SADD', base .. 'at:' .. member, id)
  call('PEXPIRE', base .. 'at:' .. member, KEPT_MS)
end

-- Returns whether it held a place.
local function unplace(id)
  local member = call('HGET', base .. 'where', id)
  if not member then return false end
  call('ZREM', base .. 'live', id)
  call('HDEL', base .. 'where', id)
  call('SREM', base .. 'at:' .. member, id)
  return true
end

local function ticket(id)
  local text = call('HGET', base .. 'tickets', id)
  if not text then return nil end
  local fields = {}
  for field in string.gmatch(text .. '\n', '([^\n]*)\n') do fields[#fields + 1] = field end
  return {id = id, tokens = tonumber(fields[1]), worker = fields[2], tenant = fields[3], wishes = fields}
end

local function tag(tenant) return tonumber(call('HGET', base .. 'tags', tenant) or 0) end

-- Where the line stands among the others, after its first call or its tag has changed.
local function rank(tenant)
  local first = call('ZRANGE', base .. 'line:' .. tenant, 0, 0, 'WITHSCORES')
  if not first[1] then
    call('ZREM', base .. 'lines', tenant)
  else
    call('ZADD', base .. 'lines', tonumber(first[2]) == 0 and '0' or whole(tag(tenant)), tenant)
  end
end

local function remove(t)
  call('HDEL', base .. 'tickets', t.id)
  call('ZREM', base .. 'due', t.id)
  call('ZREM', base .. 'line:' .. t.tenant, t.id)
  if tonumber(call('ZINCRBY', base .. 'lengths', -1, t.tenant)) <= 0 then call('ZREM', base .. 'lengths', t.tenant) end
  rank(t.tenant)
end

-- The places and tickets whose workers did not renew them.
local function reap()
  for _, id in ipairs(call('ZRANGE', base .. 'live', '-inf', now, 'BYSCORE', 'LIMIT', 0, REAP_MAX)) do unplace(id) end
  for _, id in ipairs(call('ZRANGE', base .. 'due', '-inf', now, 'BYSCORE', 'LIMIT', 0, REAP_MAX)) do
    local t = ticket(id)
    if t then remove(t) else call('ZREM', base .. 'due', id) end
  end
end

-- Calls and milliseconds counted of the times without a free place, faded to now.
local function counted()
  local at = state('full')
  local elapsed = at > 0 and math.max(0, now - at) or 0
  local faded = math.exp(-elapsed / RATE_MS)
  return state('calls') * faded, state('ms') * faded + elapsed
end

local function note_end()
  if state('full') == 0 then return end
  local calls, ms = counted()
  call('HSET', base .. 'state', 'calls', calls + 1, 'ms', ms, 'full', whole(now))
end

local function note_full(is_full)
  if not is_full then
    call('HDEL', base .. 'state', 'full')
  elseif state('full') == 0 then
    call('HSET', base .. 'state', 'full', whole(now))
  end
end

-- Milliseconds until a call that joins the tenant's line now would be served.
local function retry_after(tenant)
  local calls, ms = counted()
  if calls == 0 or ms == 0 then return UNKNOWN_MS end
  local at = call('ZCARD', base .. 'line:' .. tenant) + 1
  local lengths, ahead = call('ZRANGE', base .. 'lengths', 0, -1, 'WITHSCORES'), 0
  for i = 2, #lengths, 2 do ahead = ahead + math.min(tonumber(lengths[i]), at) end
  return math.ceil((ahead + 1) * ms / calls)
end

-- Tell the worker of a ticket. A worker that is gone does not read it: the list goes with it.
local function tell(t, ...)
  local list = string.match(base, '^[^}]*}') .. ':answers:' .. t.worker
  call('RPUSH', list, table.concat({t.id, ...}, '\n'))
  call('PEXPIRE', list, 2 * LEASE_MS)
end

local function give(t, member, asking)
  if t.tokens > 0 then
    local at = tag(t.tenant)
    call('HSET', base .. 'state', 'served', whole(math.max(state('served'), at)))
    call('HSET', base .. 'tags', t.tenant, whole(at + t.tokens))
  end
  remove(t)
  place(t.id, member, t.id == asking and LEASE_MS or GRANT_MS)
  if t.id ~= asking then tell(t, 'granted', member) end
end

-- Hand out what is free, the lowest line first. asking: the ticket of the caller, who reads its answer here.
local function serve(asking)
  local free = ceiling < 0 and math.huge or ceiling - call('ZCARD', base .. 'live')
  local room, open = {}, 0 -- of the members that have any
  if #members == 0 then room[''], open = math.huge, 1 end
  for _, member in ipairs(members) do
    local left = member.ceiling < 0 and math.huge or member.ceiling - call('SCARD', base .. 'at:' .. member.name)
    if left > 0 then room[member.name], open = left, open + 1 end
  end
  local function with_room(t)
    if room[''] then return '' end
    for i = 4, #t.wishes do
      if room[t.wishes[i]] then return t.wishes[i] end
    end
  end
  local passed_over = 0 -- nobody in these lines can use what is free
  while free > 0 and open > 0 do
    local tenant = call('ZRANGE', base .. 'lines', passed_over, passed_over)[1]
    if not tenant then break end
    local found, member, i = nil, nil, 0
    while not found do
      local id = call('ZRANGE', base .. 'line:' .. tenant, i, i)[1]
      if not id then break end
      local t = ticket(id)
      member = with_room(t)
      if member then found = t end
      i = i + 1
    end
    if found then
      give(found, member, asking)
      free, room[member] = free - 1, room[member] - 1
      if room[member] <= 0 then room[member], open = nil, open - 1 end
    else
      passed_over = passed_over + 1
    end
  end
  note_full(free <= 0 or open == 0)
  for _, name in ipairs({'live', 'where', 'lines', 'lengths', 'tickets', 'due', 'tags', 'state'}) do
    call('PEXPIRE', base .. name, KEPT_MS)
  end
end

-- Where a call stands: {1, member} it holds a place, {0} it waits, nil neither.
local function standing(id)
  local member = call('HGET', base .. 'where', id)
  if member then return {1, member} end
  if call('HEXISTS', base .. 'tickets', id) == 1 then return {0} end
end
