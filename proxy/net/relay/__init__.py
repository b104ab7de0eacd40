"""One session between its two connections: what is forwarded when, what is looked at, and how it ends."""
