-- Apply a batch: changes of distinct keys, flushes of rules, and releases of blocks, in one step.
--
-- KEYS     the keys of the changes, then those that are only released; all different
-- ARGV     1 worker's name  2 token of its process  3 seen: the counter value it was last told
--          4 when it sent this, ms of this clock  5 1 if Redis has no memory to spare: nothing is written then
--          6 1 if the batch has a write  7 life of a fence, ms
--          8 number of changes  9 of rules  10 of releases  11 of flushes
--          then the label of each rule (rules are numbered from 1 in what follows);
--          for each release: the number of a key, or of a rule with a minus, and the block's name;
--          for each flush: rule, and how long the write may still be committed, ms (0: it is certain);
--          for each change: operation, rule, seq (its date), and
--            FILL_VALUE, STORE_VALUE   TTL in ms (0: none), value
--            FILL_HASH, STORE_HASH     TTL in ms (0: none), number of fields, field, value, …
--            UPDATE_HASH               number of fields, field, value, …, number of removed fields, field, …
--            EVICT_KEY                 how long the write may still be committed, ms (0: it is certain)
-- Returns  {REJOIN} with nothing done, if Redis does not know this worker, or knows an older counter value of it
--          {DONE, counter, epoch, time in ms, an outcome for each change, SCAN or NO_SCAN for each flush}
-- Rules    docs/ordering.md, "Dates and fences", "Blocks", "Time", and of "Failures" a Redis that is full

-- include common.lua

local id, token, seen, sent = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local out_of_memory, has_write, life = ARGV[5] == '1', ARGV[6] == '1', tonumber(ARGV[7])
local change_count, rule_count = tonumber(ARGV[8]), tonumber(ARGV[9])
local release_count, flush_count = tonumber(ARGV[10]), tonumber(ARGV[11])
local function label(rule) return ARGV[11 + rule] end
local at = 12 + rule_count -- where the next argument is read

-- What is known of this worker, of its batch's rules, and of fences.

local names = {'seq', 'epoch', 'floor', 'time', 'generation', 'rotated', WORKER .. id, 'held', 'barred'}
local NUMBERS, FIXED = 6, #names
for rule = 1, rule_count do
  names[FIXED + rule] = TABLE_FENCE .. label(rule)
  names[FIXED + rule_count + rule] = LAST_BLOCK .. label(rule)
end
local stored = call('HMGET', STATE, unpack(names))
local state = {}
for i = 1, NUMBERS do
  state[names[i]] = tonumber(stored[i])
  if not state[names[i]] then return {REJOIN} end
end
local own_seq, _, owner = read_worker(stored[7])
if owner ~= token or own_seq < seen then return {REJOIN} end
local stored_held = tonumber(stored[8])
state.held, state.barred = stored_held, tonumber(stored[9])

local fences_missing, generation_over = check_fences(state, life)
if has_write or fences_missing then state.seq = state.seq + 1 end
if fences_missing then state.floor = state.seq end

-- A Redis without free memory refuses a script's first write that needs some, and then nothing is done. After a write
-- that needs none it refuses no more: this is how removals get through.
if out_of_memory then call('DEL', NO_SUCH_KEY) end
call('HSET', STATE, 'seq', text(state.seq), 'time', text(now), WORKER .. id, worker_record(state.seq, token))
if fences_missing then refuse_values_if_blocks_ran(state, life) end
if fences_missing or generation_over then
  rotate_fences(state)
  call('HSET', STATE, 'floor', text(state.floor), 'generation', text(state.generation), 'rotated', text(state.rotated))
end
local current, previous = FENCES .. (state.generation % 2), FENCES .. ((state.generation + 1) % 2)
local new_fence = text(state.seq)
-- The batch was under way for so long that fences may have ended which it would need, or no value is accepted now.
local late = now - sent > life / 4 or now < (state.barred or 0)

-- `blocks` as they are to be stored, with one more for a write that may still be committed. It belongs to no session,
-- so nothing releases it; it replaces one of its kind that ends earlier.
local function add_unowned_block(blocks, milliseconds)
  blocks = blocks or ''
  if milliseconds == 0 then return blocks end
  state.held = math.max(state.held or 0, now + milliseconds)
  return string.gsub(blocks, ' %d+@%' .. UNOWNED, '') .. ' ' .. text(now + milliseconds) .. '@' .. UNOWNED
end

-- Releases and flushes of rules.

local released = {} -- by number of the key or, negative, of the rule: the names of blocks
for _ = 1, release_count do
  local number, name = tonumber(ARGV[at]), ARGV[at + 1]
  released[number] = released[number] or {}
  released[number][name] = true
  at = at + 2
end

local table_seq, table_blocks, last_block = {}, {}, {}
for rule = 1, rule_count do
  table_seq[rule], table_blocks[rule] = read_fence(stored[FIXED + rule], released[-rule])
  last_block[rule] = stored[FIXED + rule_count + rule]
  if released[-rule] then
    call('HSET', STATE, TABLE_FENCE .. label(rule), text(table_seq[rule]) .. (table_blocks[rule] or ''))
  end
end

