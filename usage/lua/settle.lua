-- End a call: its reservation out of the counters, what it used in, its event on the journal. Once.
-- KEYS: alive.
-- ARGV: base, request id, now ms, day, its end, month, its end, zone, prompt tokens, cached tokens, completion tokens, cost,
--   1 when it used nothing, event, holds (what the caller knows to be held), 1 when it held what the caller does not know.
-- Returns 1: done. 0: it was done before. -1: not now, the counters are being restored. A zone: the reservation's, to be asked
-- with.

local post, _, read_reservation = posting()
local base, id, now, zone = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[8]
local used = {prompt = tonumber(ARGV[9]), cached = tonumber(ARGV[10]), completion = tonumber(ARGV[11]), cost = tonumber(ARGV[12])}
local is_alive = call('EXISTS', KEYS[1]) == 1
if not is_alive and call('EXISTS', base .. 'counting') == 1 then return -1 end
local reservation = read_reservation(base, id)
local holds = ARGV[15]
if reservation then
  holds = reservation.holds
  if zone == '' and reservation.zone ~= '' then return reservation.zone end
elseif not is_alive then
  holds = '' -- the counters are gone; whoever restores them finds this call on the journal
end
local periods = {tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])}
if not post(base, id, now, periods, reservation, holds, used, ARGV[14], true, ARGV[13] == '1') then return 0 end
if not reservation and ARGV[16] == '1' then
  call('DEL', KEYS[1]) -- it is journaled and not counted: the counters must be restored
end
return 1
