"""What the traffic of a PostgreSQL session means, and what Redis must hold because of it.

Read in this order: ``rules`` (what the operator asked for), ``catalog`` (what the database says of it), ``sql`` (what a
statement would do), ``changes`` (what a statement did), ``capture`` (when that becomes true), ``delivery`` (how it
reaches Redis). Nothing here knows sockets, but for the one to Redis, or sessions; ``proxy`` does.
"""
