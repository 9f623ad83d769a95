-- The calls have ended, or do not want to wait any more: the next ones get their places. Asking again changes nothing.
-- ARGV, after the pool: ids.

reap()
for i = own, #ARGV do
  if unplace(ARGV[i]) then
    note_end()
  else
    local t = ticket(ARGV[i])
    if t then remove(t) end
  end
end
serve()
