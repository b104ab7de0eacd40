"""What Redis remembers of writes, and the scripts that decide there what a change may still do. Text only.

Everything lives in three hashes without expiry, so that no eviction policy takes a part of it unnoticed:

``rowtap:state``
    ``seq`` the counter · ``epoch`` its value when the epoch began · ``floor`` dates below it are refused ·
    ``run`` Redis's run_id · ``time`` of the last script, ms · ``generation``, ``rotated`` of the fences ·
    ``held`` when the last hold ends, ms · ``barred`` until then no value is accepted at all, ms ·
    ``t:<label>`` a table's fence · ``r:<label>`` a rule's definition ·
    ``n:<label>`` the last block of the rule, and `` none`` when its keys were looked for; gone with the next value ·
    ``w:<worker>`` a worker's registration: counter value and time of its last script, and its token ·
    ``l:<worker>`` the labels of its rules
``rowtap:fences:0``, ``rowtap:fences:1``
    the keys' fences, this generation's and the last one's; a generation lasts for a fence's life, so that a fence is
    kept for one to two of them. The field ``rowtap:generation`` tells that the hash is whole.

A fence is the counter value of the last write (0: none is known), and, while no value must come at all, one or more
`` <until ms>@<holder>``. A holder is a block, lifted by its name, or ``-``, which nobody lifts before its time.
Scripts run on Redis 6.2 and later and Valkey 7.2 and later, without modules.
"""

from __future__ import annotations

STATE = b"rowtap:state"
FENCES = (b"rowtap:fences:0", b"rowtap:fences:1")

FILLED, REFUSED, STORED, REMOVED, OVERLAPPED = b"FRSEO"
"""Outcomes of a change: value written by a Fill; Fill refused; value written; key removed; key removed, and another
write of it was newer than this one's date."""

SCAN = ord("1")
"""Of a Flush: its keys are to be looked for. Otherwise the block it ends had that done, and no value came since."""

REJOIN, DONE = 0, 1
"""First element of a reply: Redis does not know this worker, or not what it did last; or the script was applied."""

_COMMON = """
local call = redis.call
local STATE, FENCES, WHOLE = 'rowtap:state', 'rowtap:fences:', 'rowtap:generation'
local clock = call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local now = math.floor(micros / 1000)

-- Lua would print a counter value with an exponent.
local function text(number) return string.format('%.0f', number) end

local function split(list, separator)
  local parts = {}
  for part in string.gmatch(list, '[^' .. separator .. ']+') do parts[#parts + 1] = part end
  return parts
end

-- Whether fences may have been lost or aged more than statements know of, and whether their generation has ended.
-- Every worker calls once in a few seconds: a longer silence means that Redis stood still or its clock jumped.
local function doubts(state, life)
  local back = now < state.rotated - 5000
  local lost = back or now - state.time > life / 2
  local current = call('HGET', FENCES .. (state.generation % 2), WHOLE)
  local previous = call('HGET', FENCES .. ((state.generation + 1) % 2), WHOLE)
  lost = lost or tonumber(current) ~= state.generation or tonumber(previous) ~= state.generation - 1
  return lost, back or now - state.rotated >= life
end

-- With the fences, holds may have been lost that were still running: a write may yet come that they were there for.
local function bar(state, life)
  if (state.held or 0) > state.time then
    state.barred = now + life
    call('HSET', STATE, 'barred', text(state.barred))
  end
end

-- A fence's counter value, and the holds on it that still run, but those of holders in `lifted`.
local function fence(value, lifted)
  if not value then return 0, nil end
  local number = tonumber(value)
  if number then return number, nil end
  local parts = split(value, ' ')
  local holds
  for i = 2, #parts do
    local till, holder = string.match(parts[i], '^(%d+)@(.*)$')
    till = tonumber(till)
    if not (lifted and lifted[holder or '']) and (not till or till > now) then
      holds = (holds or '') .. ' ' .. parts[i]
    end
  end
  return tonumber(parts[1]) or math.huge, holds
end

local function rotate(state)
  state.generation = state.generation + 1
  state.rotated = now
  local fresh = FENCES .. (state.generation % 2)
  call('UNLINK', fresh)
  call('HSET', fresh, WHOLE, text(state.generation))
  -- Also right when the other one is lost: from here on it is as empty as it is.
  call('HSET', FENCES .. ((state.generation + 1) % 2), WHOLE, text(state.generation - 1))
end
"""

