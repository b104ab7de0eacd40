"""fix_proxy placeholder, filled shortly."""
