-- How the counters stand. Writes nothing. KEYS: alive, of each subject its counters, and then of each its slots.
-- ARGV: now ms, day, its end, month, its end, of each subject its codes.
-- Returns -1: the counters are gone. Else in one string, as reserve.lua has it: 1 and 0, and of each subject its counters and
-- how many slots are held.

local subjects = (#KEYS - 1) / 2
local values = call('MGET', unpack(KEYS, 1, subjects + 1))
if subjects > 0 and not values[1] then return -1 end
local now, reply = tonumber(ARGV[1]), struct.pack('<i8i8', 1, 0)
local periods = {tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])}
for i = 1, subjects do
  local s = subject_of(KEYS[1 + i], values[1 + i], ARGV[5 + i])
  for code in string.gmatch(s.codes, '[mhdM$]') do bring(s, code, now, periods) end
  reply = reply .. packed(s) .. struct.pack('<i8', call('ZCOUNT', KEYS[1 + subjects + i], '(' .. now, '+inf'))
end
return reply
