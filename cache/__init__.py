"""What the traffic of a PostgreSQL session means, and what Redis must hold because of it.

Read in this order:

1. ``rules`` (what the operator configured), ``keys`` (the Redis key of a row), ``changes`` (fill, store, evict, flush),
   ``merging`` (two changes to one key) and ``counts``: what everything below speaks of.
2. ``catalog``: what the database says of the configured tables, and what reaches them.
3. ``sql``: the text of a statement to its plan.
4. ``values``: a value on the wire to the text that Redis holds.
5. ``capture``: plan, rows and outcome to changes, held until they are committed.
6. ``delivery``: changes to Redis, and the scripts that decide about them there.

Nothing here knows sockets or sessions; ``proxy`` does. ``tests/test_layering.py`` has the table of who may import whom.
"""
