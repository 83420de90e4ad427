"""What becomes of a trial whose work broke off: again, a failed record, or the end of the sweep.

Ray Tune would run every trial again that raised, whatever it raised. Here the cause decides, and
what is tried again is counted: for each trial, and for the whole sweep.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Literal

from PIL import UnidentifiedImageError
from pydantic import Field

import tasks.errors
from tasks.errors import ClusterError, DataError, DcdctlError, DiskFullError, StoreError
from tasks.spec import Spec

RETRIES = 2
"""Times that a trial is run again after trouble of the machines, where no setting says another."""

LEAST_IN_ALL = 10
SHARE_IN_ALL = 0.25
"""Of a whole sweep, where no setting says another: so many, or this share of its trials. More is
not bad luck but a cluster that does not work."""

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
"""Numbers of the errors of a disk that running again does not mend."""

Failure = Literal["preempted", "machines", "storage", "data", "trial"]


def classify(error: BaseException) -> Failure:
    """Return whose fault an error in a trial is.

    Args:
        error: what was raised; what Ray wraps is looked into.

    Returns:
        preempted: the cluster took the node back, with notice; it is run again, and that is free.
        machines: a node, a process or a connection died; it is run again, within a budget.
        storage: nothing can be written; running again would not help, so the sweep ends.
        data: an image or a class is not what the settings say; running it again gives the same.
            What cannot be decoded was set aside long before a trial began.
        trial: the setting or a bug; likewise. Of both the record says "failed" and why.
    """
    from ray.exceptions import RayActorError, RayError, RayTaskError

    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return classify(error.cause)
    if isinstance(error, RayActorError) and error.preempted:
        return "preempted"
    if isinstance(error, StoreError):
        return "storage"
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return "storage"
    if isinstance(error, DataError | UnidentifiedImageError):
        return "data"
    if isinstance(error, ClusterError | RayError | ConnectionError | TimeoutError):
        return "machines"
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return "machines"
    return "trial"


def sentence(error: BaseException) -> str:
    """Return what a failed record says of an error."""
    if isinstance(error, DcdctlError):
        return str(error)
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"unexpected {type(error).__name__}: {first}"


class Broken(Spec):
    """What a process tells the driver of a trial that gave no record."""

    failure: Failure
    kind: str
    died: bool = Field(False, description="Ray says that its process died.")
    sentence: str

    @classmethod
    def of(cls, error: BaseException) -> Broken:
        """Return what is told of an error."""
        from ray.exceptions import RayTaskError

        if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
            return cls.of(error.cause)
        failure, kind = classify(error), type(error).__name__
        if failure == "storage" and not isinstance(error, StoreError):
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            kind = (DiskFullError if full else StoreError).__name__
        return cls(failure=failure, kind=kind, died=_died(error), sentence=_short(error))

    def error(self) -> DcdctlError:
        """Return it as an error of ours again."""
        found = getattr(tasks.errors, self.kind, None)
        if isinstance(found, type) and issubclass(found, DcdctlError):
            return found(self.sentence)
        return ClusterError(self.sentence)


def _died(error: BaseException) -> bool:
    from ray.exceptions import ActorDiedError, NodeDiedError, WorkerCrashedError

    return isinstance(error, ActorDiedError | NodeDiedError | WorkerCrashedError)


def _short(error: BaseException) -> str:
    """Return one line of an error; Ray tells of a lost process in many."""
    from ray.exceptions import RayActorError

    if isinstance(error, DcdctlError):
        return str(error)
    if isinstance(error, RayActorError) and error.preempted:
        return "its node was taken back, with notice"
    if isinstance(error, RayActorError):
        lines = [line.strip() for line in str(error).splitlines()]
        told = [line for line in lines[1:] if line and not _is_field(line)]
        return f"its process died: {told[0]}" if told else "its process died"
    return sentence(error)


def _is_field(line: str) -> bool:
    """Say whether a line is one of those like `pid: 12` that Ray puts before the reason."""
    return line.split(":")[0] in {
        "class_name",
        "actor_id",
        "pid",
        "name",
        "namespace",
        "ip",
    }


Verdict = Literal["again", "give up", "end"]


@dataclass(frozen=True)
class Lost:
    """A trial that gave no record, and what becomes of it."""

    trial_id: str
    index: int
    broken: Broken
    verdict: Verdict


class RetryBudget:
    """How often trials may be run again after trouble of the machines.

    Args:
        trials: of the sweep.
        each: times that one trial is run again.
        in_all: times in the whole sweep; None is the larger of LEAST_IN_ALL and SHARE_IN_ALL.

    Attributes:
        spent: times that something was run again at the budget's cost.
        free: times that something was run again after a preemption.
    """

    def __init__(self, trials: int, each: int = RETRIES, in_all: int | None = None) -> None:
        self.each = each
        self.in_all = max(LEAST_IN_ALL, int(SHARE_IN_ALL * trials)) if in_all is None else in_all
        self.spent = 0
        self.free = 0
        self._of: dict[str, int] = {}

    def lost(self, trial: str, failure: Failure) -> Verdict:
        """Take a trial that gave no record.

        Args:
            trial: its id.
            failure: whose fault that is.

        Returns:
            again: run it once more. give up: not in this sitting, and the others go on. end: none
            is started any more.
        """
        if failure == "preempted":
            self.free += 1
            return "again"
        if failure == "storage":
            return "end"
        if failure != "machines" or self._of.get(trial, 0) >= self.each:
            return "give up"
        if self.spent >= self.in_all:
            return "end"
        self.spent += 1
        self._of[trial] = self._of.get(trial, 0) + 1
        return "again"

    @property
    def said(self) -> str:
        """What a person is told when the budget of the whole sweep is spent."""
        return (
            f"trials were run again {self.spent} times after trouble of the machines, which is all "
            f"that compute.sweep_retries={self.in_all} allows; look at the cluster, and --resume"
        )
