-- Give a call a place, or a place in its tenant's line. When too many wait, the longest line loses its newest call.
-- ARGV, after the pool: id, worker, tenant, tokens (0: served before), the id whose place is given back or '', wishes.
-- Returns {1, member}, {0} it waits, or {2, ms to retry after}. Asking again changes nothing.

local id, worker, tenant, tokens, instead_of = ARGV[own], ARGV[own + 1], ARGV[own + 2], ARGV[own + 3], ARGV[own + 4]
reap()
local before = standing(id)
if before then return before end
if instead_of ~= '' then unplace(instead_of) end

local line = base .. 'line:' .. tenant
if call('EXISTS', line) == 0 then
  local latest = state('served')
  local first = call('ZRANGE', base .. 'lines', 0, 0, 'WITHSCORES')
  if first[1] then latest = tonumber(first[2]) + ticket(call('ZRANGE', base .. 'line:' .. first[1], 0, 0)[1]).tokens - 1 end
  call('HSET', base .. 'tags', tenant, whole(math.max(state('served'), math.min(latest, tag(tenant)))))
end
local arrival = call('HINCRBY', base .. 'state', 'arrivals', 1)
call('HSET', base .. 'tickets', id, table.concat({tokens, worker, tenant, unpack(ARGV, own + 5)}, '\n'))
call('ZADD', base .. 'due', whole(now + TICKET_MS), id)
call('ZADD', line, tokens == '0' and 0 or arrival, id)
call('PEXPIRE', line, KEPT_MS)
call('ZINCRBY', base .. 'lengths', 1, tenant)
rank(tenant)
serve(id)

if call('HLEN', base .. 'tickets') > waiting_max then
  local longest = call('ZRANGE', base .. 'lengths', 0, 0, 'REV')[1]
  local last = ticket(call('ZRANGE', base .. 'line:' .. longest, 0, 0, 'REV')[1])
  remove(last)
  local wait = retry_after(longest)
  if last.id == id then return {2, wait} end
  tell(last, 'refused', wait)
end
return standing(id)
