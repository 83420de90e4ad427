"""The embedded Ray ends without taking the process along."""

from __future__ import annotations

import subprocess
import sys

GARBAGE_ON_ANOTHER_THREAD = """
import threading, time
from clusters.embedded import embedded_ray

class Cycle:
    pass

def litter(references):
    while references:
        cycle = Cycle()
        cycle.itself, cycle.reference = cycle, references.pop()

with embedded_ray(1):
    import ray
    kept = [ray.put(i) for i in range(50)]
    references = [type(kept[0])(kept[i % 50].binary()) for i in range(400_000)]
    threading.Thread(target=litter, args=(references,), daemon=True).start()
    time.sleep(0.01)
print("still here")
"""


def test_garbage_that_holds_references_does_not_end_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GARBAGE_ON_ANOTHER_THREAD],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "still here\n"
