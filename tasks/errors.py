"""Every error that a person or a disk can cause, in one tree.

DcdctlError                     exit code 1
├── SpecError                   2   a setting is wrong: unknown key, bad value, contradiction
├── DataError                   3   the data is not what the settings say
│   ├── MissingDataError            a folder or file that is named does not exist
│   ├── TargetClassError            a class is too small, missing, or its own surrogate
│   ├── SurrogateError              too few surrogates, or one that is a target
│   ├── QuarantineError             more images are unreadable than the stated share allows
│   ├── ForgottenPersonError        somebody is in the data whom the storage was told to forget
│   └── UnsafePickleError           a file of weights would run code when it is unpickled
├── TrainingError               4   training broke (a loss that is not finite)
│   └── MemoryEndedError            it does not fit into memory
├── AttackError                 5   an attack broke
│   ├── NonFiniteLossError          its loss is not finite
│   └── AccessError                 it asked for more than its threat model grants
├── StoreError                  6   results cannot be read or written
│   ├── StorageLockedError          another process is writing this run
│   ├── DiskFullError               no space is left
│   ├── TrackingError               the tracking server cannot be reached, or refuses
│   ├── UnfinishedRunError          the run exists and is not finished: resume it or start afresh
│   └── ForgottenError              parts of the run were removed: a person was forgotten
├── ClusterError                7   Ray cannot be started or reached
├── FailedTrialsError           8   the sweep ended, and at least one trial failed
├── AlteredDataError            9   a written data set is not what its recipe says
├── ExposedError                10  an audit found at least one identity exposed
├── UndecidedError              11  an audit could not tell, or had nothing to judge by
├── QueryBudgetError            12  the query budget ended before the audit did
├── EndpointError               13  an audited endpoint cannot be reached, or gives no valid scores
├── BudgetReachedError          14  the budget ended a sweep or a comparison before its last trial
└── StillThereError             15  something of a forgotten person is still in the storage

A sentence says what is wrong, which value, and what to do. `assert` is for what only a bug could
break. The command line prints the sentence and exits with the code; Ctrl-C exits with 130.
"""

from __future__ import annotations

from typing import ClassVar


class DcdctlError(Exception):
    """Root of all errors that are not bugs."""

    exit_code: ClassVar[int] = 1


class SpecError(DcdctlError):
    """A setting is wrong."""

    exit_code = 2


class DataError(DcdctlError):
    """The data is not what the settings say."""

    exit_code = 3


class MissingDataError(DataError):
    """A folder or a file that is named does not exist."""


class TargetClassError(DataError):
    """A class is too small, missing, or its own surrogate."""


class SurrogateError(DataError):
    """Too few surrogates, or one that is itself a target."""


class QuarantineError(DataError):
    """More images are unreadable than the stated share allows."""


class ForgottenPersonError(DataError):
    """Somebody is in the data whom the storage was told to forget."""


class UnsafePickleError(DataError):
    """A file of weights asks for more than weights need: unpickling it could run code."""


class TrainingError(DcdctlError):
    """Training broke."""

    exit_code = 4


class MemoryEndedError(TrainingError):
    """Training does not fit into memory, however few rows are worked on at once."""


class AttackError(DcdctlError):
    """An attack broke."""

    exit_code = 5


class NonFiniteLossError(AttackError):
    """The loss of an attack is not finite."""


class AccessError(AttackError):
    """An attack asked for more than its threat model grants."""


class StoreError(DcdctlError):
    """Results cannot be read or written."""

    exit_code = 6


class StorageLockedError(StoreError):
    """Another process is writing this run."""


class DiskFullError(StoreError):
    """No space is left on the storage."""


class TrackingError(StoreError):
    """MLflow cannot be reached, or refuses what it is given; the records are safe."""


class UnfinishedRunError(StoreError):
    """The run exists and is not finished."""


class ForgottenError(StoreError):
    """Parts of a run were removed: a person was forgotten, or it was cleaned."""


class ClusterError(DcdctlError):
    """Ray cannot be started or reached."""

    exit_code = 7


class FailedTrialsError(DcdctlError):
    """The sweep ended, and at least one trial failed."""

    exit_code = 8


class AlteredDataError(DcdctlError):
    """A written data set is not what its recipe says."""

    exit_code = 9


class ExposedError(DcdctlError):
    """An audit found at least one identity exposed."""

    exit_code = 10


class UndecidedError(DcdctlError):
    """An audit could not tell, or had nothing to judge by."""

    exit_code = 11


class QueryBudgetError(DcdctlError):
    """The query budget ended before the audit did."""

    exit_code = 12


class EndpointError(DcdctlError):
    """An audited endpoint cannot be reached, or gives no valid scores."""

    exit_code = 13


class BudgetReachedError(DcdctlError):
    """The budget ended a sweep or a comparison before its last trial."""

    exit_code = 14


class StillThereError(DcdctlError):
    """Something of a person who was forgotten is still in the storage."""

    exit_code = 15
