-- Find out whether this user may run every command that the other scripts use. Leaves nothing behind, also when one
-- is refused: what creates a key comes last.
--
-- KEYS     none
-- ARGV     none
-- Returns  1, or the error of the first command that is refused

local call, key = redis.call, NO_SUCH_KEY
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
