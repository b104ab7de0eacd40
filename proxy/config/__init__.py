"""Flags, environment and ``config.toml`` to one checked configuration. Imports nothing else of ``proxy``.

Read in this order: ``sections`` (every key, its type, bounds and default), ``units`` (durations, addresses and names),
``table_rules`` (``[[table]]`` entries to rules), ``load`` (where the values come from, and the messages about faults),
``lines`` (the line numbers in these messages).
"""
