"""``config.toml``, the environment and flags to one checked configuration. Imports nothing else of ``proxy``."""
