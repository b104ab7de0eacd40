"""Changes on their way to Redis. Knows the root of ``cache`` and nothing else of it.

Sessions put changes into ``backlog``, where each rule has its queue (``queues``). ``writer`` takes batches out of it
(``batches``, ``packing``) and sends them (``client``, ``connections``) to the Lua scripts that decide what is written
(``scripts``, ``lua/``). Beside that: ``flushes`` and ``scanning`` remove all keys of a rule, ``blocks`` keep keys
absent before a commit, ``own_writes`` dates statements that follow a write of this worker, ``registration`` is how
workers know of each other, and ``faults`` tells a Redis that is out of reach from a fault of our own.
"""
