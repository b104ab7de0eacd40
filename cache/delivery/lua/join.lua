-- Register a worker, or say that it is alive; each worker calls this at its start and every few seconds.
--
-- Finds out whether this is still the Redis that the worker knew (if not, a new epoch begins), which of its rules
-- mean something else than before, and which workers died.
--
-- KEYS     none
-- ARGV     1 worker's name  2 token of its process  3 seen: the counter value it was last told
--          4 1 if it believes that it is registered  5 run_id of this Redis, '' if not known
--          6 lease, ms: a worker that was silent for longer is dead  7 life of a fence, ms
--          then, for each of its rules: label, definition
-- Returns  {REJOIN} with nothing done, if another living process has this name
--          {DONE, counter, epoch, time in ms, {labels with another definition}, {labels of dead workers}}
-- Rules    docs/ordering.md, "Failures": new epochs, workers that died, rules that change their meaning;
--          "Time": silences and clocks that went back

-- include common.lua

local id, token, seen, registered = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local run_id, lease, life = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local FIRST_RULE = 8

local stored = {}
local flat = call('HGETALL', STATE)
for i = 1, #flat, 2 do stored[flat[i]] = flat[i + 1] end
local state = {}
local complete = true
for _, name in ipairs({'seq', 'epoch', 'floor', 'time', 'generation', 'rotated'}) do
  state[name] = tonumber(stored[name])
  complete = complete and state[name] ~= nil
end

local own_seq, _, owner = read_worker(stored[WORKER .. id])
if registered and owner and owner ~= token then return {REJOIN} end

-- A Redis without free memory refuses a script's first write that needs some, and none after a write that needs none.
-- What follows is small and must not be refused, so a write that needs no memory goes first.
call('DEL', NO_SUCH_KEY)

-- A worker that enters an epoch of which it was told nothing yet flushes its tables, so it makes no difference what it
-- knew of an earlier Redis. One that was told a counter value of this epoch must still be known with that value.
local data_lost = not complete or state.seq < seen or (run_id ~= '' and stored.run ~= run_id)
  or (registered and (not own_seq or own_seq < seen) and seen >= state.epoch)
if data_lost then
  -- Above every counter value that any worker was told before: counters start at the clock's microseconds, and no
  -- Redis applies that many batches.
  local seq = math.max(state.seq or 0, seen, now_us) + 1
  state = {seq = seq, epoch = seq, floor = seq, time = now, generation = state.generation or 1, rotated = now}
  call('UNLINK', FENCES .. '0', FENCES .. '1')
  rotate_fences(state)
  -- A rule that no worker has now is flushed by the worker that has it when it joins: its definition is new then.
  for name in pairs(stored) do
    local prefix = string.sub(name, 1, 2)
    if prefix == DEFINITION or prefix == LAST_BLOCK then
      call('HDEL', STATE, name)
      stored[name] = nil
    end
  end
else
  local fences_missing, generation_over = check_fences(state, life)
  if fences_missing then
    state.seq = state.seq + 1
    state.floor = state.seq
    refuse_values_if_blocks_ran({held = tonumber(stored.held), time = state.time}, life)
  end
  if fences_missing or generation_over then rotate_fences(state) end
end

local is_own_rule, labels, changed = {}, {}, {}
for i = FIRST_RULE, #ARGV, 2 do
  local label, definition = ARGV[i], ARGV[i + 1]
  is_own_rule[label] = true
  labels[#labels + 1] = label
  if stored[DEFINITION .. label] ~= definition then
    changed[#changed + 1] = label
    call('HSET', STATE, DEFINITION .. label, definition)
    call('HDEL', STATE, LAST_BLOCK .. label)
  end
end
call('HSET', STATE, 'run', run_id, 'seq', text(state.seq), 'epoch', text(state.epoch), 'floor', text(state.floor),
  'time', text(now), 'generation', text(state.generation), 'rotated', text(state.rotated),
  WORKER .. id, worker_record(state.seq, token))

-- Workers whose lease is over, and an earlier process of this name: this worker flushes their tables, if it has them.
local orphans, is_orphan = {}, {}
for name, record in pairs(stored) do
  if string.sub(name, 1, 2) == WORKER then
    local other = string.sub(name, 3)
    local _, at, other_token = read_worker(record)
    local dead = other ~= id and now - (at or 0) > lease
    if other == id then dead = other_token ~= token end
    if dead then
      local not_ours = {}
      for _, label in ipairs(split(stored[LABELS .. other] or '', '\n')) do
        if not is_own_rule[label] then
          not_ours[#not_ours + 1] = label
        elseif not is_orphan[label] then
          is_orphan[label] = true
          orphans[#orphans + 1] = label
        end
      end
      if #not_ours > 0 then
        -- These wait, under a registration that stays dead, for a worker that has their rules.
        local heir = other == id and (other .. '/' .. other_token) or other
        call('HSET', STATE, WORKER .. heir, record, LABELS .. heir, table.concat(not_ours, '\n'))
      elseif other ~= id then
        call('HDEL', STATE, WORKER .. other, LABELS .. other)
      end
    end
  end
end
call('HSET', STATE, LABELS .. id, table.concat(labels, '\n'))
return {DONE, state.seq, state.epoch, now, changed, orphans}
