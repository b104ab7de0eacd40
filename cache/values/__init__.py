"""A value on the wire, text or binary, to the canonical text that Redis holds. Imports ``cache.catalog``."""
