"""Sockets: a client arrives, PostgreSQL is reached, bytes go back and forth and are shown to an observer."""
