"""What a Redis says of itself by INFO, and what of that is against working with it."""

from __future__ import annotations


def problems(info: dict[str, str]) -> list[str]:
    """What INFO says against working with this server, in words; ``[]`` if nothing."""
    found = []
    valkey = info.get("valkey_version")
    version = _version(valkey or info.get("redis_version", ""))
    if not version:
        found.append("Redis does not say which version it is: Redis 6.2 or Valkey 7.2 or later is needed")
    elif valkey is not None and version < (7, 2):
        found.append(f"Valkey {valkey} is too old: 7.2 or later is needed")
    elif valkey is None and version < (6, 2):
        found.append(f"Redis {info.get('redis_version', '?')} is too old: 6.2 or later is needed")
    if info.get("redis_mode") == "cluster":
        found.append("Redis is in cluster mode, which is not supported: use one primary, with Sentinel if need be")
    if info.get("role") == "slave":
        found.append("Redis is a read-only replica: give the primary's address")
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", "0") != "0":
        if policy == "noeviction":
            found.append("maxmemory-policy is noeviction: when Redis is full, keys are removed but none are written")
        elif policy == "allkeys-random":
            found.append(
                "maxmemory-policy is allkeys-random: when it evicts Rowtap's own keys, all tables are flushed; "
                "allkeys-lru or allkeys-lfu keeps them"
            )
        elif policy.startswith("volatile-"):
            found.append(
                f"maxmemory-policy is {policy}: only keys that have a ttl make room; when none is left, keys are "
                "removed but none are written"
            )
    return found


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def facts_of(reply: bytes) -> dict[str, str]:
    """What INFO answered, by name."""
    facts = {}
    for line in reply.decode(errors="replace").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            facts[name] = value
    return facts
