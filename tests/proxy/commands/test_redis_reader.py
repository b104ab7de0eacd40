"""What Redis holds under keys, of every type, and a Redis that cannot be read."""

import pytest

from cache.rules import ValueFormat
from proxy.commands.redis_reader import RedisKeys, WrongType
from proxy.commands.table_reader import ReadFailure
from proxy.config.sections import RedisSection
from proxy.demo.servers import HOST, free_port


async def test_value_is_read_by_format_and_another_type_is_told(redis_url, redis_client):
    redis_client.set("s", b"\x00\xff")
    redis_client.set("empty", "")
    redis_client.hset("h", mapping={"a": "1", "b": ""})
    async with RedisKeys(RedisSection(url=redis_url)) as keys:
        names = [b"s", b"empty", b"h", b"absent"]
        assert await keys.get(names, ValueFormat.STRING) == [b"\x00\xff", b"", WrongType.WRONG_TYPE, None]
        assert await keys.get(names, ValueFormat.JSON) == [b"\x00\xff", b"", WrongType.WRONG_TYPE, None]
        assert await keys.get(names, ValueFormat.HASH) == [
            WrongType.WRONG_TYPE,
            WrongType.WRONG_TYPE,
            {b"a": b"1", b"b": b""},
            None,
        ]
        assert await keys.exist(names) == [True, True, True, False]
        assert await keys.get([], ValueFormat.STRING) == []


async def test_scan_returns_every_key_of_a_pattern_and_no_other(redis_url, redis_client):
    redis_client.mset({f"users:{number}": "x" for number in range(2500)} | {"other:1": "x"})
    async with RedisKeys(RedisSection(url=redis_url)) as keys:
        slices = [found async for found in keys.scan(b"users:*")]
        assert {key for found in slices for key in found} == {b"users:%d" % number for number in range(2500)}
        assert [found async for found in keys.scan(b"nothing:*")] == []


async def test_redis_that_cannot_be_reached_is_a_failure_without_the_password():
    url = f"redis://:geheim@{HOST}:{free_port()}/0"
    with pytest.raises(ReadFailure) as caught:
        await RedisKeys(RedisSection(url=url)).__aenter__()
    assert str(caught.value).startswith(f"Redis at redis://:***@{HOST}:")
    assert "geheim" not in str(caught.value)


async def test_command_that_redis_refuses_is_a_failure(redis_url, redis_client):
    redis_client.acl_setuser("guest", enabled=True, nopass=True, commands=["-@all", "+select", "+client"], keys=["*"])
    try:
        url = redis_url.replace("://", "://guest:x@")
        async with RedisKeys(RedisSection(url=url)) as keys:
            with pytest.raises(ReadFailure, match=r"permission|NOPERM"):
                await keys.exist([b"a"])
    finally:
        redis_client.acl_deluser("guest")


async def test_redis_that_goes_away_is_a_failure_of_one_line(redis_url, valkey):
    async with RedisKeys(RedisSection(url=redis_url)) as keys:
        valkey.kill()
        with pytest.raises(ReadFailure, match="cannot be read") as caught:
            await keys.exist([b"a"])
    assert "\n" not in str(caught.value)
