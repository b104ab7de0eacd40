"""Plan, rows and outcome to changes: what a session's statements did, once that is certain. Imports ``cache.sql`` and
``cache.values``."""