local scans = {}
for flush = 1, flush_count do
  local rule = tonumber(ARGV[at])
  local blocks = add_unowned_block(table_blocks[rule], tonumber(ARGV[at + 1]))
  at = at + 2
  table_seq[rule] = state.seq
  table_blocks[rule] = blocks ~= '' and blocks or nil
  call('HSET', STATE, TABLE_FENCE .. label(rule), new_fence .. blocks)
  -- The keys need not be looked for if that was done for the block that ends here, and no value was accepted since.
  local name = last_block[rule] and string.match(last_block[rule], '^(.*)' .. SCANNED .. '$')
  scans[flush] = name and released[-rule] and released[-rule][name] and NO_SCAN or SCAN
end

-- Fences of the keys.

-- A command for a list of any length: Lua passes a few thousand arguments at most.
local function call_in_parts(command, first, list)
  for i = 1, #list, 400 do call(command, first, unpack(list, i, math.min(i + 399, #list))) end
end

local known = {}
for first = 1, #KEYS, 400 do
  local last = math.min(first + 399, #KEYS)
  local newer = call('HMGET', current, unpack(KEYS, first, last))
  local older = call('HMGET', previous, unpack(KEYS, first, last))
  for i = 1, last - first + 1 do known[first + i - 1] = newer[i] or older[i] end
end

-- What is to be written at the end.
local fences, unused_fences, removed_keys = {}, {}, {}

local function set_fence(key, value)
  fences[#fences + 1] = key
  fences[#fences + 1] = value
end

-- The fence as it was before the block; none, if it was there for the block alone.
local function restore_fence(key, seq, blocks)
  if seq == 0 and not blocks then
    unused_fences[#unused_fences + 1] = key
  else
    set_fence(key, text(seq) .. (blocks or ''))
  end
end

local function arguments(from, count)
  local list = {}
  for i = from, from + count - 1 do list[#list + 1] = ARGV[i] end
  return list
end

-- Set and delete fields of a hash that is there. False if there is none, or a value of another type.
local function update_hash(key, set, deleted)
  local size = redis.pcall('HLEN', key)
  if type(size) == 'table' or size == 0 then return false end
  call_in_parts('HSET', key, set)
  call_in_parts('HDEL', key, deleted)
  return true
end

-- A value of the rule was accepted, so its next flush must look for keys again.
local function note_value(rule)
  if last_block[rule] then
    last_block[rule] = false
    call('HDEL', STATE, LAST_BLOCK .. label(rule))
  end
end

-- The changes.

local outcomes = {}
for i = 1, change_count do
  local key, operation, rule, seq = KEYS[i], ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local fence_seq, blocks = read_fence(known[i], released[i])
  -- No other write of the key, or of the whole table, may be newer than the statement's date.
  local alone = not late and seq >= state.floor and fence_seq <= seq and table_seq[rule] <= seq
  local accepted = alone and not blocks and not table_blocks[rule]
  local removed = alone and REMOVED or OVERLAPPED -- the outcome of a write whose value is not taken
  at = at + 3
  if operation == EVICT_KEY then
    removed_keys[#removed_keys + 1] = key
    set_fence(key, new_fence .. add_unowned_block(blocks, tonumber(ARGV[at])))
    outcomes[i] = removed
    at = at + 1
  elseif operation == UPDATE_HASH then
    local count = tonumber(ARGV[at])
    local set = arguments(at + 1, 2 * count)
    at = at + 1 + 2 * count
    count = tonumber(ARGV[at])
    local deleted = arguments(at + 1, count)
    at = at + 1 + count
    if accepted and update_hash(key, set, deleted) then
      note_value(rule)
      outcomes[i] = STORED
    else
      removed_keys[#removed_keys + 1] = key
      outcomes[i] = removed
    end
    set_fence(key, new_fence .. (blocks or ''))
  else
    local ttl = tonumber(ARGV[at])
    if accepted then note_value(rule) end
    if operation == FILL_VALUE or operation == STORE_VALUE then
      if accepted then
        if ttl > 0 then call('SET', key, ARGV[at + 1], 'PX', text(ttl)) else call('SET', key, ARGV[at + 1]) end
      end
      at = at + 2
    else
      local count = tonumber(ARGV[at + 1])
      if accepted then
        call('UNLINK', key)
        call_in_parts('HSET', key, arguments(at + 2, 2 * count))
        if ttl > 0 then call('PEXPIRE', key, text(ttl)) end
      end
      at = at + 2 + 2 * count
    end
    if operation == FILL_VALUE or operation == FILL_HASH then
      outcomes[i] = accepted and FILLED or REFUSED
      if released[i] then restore_fence(key, fence_seq, blocks) end
    else
      if not accepted then removed_keys[#removed_keys + 1] = key end
      outcomes[i] = accepted and STORED or removed
      set_fence(key, new_fence .. (blocks or ''))
    end
  end
end
for i = change_count + 1, #KEYS do
  restore_fence(KEYS[i], read_fence(known[i], released[i]))
end

if state.held ~= stored_held then call('HSET', STATE, 'held', text(state.held)) end
call_in_parts('HDEL', current, unused_fences)
call_in_parts('HDEL', previous, unused_fences)
for i = 1, #removed_keys, 400 do call('UNLINK', unpack(removed_keys, i, math.min(i + 399, #removed_keys))) end
call_in_parts('HSET', current, fences)
return {DONE, state.seq, state.epoch, now, table.concat(outcomes), table.concat(scans)}
