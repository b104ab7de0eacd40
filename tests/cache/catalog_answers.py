"""What PostgreSQL would answer to the catalog query, made by hand."""

import hashlib
import json

TYPES = {"int4": 23, "int8": 20, "text": 25}


def payload(*tables, oid=16384, key_type="int8", other=None):
    """The answer of a database with these tables: ``id`` primary key, ``name`` text. ``other`` are facts that
    replace those."""
    columns = [
        {"name": name, "number": number, "type": TYPES[kind], "modifier": -1, "generated": False,
         "deterministic": True}
        for number, (name, kind) in enumerate((("id", key_type), ("name", "text")), 1)
    ]  # fmt: skip
    relations = [
        {"oid": oid + position, "schema": "public", "name": table, "kind": "r", "rewritten": False, "partition": False,
         "inherited": False, "triggers": [], "rules": [], "unique": [["id"]], "columns": columns}
        for position, table in enumerate(tables)
    ]  # fmt: skip
    types: list[object] = [
        {"oid": TYPES[kind], "kind": "b", "name": kind, "base": 0, "element": 0, "subtype": None, "attributes": []}
        for kind in (key_type, "text")
    ]
    facts = {"relations": relations, "edges": [], "types": types, "homonyms": [], "volatile": [], "harmless": [],
             "float_digits_by_role": False, "started": "1700000000.5"} | (other or {})  # fmt: skip
    return encoded(facts)


def encoded(facts, *, float_digits=True):
    """The answer with these facts."""
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    document = {"digest": digest, "float_digits": float_digits, "facts": facts}
    return json.dumps(document).encode().hex().encode()


def short(payload, *, float_digits=True):
    """The answer of a database in which nothing has changed since ``payload``."""
    document = json.loads(bytes.fromhex(payload.decode()))
    return json.dumps(document | {"facts": None, "float_digits": float_digits}).encode().hex().encode()
