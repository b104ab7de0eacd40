"""Rowtap without fences, to see what they are good for: with this directory on PYTHONPATH, Redis accepts every change.

Python imports a module of this name when it starts. Everything else is as ever: merging in the backlog, one writer a
worker, epochs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from cache.delivery import scripts

_RULE = """  local newest = not late and date >= state.floor and seq <= date and table_seq[rule] <= date
    and not holds and not table_holds[rule]
"""

if scripts.APPLY.count(_RULE) != 1:
    raise RuntimeError("cache/delivery/scripts.py decides in another way now")
scripts.APPLY = scripts.APPLY.replace(_RULE, "  local newest = true\n")
