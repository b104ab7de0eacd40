"""One session's traffic without I/O: which request each answer belongs to, and what both mean for Redis."""
