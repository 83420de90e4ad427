"""A wall clock that a test can move: what Python code of every process sees by `time.time`.

Python imports this by its name when the folder is on PYTHONPATH. The monotonic clock goes on as it
does when a real machine's time is set.
"""

import os
import time

_FILE = os.environ.get("CHAOS_CLOCK")

if _FILE:
    _real, _real_ns = time.time, time.time_ns

    def _offset() -> float:
        try:
            with open(_FILE) as file:  # type: ignore[arg-type]
                return float(file.read() or 0)
        except (OSError, ValueError):
            return 0.0

    def _time() -> float:
        return _real() + _offset()

    def _time_ns() -> int:
        return _real_ns() + int(_offset() * 1e9)

    time.time, time.time_ns = _time, _time_ns
