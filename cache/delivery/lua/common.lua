-- Included by the scripts that read fences: Redis's clock, the parts of a fence, and the two generations of fences.
--
-- cache/delivery/scripts.py puts this file where a script says `-- include common.lua`, and defines the names in
-- capitals: the names and codes that Python uses too. docs/ordering.md, "What Redis holds", describes the data.

local call = redis.call
local clock = call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now = math.floor(now_us / 1000) -- milliseconds, as every other time here

-- Lua itself would print a large counter value with an exponent.
local function text(number) return string.format('%.0f', number) end

local function split(list, separator)
  local parts = {}
  for part in string.gmatch(list, '[^' .. separator .. ']+') do parts[#parts + 1] = part end
  return parts
end

-- A worker's registration: the counter value it was last told, when (ms), and the token of the process.
local function read_worker(record)
  local seq, at, token = string.match(record or '', '^(%d+) (%d+) (.*)$')
  return tonumber(seq), tonumber(at), token
end

local function worker_record(seq, token) return text(seq) .. ' ' .. text(now) .. ' ' .. token end

-- A fence's counter value (0: no write is known), and the blocks on it that still run, as text, or nil if there are
-- none. A block runs until its time, unless its name is in `released`.
local function read_fence(value, released)
  if not value then return 0, nil end
  local seq = tonumber(value)
  if seq then return seq, nil end -- the usual case: no block
  local parts = split(value, ' ')
  local blocks
  for i = 2, #parts do
    local till, name = string.match(parts[i], '^(%d+)@(.*)$')
    till = tonumber(till)
    if not (released and released[name or '']) and (not till or till > now) then
      blocks = (blocks or '') .. ' ' .. parts[i]
    end
  end
  return tonumber(parts[1]) or math.huge, blocks -- what cannot be read counts as newer than everything
end

-- Two answers: whether fences may be missing that earlier statements would need, and whether a new generation is due.
-- Every worker calls once in a few seconds. A longer silence means that Redis stood still or its clock jumped; then
-- fences have aged, or will end, sooner than statements know of.
local function check_fences(state, life)
  local went_back = now < state.rotated - 5000
  local silent = now - state.time > life / 2
  local current = call('HGET', FENCES .. (state.generation % 2), WHOLE)
  local previous = call('HGET', FENCES .. ((state.generation + 1) % 2), WHOLE)
  local evicted = tonumber(current) ~= state.generation or tonumber(previous) ~= state.generation - 1
  return went_back or silent or evicted, went_back or now - state.rotated >= life
end

-- With missing fences, blocks may be missing that still ran, and with them the reason why a value must not come yet.
-- If any could run (`held` is when the last one ends), no value is accepted for a fence's life (`barred`).
local function refuse_values_if_blocks_ran(state, life)
  if (state.held or 0) > state.time then
    state.barred = now + life
    call('HSET', STATE, 'barred', text(state.barred))
  end
end

-- Begin a generation: its hash replaces the one before last.
local function rotate_fences(state)
  state.generation = state.generation + 1
  state.rotated = now
  local fresh = FENCES .. (state.generation % 2)
  call('UNLINK', fresh)
  call('HSET', fresh, WHOLE, text(state.generation))
  -- Also right if the previous generation is missing: dates below `floor` are refused, so nothing needs it any more.
  call('HSET', FENCES .. ((state.generation + 1) % 2), WHOLE, text(state.generation - 1))
end
