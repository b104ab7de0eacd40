"""What PostgreSQL would answer to the catalog query, made by hand."""

import json

TYPES = {"int4": 23, "int8": 20, "text": 25}


def payload(*tables, oid=16384, key_type="int8"):
    """The answer of a database with these tables: ``id`` primary key, ``name`` text."""
    columns = [
        {"name": name, "number": number, "type": TYPES[kind], "modifier": -1, "not_null": number == 1,
         "generated": False, "deterministic": True}
        for number, (name, kind) in enumerate((("id", key_type), ("name", "text")), 1)
    ]  # fmt: skip
    relations = [
        {"oid": oid + position, "schema": "public", "name": table, "kind": "r", "rewritten": False, "partition": False,
         "inherited": False, "row_security": False, "triggers": [], "unique": [["id"]], "columns": columns}
        for position, table in enumerate(tables)
    ]  # fmt: skip
    types: list[object] = [
        {"oid": TYPES[kind], "kind": "b", "name": kind, "base": 0, "element": 0, "subtype": None, "attributes": []}
        for kind in (key_type, "text")
    ]
    document = {"relations": relations, "edges": [], "types": types, "homonyms": [], "volatile": [], "harmless": [],
                "float_digits": True, "search_path_default": "public"}  # fmt: skip
    return json.dumps(document).encode().hex().encode()
