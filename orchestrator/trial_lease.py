"""Who works on a trial: a lease with a heartbeat, so that none is worked on twice by mistake.

"Cannot reach" is not "failed". A trial whose process is not reached any more is handed out again
when three signs agree: Ray gave up the call, Ray's table says that its node is dead, and its lease
has not beaten for LEASE_S. Where its own node lives and says that the process died, that is no
guess, and nothing is waited for. A trial that goes on unseen on the far side of a broken link loses
its lease when another one gets it: it stops when it hears that, and what it hands over is refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.halt import interrupted_by
from tasks.errors import ClusterError

BEAT_S, LEASE_S = 2.0, 10.0
"""Seconds between heartbeats, and without one until a lease has run out."""

PATIENCE_S = 90.0
"""After so long a trial is taken over in any case: its old holder can publish nothing any more."""


@dataclass
class Holder:
    """Who holds a trial's lease.

    Attributes:
        token: a name that no other attempt has.
        node: where it runs, as Ray names it.
        beat: when it was last heard of, on the holder of leases' own clock.
    """

    token: str
    node: str
    beat: float


class Leases:
    """The leases of a run's trials; lives beside the driver, in the publisher's process.

    Args:
        clock: seconds; only differences count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._holders: dict[str, Holder] = {}
        self._revoked: set[str] = set()

    def take(self, trial: str, token: str, node: str) -> None:
        """Give a trial's lease to an attempt; whoever had it lost it."""
        before = self._holders.get(trial)
        if before is not None and before.token != token:
            self._revoked.add(before.token)
        self._holders[trial] = Holder(token, node, self._clock())

    def beat(self, trial: str, token: str, node: str) -> bool:
        """Take a heartbeat; False says that the lease is another's.

        After a restart of this process nothing is known, and who beats is taken for the holder.
        """
        if not self.holds(trial, token):
            return False
        self._holders[trial] = Holder(token, node, self._clock())
        return True

    def holds(self, trial: str, token: str) -> bool:
        """Say whether an attempt may publish a trial."""
        holder = self._holders.get(trial)
        return token not in self._revoked and (holder is None or holder.token == token)

    def revoke(self, trial: str) -> None:
        """Take a trial's lease away, before another attempt begins."""
        holder = self._holders.pop(trial, None)
        if holder is not None:
            self._revoked.add(holder.token)

    def quiet(self, trial: str) -> tuple[str, float] | None:
        """Return a holder's node, and the seconds since it was heard of; None where nobody is."""
        holder = self._holders.get(trial)
        return None if holder is None else (holder.node, self._clock() - holder.beat)


@dataclass(frozen=True)
class Signs:
    """What is known of a trial whose call Ray gave up: the first of three signs is that it did.

    Attributes:
        node_lives: what Ray's table says of its node; None where it has no such node.
        died: Ray says that the process died, rather than that it was not reached.
        quiet_s: since its lease was last heard of; None: it never began.
        waited_s: since the call was given up.
    """

    node_lives: bool | None
    died: bool
    quiet_s: float | None
    waited_s: float

    @property
    def gone(self) -> bool:
        """Whether the trial may be handed out again."""
        if self.quiet_s is None or (self.node_lives and self.died):
            return True
        if self.waited_s >= PATIENCE_S:
            return True
        return not self.node_lives and self.quiet_s >= LEASE_S


def signs_of(publisher: Any, trial: str, *, died: bool, waited_s: float) -> Signs:
    """Return what is known of a trial.

    Args:
        publisher: the actor that has the leases.
        trial: its id.
        died: Ray says so.
        waited_s: since then.
    """
    import ray

    found = ray.get(publisher.quiet.options(concurrency_group=BEATS).remote(trial))
    if found is None:
        return Signs(None, died, None, waited_s)
    node, quiet_s = found
    lives = {one["NodeID"]: bool(one["Alive"]) for one in ray.nodes()}.get(node)
    return Signs(lives, died, quiet_s, waited_s)


BEATS = "beats"
"""Concurrency group of the publisher that never waits for the disk."""


@contextmanager
def held(publisher: Any, trial: str, token: str) -> Iterator[None]:
    """Hold a trial's lease, with heartbeats of a thread of its own.

    Raises:
        ClusterError: the lease is another's already.
        TrialStopped: it was taken away in the middle.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    beat = publisher.beat.options(concurrency_group=BEATS)
    if not ray.get(beat.remote(trial, token, node)):
        raise ClusterError("the trial is another process's by now")

    def listen(done: threading.Event) -> bool:
        while not done.wait(BEAT_S):
            with suppress(Exception):  # not reached: the next one may be
                answer = beat.remote(trial, token, node)
                if ray.wait([answer], timeout=LEASE_S)[0] and not ray.get(answer):
                    return True
        return False

    with interrupted_by(listen):
        yield
