-- A call has waited for as long as it may. ARGV, after the pool: id.
-- Returns {1, member}, the place that it got at the last moment, or {2, ms to retry after}.

local id = ARGV[own]
local t = ticket(id)
if not t then return standing(id) or {2, UNKNOWN_MS} end
remove(t)
return {2, retry_after(t.tenant)}
