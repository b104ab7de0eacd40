"""The proxy: sockets, sessions, configuration, processes and commands.

Read in this order:

1. ``cli``: the commands and their flags. ``config`` makes one checked ``Config`` of flags, environment and file.
2. ``process``: ``rowtap serve``. ``process.worker`` puts one worker together: everything below, ``cache`` included.
3. ``net``: a client arrives, PostgreSQL is connected to, and bytes are relayed both ways.
4. ``session``: the relayed bytes of one session are followed: which answer belongs to which request, and which plan.
5. ``metrics`` and ``logs``: what is counted and logged about it. ``admin_client`` reads what the admin endpoint says.
6. ``commands`` and ``demo``: the other commands.

``tests/test_layering.py`` has the table of which of them may import which.
"""
