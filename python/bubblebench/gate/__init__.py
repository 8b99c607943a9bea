"""The gate: a big training job opens and closes the times in which a small model may work, by a page that both share.

>>> from bubblebench import gate
>>> main = gate.Main("/dev/shm/stage-3")          # doctest: +SKIP
>>> main.open(8_000_000); main.close()            # doctest: +SKIP

and in the small model's process

>>> with gate.Side("/dev/shm/stage-3") as side:   # doctest: +SKIP
...     while side.go(need_ns=300_000):
...         step()
...         side.done()

Either end may be a Rust program: the page is the same (``src/corun/gate``).

============  =====================================================
file          part
============  =====================================================
``main``      the big model's end
``side``      the small model's end
``status``    what somebody who looks on sees
``protocol``  what both ends read and write, in which order
``page``      the layout, and how it is mapped
``lock``      locks of the file's bytes; ``process``: who lives
``ends``      what becomes of ends in a fork and at exit
``system``    futex and fence
``arguments`` what callers may give; ``errors``: what can go wrong
============  =====================================================
"""

from .errors import GateError, LeaseLost, NeverFits
from .main import MARGIN_NS, Main
from .protocol import LEASE_NS
from .side import Side
from .status import status

__all__ = ["GateError", "LEASE_NS", "LeaseLost", "MARGIN_NS", "Main", "NeverFits", "Side", "status"]
