"""Sockets, sessions and the process: everything that listens, connects, waits or is typed at a prompt.

Read in this order: ``serve`` (a process begins), ``worker`` (what it is made of), ``server`` and ``connection`` (a
client arrives), ``relay`` (its bytes go back and forth), ``session`` (and are followed). Other modules are commands.
"""