JOIN = (
    _COMMON
    + """
-- Register a worker, or say that it lives. Looks whether this is still the Redis it knew, and for workers that died.
-- ARGV: worker, token, seen, registered (0/1), run_id, lease ms, life ms, then label and definition of each rule.
-- Returns {DONE, seq, epoch, ms, {labels with a new definition}, {labels of dead workers}}.
local id, token, seen, registered = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local run, lease, life = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])

local map = {}
local flat = call('HGETALL', STATE)
for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
local state = {}
local whole = true
for _, name in ipairs({'seq', 'epoch', 'floor', 'time', 'generation', 'rotated'}) do
  state[name] = tonumber(map[name])
  whole = whole and state[name] ~= nil
end

local own, owner
if map['w:' .. id] then
  own, owner = string.match(map['w:' .. id], '^(%d+) %d+ (.*)$')
  own = tonumber(own)
end
if registered and owner and owner ~= token then return {0} end

-- A write that memory limits do not forbid, first: what follows is small, and must not be refused for want of memory.
call('DEL', 'rowtap:none')

-- Whoever was told nothing of this epoch yet forgets all it knew when it enters it, also what this Redis does not know.
local fresh = not whole or state.seq < seen or (run ~= '' and map.run ~= run)
  or (registered and (not own or own < seen) and seen >= state.epoch)
if fresh then
  -- Above whatever anybody was told before: counting goes by microseconds, and no Redis counts that fast.
  local seq = math.max(state.seq or 0, seen, micros) + 1
  state = {seq = seq, epoch = seq, floor = seq, time = now, generation = state.generation or 1, rotated = now}
  call('UNLINK', FENCES .. '0', FENCES .. '1')
  rotate(state)
  -- Whoever has a rule that nobody has now, flushes it when it comes.
  for name in pairs(map) do
    local sort = string.sub(name, 1, 2)
    if sort == 'r:' or sort == 'n:' then
      call('HDEL', STATE, name)
      map[name] = nil
    end
  end
else
  local lost, ended = doubts(state, life)
  if lost then
    state.seq = state.seq + 1
    state.floor = state.seq
    bar({held = tonumber(map.held), time = state.time}, life)
  end
  if lost or ended then rotate(state) end
end

local mine, labels, changed = {}, {}, {}
local set = {'run', run, 'seq', text(state.seq), 'epoch', text(state.epoch), 'floor', text(state.floor),
  'time', text(now), 'generation', text(state.generation), 'rotated', text(state.rotated),
  'w:' .. id, text(state.seq) .. ' ' .. text(now) .. ' ' .. token}
for i = 8, #ARGV, 2 do
  local label, definition = ARGV[i], ARGV[i + 1]
  mine[label] = true
  labels[#labels + 1] = label
  if map['r:' .. label] ~= definition then
    changed[#changed + 1] = label
    call('HSET', STATE, 'r:' .. label, definition)
    call('HDEL', STATE, 'n:' .. label)
  end
end
call('HSET', STATE, unpack(set))

local orphans, found = {}, {}
for name, record in pairs(map) do
  local other = string.match(name, '^w:(.*)$')
  if other then
    local _, at, holder = string.match(record, '^(%d+) (%d+) (.*)$')
    local dead = other ~= id and now - (tonumber(at) or 0) > lease
    if other == id then dead = holder ~= token end
    if dead then
      local left = {}
      for _, label in ipairs(split(map['l:' .. other] or '', '\\n')) do
        if not mine[label] then
          left[#left + 1] = label
        elseif not found[label] then
          found[label] = true
          orphans[#orphans + 1] = label
        end
      end
      -- Labels this worker does not have wait for one that has them.
      local heir = other == id and (other .. '/' .. holder) or other
      if #left > 0 then
        call('HSET', STATE, 'w:' .. heir, record, 'l:' .. heir, table.concat(left, '\\n'))
      elseif other ~= id then
        call('HDEL', STATE, 'w:' .. other, 'l:' .. other)
      end
    end
  end
end
call('HSET', STATE, 'l:' .. id, table.concat(labels, '\\n'))
return {1, state.seq, state.epoch, now, changed, orphans}
"""
)

