"""Lets coverage see what runs in threads that the package starts without the module ``threading``.

coverage.py has ``threading`` trace new threads; ``client.sync`` starts its own below that. Imported before the package.
"""

from __future__ import annotations

import _thread
import sys
import threading
from typing import Any

_start = _thread.start_new_thread


def _start_traced(function: Any, arguments: Any, /, *keywords: Any) -> int:
    def traced(*positional: Any, **named: Any) -> None:
        sys.settrace(threading.gettrace())
        function(*positional, **named)

    return _start(traced, arguments, *keywords)


_thread.start_new_thread = _start_traced
