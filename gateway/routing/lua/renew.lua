-- A worker lives: lease its places for another 30 s and its tickets for another 5, and hand out what others have lost.
-- A place that is gone though its call lives (its worker stalled, or Redis lost it) is held again, whatever the ceilings say.
-- ARGV, after the pool: how many tickets, their ids; then id and member of each place.
-- Returns for each ticket as take.lua does; {-1} where it is gone: it has to be asked for anew.

reap()
local tickets = tonumber(ARGV[own])
for i = own + 1 + tickets, #ARGV, 2 do place(ARGV[i], ARGV[i + 1], LEASE_MS) end
for i = own + 1, own + tickets do
  local t = ticket(ARGV[i])
  if t then
    call('ZADD', base .. 'due', whole(now + TICKET_MS), t.id)
    call('PEXPIRE', base .. 'line:' .. t.tenant, KEPT_MS)
  end
end
serve()
local standings = {}
for i = own + 1, own + tickets do standings[#standings + 1] = standing(ARGV[i]) or {-1} end
return standings
