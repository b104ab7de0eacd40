-- Note that the keys of some rules were looked for, and removed, after they were blocked: a flush that ends such a
-- block need not look again, unless a value was accepted in between.
--
-- KEYS     none
-- ARGV     label of a rule and name of its block, for each rule
-- Returns  DONE
-- Rules    docs/ordering.md, "Blocks": a flush that ends its own block

redis.call('DEL', NO_SUCH_KEY) -- needs no memory, so the writes after it are not refused for want of it
for i = 1, #ARGV, 2 do
  local field, name = LAST_BLOCK .. ARGV[i], ARGV[i + 1]
  -- Gone if a value was accepted, another if another block came.
  if redis.call('HGET', STATE, field) == name then redis.call('HSET', STATE, field, name .. SCANNED) end
end
return DONE
