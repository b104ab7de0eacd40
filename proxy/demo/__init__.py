"""``rowtap demo``: a short scripted session through the proxy, between embedded servers.

``session`` is the demo. ``servers`` starts PostgreSQL and Valkey, also for the tests; ``server_process`` is what such
servers have in common; ``reaper`` cleans up after a process that was killed.
"""
