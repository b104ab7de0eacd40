-- Block keys and rules: remove the keys, and refuse every value for them until they are released or a fence's life
-- has passed. Not a write: the fences' counter values stay, so the write that the block is for finds them unchanged.
--
-- KEYS     the keys to block
-- ARGV     1 worker's name  2 token of its process  3 seen: the counter value it was last told  4 life of a fence, ms
--          5 number of rules; then for each rule its label and the block's name; then the block's name for each key
-- Returns  {REJOIN} with nothing done, if Redis does not know this worker, or knows an older counter value of it
--          {DONE}; the keys of the rules are still to be looked for
-- Rules    docs/ordering.md, "Blocks"

-- include common.lua

local id, token, seen, life, rule_count = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local stored = call('HMGET', STATE, 'seq', 'generation', WORKER .. id, 'held')
local generation, held = tonumber(stored[2]), tonumber(stored[4])
local own_seq, _, owner = read_worker(stored[3])
if not stored[1] or not generation or owner ~= token or own_seq < seen then return {REJOIN} end

-- A Redis without free memory refuses a script's first write that needs some, and none after a write that needs none.
call('DEL', NO_SUCH_KEY)
local till = now + life
call('HSET', STATE, 'held', text(math.max(held or 0, till)))

-- The fence with the block added; if it is there already, it is renewed.
local function blocked(fence, name)
  local seq, blocks = read_fence(fence, {[name] = true})
  return text(seq) .. (blocks or '') .. ' ' .. text(till) .. '@' .. name
end

for rule = 1, rule_count do
  local label, name = ARGV[4 + 2 * rule], ARGV[5 + 2 * rule]
  call('HSET', STATE, TABLE_FENCE .. label, blocked(call('HGET', STATE, TABLE_FENCE .. label), name))
  call('HSET', STATE, LAST_BLOCK .. label, name)
end
-- Whether these hashes are complete is for apply.lua to find out. What is written to the current one outlives the
-- generation that begins next.
local current, previous = FENCES .. (generation % 2), FENCES .. ((generation + 1) % 2)
for i = 1, #KEYS do
  local key = KEYS[i]
  local fence = call('HGET', current, key) or call('HGET', previous, key)
  call('HSET', current, key, blocked(fence, ARGV[5 + 2 * rule_count + i]))
  call('UNLINK', key)
end
return {DONE}
