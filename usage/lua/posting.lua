-- How a call leaves the books: shared by the verbs that end one. The body of `posting`, so that it is only built when asked
-- for. Returns post, reap, read_reservation, known_cost, still_to_post.

local SETTLED_MS = 7200000 -- how long a settled call is remembered
local JOURNAL_MAX = 312500 -- events of a partition, about 2 GB over all: a bound for the day on which nobody reads

-- A call that Redis did not admit has its request counted when it ends: in the second in which it began, if that is still in
-- the window.
local function count_request(s, bucket)
  bucket = math.min(bucket, s.n[PLACES.m + AT])
  if bucket <= s.n[PLACES.m + AT] - BUCKETS then return end
  let_go(s, 'm')
  local ring = s.key .. ':m'
  call('HINCRBY', ring, bucket % BUCKETS, 1)
  call('PEXPIRE', ring, KEPT_MS)
  s.n[PLACES.m + USED], s.n[PLACES.m + LAST] = s.n[PLACES.m + USED] + 1, max(s.n[PLACES.m + LAST], bucket)
end

-- A call that used nothing gives its request back to the second it was taken from, if that is still in the window.
local function give_back(s, bucket)
  if bucket <= s.n[PLACES.m + AT] - BUCKETS then return end
  let_go(s, 'm')
  local ring = s.key .. ':m'
  if (tonumber(call('HGET', ring, bucket % BUCKETS)) or 0) < 1 then return end
  call('HINCRBY', ring, bucket % BUCKETS, -1)
  s.n[PLACES.m + USED] = s.n[PLACES.m + USED] - 1
end

-- ceil(prompt * its price + completion * its price) in nano, from pico a token. In parts, so that each stays exact.
local function cost_of(price, prompt, completion)
  local thousands = prompt * floor(price.prompt / 1000) + completion * floor(price.completion / 1000)
  local rest = prompt * (price.prompt % 1000) + completion * (price.completion % 1000)
  return thousands + math.ceil(rest / 1000)
end

-- A reservation; nil when there is none. holds: a line a subject, its codes and what its keys begin with. prompt: the backend's
-- count where its worker told it, else the bound that was reserved. completion: the last count its worker told.
local function read_reservation(base, id)
  local values = call('HMGET', base .. 'r:' .. id, 'call', 'prompt', 'completion')
  if not values[1] then return nil end
  local tokens, cost, bucket, prompt, zone, meta, holds =
    string.match(values[1], '^(%d+) (%d+) (%d+) (%d+) ([^\n]*)\n([^\n]*)\n(.*)$')
  return {holds = holds, tokens = tonumber(tokens), cost = tonumber(cost), bucket = tonumber(bucket), zone = zone, meta = meta,
          prompt = tonumber(values[2] or prompt), completion = tonumber(values[3]) or 0}
end

-- The cost of what is known of a live call. event: its meta, decoded.
local function known_cost(reservation, event)
  if type(event.price) ~= 'table' then return 0 end
  return cost_of(event.price, reservation.prompt, reservation.completion)
end

-- What of `used` was not posted of a call before, as which part, and what to remember then. nil: the call is settled.
local function still_to_post(mark, used)
  if mark == 'settled' then return nil end
  local part, prompt, cached, completion, cost = 0, 0, 0, 0, 0
  if mark then
    part, prompt, cached, completion, cost = string.match(mark, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  end
  local due = {prompt = max(0, used.prompt - prompt), cached = max(0, used.cached - cached),
               completion = max(0, used.completion - completion), cost = max(0, used.cost - cost)}
  local mark_after = string.format('%d %.0f %.0f %.0f %.0f', part + 1, prompt + due.prompt, cached + due.cached,
                                   completion + due.completion, cost + due.cost)
  return due, tonumber(part), mark_after
end

-- Move every counter of `holds`: the reservation out, where there is one, and what is due in. began: in which second, where the
-- call's request is not counted yet.
local function move(holds, reservation, due, id, now, periods, uses_nothing, began)
  local moves_requests = began or uses_nothing and reservation
  local all, keys = {}, {}
  for codes, subject in string.gmatch(holds, '(%S+) ([^\n]+)\n') do
    call('ZREM', subject .. 'live', id)
    if string.find(codes, moves_requests and '[mhdM$]' or '[hdM$]') then
      all[#all + 1], keys[#keys + 1] = codes, subject .. 'counters'
    end
  end
  if #keys == 0 then return end
  local tokens, held_tokens, held_cost = due.prompt + due.completion, 0, 0
  if reservation then held_tokens, held_cost = reservation.tokens, reservation.cost end
  for i, packed in ipairs(call('MGET', unpack(keys))) do
    local s = subject_of(keys[i], packed, all[i])
    for code in string.gmatch(all[i], moves_requests and '[mhdM$]' or '[hdM$]') do
      local place = bring(s, code, now, periods)
      if code == 'm' and began then
        count_request(s, began)
      elseif code == 'm' then
        give_back(s, reservation.bucket)
      else
        s.n[place + RESERVED] = max(0, s.n[place + RESERVED] - (code == '$' and held_cost or held_tokens))
        count(s, code, code == '$' and due.cost or tokens)
      end
    end
    write(s, now)
  end
end

-- Post what a call used and end its reservation. head: its event as JSON, without part, token counts and cost.
-- Returns the journaled event, or nil when there is nothing to post any more: then only a stray reservation ends.
local function post(base, id, now, periods, reservation, holds, used, head, is_final, uses_nothing)
  local due, part, mark = still_to_post(call('GET', base .. 's:' .. id), used)
  if not due and not reservation then return nil end
  local is_new = not reservation and part == 0 and not uses_nothing
  local began = is_new and floor(tonumber(string.match(head, '"created_s":([%d.]+)'))) or nil
  move(holds, reservation, due or {prompt = 0, completion = 0, cost = 0}, id, now, periods, uses_nothing, began)
  if reservation then
    call('ZREM', base .. 'leases', id)
    call('DEL', base .. 'r:' .. id)
  end
  if not due then return nil end
  if not is_final and part > 0 and due.prompt + due.completion + due.cost == 0 then return nil end
  call('SET', base .. 's:' .. id, is_final and 'settled' or mark, 'PX', SETTLED_MS)
  local event = string.format('%s,"part":%d,"prompt_tokens":%.0f,"cached_tokens":%.0f,"completion_tokens":%.0f,"cost_nano":%.0f}',
                              string.sub(head, 1, -2), part, due.prompt, due.cached, due.completion, due.cost)
  call('XADD', base .. 'journal', 'MAXLEN', '~', JOURNAL_MAX, '*', 'event', event)
  return event
end

-- Post a call whose lease ran out, with what is known of it. Its worker died, or has not told for a whole lease.
local function reap(base, id, now, periods)
  if call('EXISTS', base .. 'counting') == 1 then return nil end -- the journal stands still
  local reservation = read_reservation(base, id)
  if not reservation then
    call('ZREM', base .. 'leases', id)
    return nil
  end
  local event = cjson.decode(reservation.meta)
  local used = {prompt = reservation.prompt, cached = 0, completion = reservation.completion,
                cost = known_cost(reservation, event)}
  local head = string.format('%s,"outcome":"lost","usage_source":"estimated","duration_ms":%.0f}',
                             string.sub(reservation.meta, 1, -2), max(0, now - floor(event.created_s * 1000)))
  return post(base, id, now, periods, reservation, reservation.holds, used, head, false, false)
end

return post, reap, read_reservation, known_cost, still_to_post
