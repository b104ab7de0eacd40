"""Sockets: a client arrives, PostgreSQL is connected to, bytes are relayed both ways and shown to an observer.

Read in this order: ``listeners`` and ``server`` (accept), ``client_connection`` and ``startup`` (a client's first
bytes), ``backend_connection`` and ``tls`` (the way to PostgreSQL), ``relay`` (both connections of a session),
``observer`` (whom the bytes are shown to), ``exchange`` (a question of Rowtap's own over a client's session).
"""
