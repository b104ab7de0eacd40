-- Remove the registration of a worker that ends with nothing left to send.
--
-- KEYS     none
-- ARGV     1 worker's name  2 token of its process
-- Returns  DONE, also when another process has the name by now
-- Rules    docs/ordering.md, "Failures": a worker ends well

local record = redis.call('HGET', STATE, WORKER .. ARGV[1])
if record and string.match(record, '^%d+ %d+ (.*)$') == ARGV[2] then
  redis.call('HDEL', STATE, WORKER .. ARGV[1], LABELS .. ARGV[1])
end
return DONE
