"""SQL text to plan: which rows a statement reads or writes, and what it shall do to Redis.

Imports ``cache.catalog``.
"""
