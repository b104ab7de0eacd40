"""The other commands: ``check``, ``explain``, ``warm``, ``verify``, and how they read PostgreSQL and Redis."""
