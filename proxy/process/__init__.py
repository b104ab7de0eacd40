"""The processes of ``rowtap serve``.

Read in this order: ``serve`` (one worker in this process, or several and a supervisor), ``worker`` (everything one
worker consists of), ``supervisor`` and ``control_channel`` (worker processes, and asking them for their status),
``signals``, ``worker_group`` and ``admin`` (the admin endpoint and its answers), ``readiness`` (whether PostgreSQL can
be reached), ``internal_errors`` (exceptions that no rule expects).
"""