APPLY = (
    _COMMON
    + """
-- Apply a batch. KEYS: the keys of the changes, then those that are only lifted, all different.
-- ARGV: worker, token, seen, sent (ms, this clock), frugal (0/1), writes (0/1), life ms, number of changes, of rules,
-- of lifts and of flushes, the rules' labels; for each lift: number of a key, or of a rule and negative, and holder;
-- for each flush: rule, hold ms; then, for each change, operation, rule, date and
--   F S  ttl ms (0: none), value                   a Fill, a Store
--   f s  ttl ms, number of fields, field, value …   the same of a hash
--   p    number of fields, field, value …, number of removed fields, field …
--   E    hold ms (0: none)
-- Returns {REJOIN} with nothing done, or {DONE, seq, epoch, ms, an outcome for each change, SCAN or not of each flush}
local id, token, seen, sent = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local frugal, writes, life = ARGV[5] == '1', ARGV[6] == '1', tonumber(ARGV[7])
local changes, rules, lifts, flushes = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])

local names = {'seq', 'epoch', 'floor', 'time', 'generation', 'rotated', 'w:' .. id, 'held', 'barred'}
for rule = 1, rules do
  names[9 + rule] = 't:' .. ARGV[11 + rule]
  names[9 + rules + rule] = 'n:' .. ARGV[11 + rule]
end
local found = call('HMGET', STATE, unpack(names))
local state = {}
for i = 1, 6 do
  state[names[i]] = tonumber(found[i])
  if not state[names[i]] then return {0} end
end
local own, owner = string.match(found[7] or '', '^(%d+) %d+ (.*)$')
if owner ~= token or tonumber(own) < seen then return {0} end
state.held, state.barred = tonumber(found[8]), tonumber(found[9])

-- The holds to write back, with a new one that nobody will end before its time; it outlasts the last one of its kind.
local function held(holds, milliseconds)
  holds = holds or ''
  if milliseconds == 0 then return holds end
  state.held = math.max(state.held or 0, now + milliseconds)
  return string.gsub(holds, ' %d+@%-', '') .. ' ' .. text(now + milliseconds) .. '@-'
end

local lost, ended = doubts(state, life)
if writes or lost then state.seq = state.seq + 1 end
if lost then state.floor = state.seq end

-- Without memory to spare Redis refuses the first write of a script, and then nothing is done; after one that needs
-- none it refuses no more, which is how evictions get through.
if frugal then call('DEL', 'rowtap:none') end
call('HSET', STATE, 'seq', text(state.seq), 'time', text(now),
  'w:' .. id, text(state.seq) .. ' ' .. text(now) .. ' ' .. token)
if lost then bar(state, life) end
if lost or ended then
  rotate(state)
  call('HSET', STATE, 'floor', text(state.floor), 'generation', text(state.generation), 'rotated', text(state.rotated))
end
local current, previous = FENCES .. (state.generation % 2), FENCES .. ((state.generation + 1) % 2)
local stamp = text(state.seq)
local late = now - sent > life / 4 or now < (state.barred or 0)

local p = 12 + rules
local lifted = {}
for _ = 1, lifts do
  local number, holder = tonumber(ARGV[p]), ARGV[p + 1]
  lifted[number] = lifted[number] or {}
  lifted[number][holder] = true
  p = p + 2
end
local table_seq, table_holds, none = {}, {}, {}
for rule = 1, rules do
  none[rule] = found[9 + rules + rule]
  table_seq[rule], table_holds[rule] = fence(found[9 + rule], lifted[-rule])
  if lifted[-rule] then
    call('HSET', STATE, 't:' .. ARGV[11 + rule], text(table_seq[rule]) .. (table_holds[rule] or ''))
  end
end
local scans = {}
for flush = 1, flushes do
  local rule = tonumber(ARGV[p])
  local holds = held(table_holds[rule], tonumber(ARGV[p + 1]))
  p = p + 2
  table_seq[rule] = state.seq
  table_holds[rule] = holds ~= '' and holds or nil
  call('HSET', STATE, 't:' .. ARGV[11 + rule], stamp .. holds)
  local holder = string.match(none[rule] or '', '^(.*) none$')
  scans[flush] = holder and lifted[-rule] and lifted[-rule][holder] and '0' or '1'
end

local function chunks(command, first, list)
  for i = 1, #list, 400 do call(command, first, unpack(list, i, math.min(i + 399, #list))) end
end

local known = {}
for first = 1, #KEYS, 400 do
  local last = math.min(first + 399, #KEYS)
  local new = call('HMGET', current, unpack(KEYS, first, last))
  local old = call('HMGET', previous, unpack(KEYS, first, last))
  for i = 1, last - first + 1 do known[first + i - 1] = new[i] or old[i] end
end

local outcomes, fences, gone = {}, {}, {}

local function write_fence(key, value)
  fences[#fences + 1] = key
  fences[#fences + 1] = value
end

-- The fence as it was before the block; none, if that was for the block alone.
local unused = {}
local function lift_fence(key, seq, holds)
  if seq == 0 and not holds then unused[#unused + 1] = key else write_fence(key, text(seq) .. (holds or '')) end
end

local function fields(from, count)
  local list = {}
  for i = from, from + count - 1 do list[#list + 1] = ARGV[i] end
  return list
end

-- A key of another type is not ours to update: the caller removes it.
local function update(key, set, drop)
  local size = redis.pcall('HLEN', key)
  if type(size) == 'table' or size == 0 then return false end
  chunks('HSET', key, set)
  chunks('HDEL', key, drop)
  return true
end

-- A value was accepted.
local function keep(rule)
  if none[rule] then
    none[rule] = false
    call('HDEL', STATE, 'n:' .. ARGV[11 + rule])
  end
end

-- What becomes of a write whose value is not taken: removed alone, unless another write was newer than its date.
local function removal(seq, rule, date)
  local alone = not late and date >= state.floor and seq <= date and table_seq[rule] <= date
  return alone and 'E' or 'O'
end

for i = 1, changes do
  local key, operation, rule, date = KEYS[i], ARGV[p], tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2])
  local seq, holds = fence(known[i], lifted[i])
  local newest = not late and date >= state.floor and seq <= date and table_seq[rule] <= date
    and not holds and not table_holds[rule]
  p = p + 3
  if operation == 'E' then
    gone[#gone + 1] = key
    write_fence(key, stamp .. held(holds, tonumber(ARGV[p])))
    outcomes[i] = removal(seq, rule, date)
    p = p + 1
  elseif operation == 'p' then
    local count = tonumber(ARGV[p])
    local set = fields(p + 1, 2 * count)
    p = p + 1 + 2 * count
    count = tonumber(ARGV[p])
    local drop = fields(p + 1, count)
    p = p + 1 + count
    if newest and update(key, set, drop) then
      keep(rule)
      outcomes[i] = 'S'
    else
      gone[#gone + 1] = key
      outcomes[i] = removal(seq, rule, date)
    end
    write_fence(key, stamp .. (holds or ''))
  else
    local ttl = tonumber(ARGV[p])
    local fill = operation == 'F' or operation == 'f'
    if newest then keep(rule) end
    if operation == 'F' or operation == 'S' then
      if newest then
        if ttl > 0 then call('SET', key, ARGV[p + 1], 'PX', text(ttl)) else call('SET', key, ARGV[p + 1]) end
      end
      p = p + 2
    else
      local count = tonumber(ARGV[p + 1])
      if newest then
        call('UNLINK', key)
        chunks('HSET', key, fields(p + 2, 2 * count))
        if ttl > 0 then call('PEXPIRE', key, text(ttl)) end
      end
      p = p + 2 + 2 * count
    end
    if fill then
      outcomes[i] = newest and 'F' or 'R'
      if lifted[i] then lift_fence(key, seq, holds) end
    else
      if not newest then gone[#gone + 1] = key end
      outcomes[i] = newest and 'S' or removal(seq, rule, date)
      write_fence(key, stamp .. (holds or ''))
    end
  end
end
for i = changes + 1, #KEYS do
  local seq, holds = fence(known[i], lifted[i])
  lift_fence(KEYS[i], seq, holds)
end
if state.held ~= tonumber(found[8]) then call('HSET', STATE, 'held', text(state.held)) end
chunks('HDEL', current, unused)
chunks('HDEL', previous, unused)
for i = 1, #gone, 400 do call('UNLINK', unpack(gone, i, math.min(i + 399, #gone))) end
chunks('HSET', current, fences)
return {1, state.seq, state.epoch, now, table.concat(outcomes), table.concat(scans)}
"""
)

