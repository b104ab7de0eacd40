"""One session's traffic, without I/O: which request each answer belongs to, and what both mean for Redis.

Read in this order: ``session`` (the bytes of both directions), ``requests`` and ``pipeline`` (what the server has not
answered yet), ``replies``, ``names`` and ``prepared`` (prepared statements and portals), ``fast_path`` (the short way
of most statements), ``commit_gate`` (keys removed before a commit).
"""
