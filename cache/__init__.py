"""What the traffic of a PostgreSQL session means, and what Redis must hold because of it.

Read in this order: ``rules`` (what the operator asked for), ``catalog`` (what the database says of it), ``plans`` (what
a statement would do), ``changes`` (what a statement did), ``transaction`` (when that becomes true), ``backlog`` and
``writer`` (how it reaches Redis). Nothing here knows sockets or sessions; ``proxy`` does.
"""