BLOCK = (
    _COMMON
    + """
-- Remove keys and keep every value from them, until they are lifted or a life has passed. Not a write: no fence is
-- newer for it, so that its holder's own write finds the fences as they would be without it.
-- KEYS: the keys. ARGV: worker, token, seen, life ms, number of rules, label and holder of each, the keys' holders.
-- Returns {REJOIN} with nothing done, or {DONE}.
local id, token, seen, life, rules = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local found = call('HMGET', STATE, 'seq', 'generation', 'w:' .. id, 'held')
local generation = tonumber(found[2])
local own, owner = string.match(found[3] or '', '^(%d+) %d+ (.*)$')
if not found[1] or not generation or owner ~= token or tonumber(own) < seen then return {0} end

-- What Redis has no memory for is the first write of a script; this one needs none.
call('DEL', 'rowtap:none')
local till = now + life
call('HSET', STATE, 'held', text(math.max(tonumber(found[4]) or 0, till)))

local function blocked(value, holder)
  local seq, holds = fence(value, {[holder] = true})
  return text(seq) .. (holds or '') .. ' ' .. text(till) .. '@' .. holder
end

for rule = 1, rules do
  local label, holder = ARGV[4 + 2 * rule], ARGV[5 + 2 * rule]
  call('HSET', STATE, 't:' .. label, blocked(call('HGET', STATE, 't:' .. label), holder))
  call('HSET', STATE, 'n:' .. label, holder)
end
-- Whether these hashes are whole is for APPLY to find out; what is written to the current one outlives a generation.
local current, previous = FENCES .. (generation % 2), FENCES .. ((generation + 1) % 2)
for i = 1, #KEYS do
  local key = KEYS[i]
  local value = call('HGET', current, key) or call('HGET', previous, key)
  call('HSET', current, key, blocked(value, ARGV[5 + 2 * rules + i]))
  call('UNLINK', key)
end
return {1}
"""
)

