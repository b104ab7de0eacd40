"""The other commands, a module for each: ``check``, ``explain``, ``warm`` and ``verify``.

They share ``lookup`` (the catalog, fetched over the user's login), ``table_reader`` (the rows of a table, as Redis
should hold them), ``redis_reader`` (what Redis holds) and ``progress``. ``warm`` has ``throttle`` and ``state_file`` of
its own.
"""
