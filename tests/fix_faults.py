"""fix_faults placeholder, filled shortly."""