SCANNED = """
-- The keys of some rules were looked for, and removed, after they were blocked. ARGV: label and holder of each.
redis.call('DEL', 'rowtap:none')
for i = 1, #ARGV, 2 do
  local name, holder = 'n:' .. ARGV[i], ARGV[i + 1]
  if redis.call('HGET', 'rowtap:state', name) == holder then
    redis.call('HSET', 'rowtap:state', name, holder .. ' none')
  end
end
return 1
"""

LEAVE = """
-- A worker ends with nothing left to do. ARGV: worker, token.
local record = redis.call('HGET', 'rowtap:state', 'w:' .. ARGV[1])
if record and string.match(record, '^%d+ %d+ (.*)$') == ARGV[2] then
  redis.call('HDEL', 'rowtap:state', 'w:' .. ARGV[1], 'l:' .. ARGV[1])
end
return 1
"""

PROBE = """
-- Whether Redis lets scripts do what those above do: every command of theirs, what leaves something last. Nothing is
-- left, also where one is refused.
local call, key = redis.call, 'rowtap:none'
call('DEL', key)
call('TIME')
call('HGET', key, 'a')
call('HMGET', key, 'a')
call('HGETALL', key)
call('HLEN', key)
call('HDEL', key, 'a')
call('UNLINK', key)
call('PEXPIRE', key, '1')
call('SET', key, '', 'PX', '1000')
call('DEL', key)
call('HSET', key, 'a', '1')
return call('DEL', key)
"""
