"""Ray on this machine for the length of one command: quiet, on loopback, without telemetry."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from clusters.held_folders import held_folder
from clusters.lost_ray import sentence_if_ray_dies
from clusters.token import own_token
from tasks.errors import ClusterError

WORKER_ENV = {
    # One thread a process: two threads each on two cores collapse the throughput.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_AIR_NEW_OUTPUT": "0",
    # What asks for no GPU sees none: it would otherwise take memory on one that others hold.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}

DRIVER_ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


LOCAL_ENV = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
"""Processes that train together on this machine alone talk over the loopback address."""

CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's switch, whatever the system: without clusters it listens on the loopback address alone."""

NOT_FOR_WORKERS = (
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    "PGPASSWORD",
)
"""Secrets that the driver alone uses; a process of Ray inherits the driver's environment."""

IN_A_JOB = "DCDCTL_IN_A_JOB"
"""Environment variable of a process that a cluster runs as a job: it uses that cluster."""


@contextmanager
def _joined() -> Iterator[None]:
    """Use the cluster that this process is a job of; it goes on afterwards."""
    import ray

    try:
        ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ClusterError(f"the job cannot join its own cluster ({reason})") from error
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    from ray.data import DataContext

    DataContext.get_current().enable_progress_bars = False
    try:
        with _sigterm_interrupts():
            yield
    finally:
        with _no_collection():
            ray.shutdown()


@contextmanager
def embedded_ray(cpus: int | None = None) -> Iterator[None]:
    """Start an embedded Ray and stop it afterwards; a Ray that runs already is used as it is.

    Args:
        cpus: cores that it may use; None takes all.

    Raises:
        ClusterError: Ray does not start.
    """
    for name, value in DRIVER_ENV.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    if os.environ.get(IN_A_JOB):
        with _joined():
            yield
        return
    # Socket paths are limited to about 100 characters: keep the folder's name short.
    with held_folder("", "/tmp" if os.path.isdir("/tmp") else None) as scratch:
        _keep_token_private()
        try:
            try:
                with _loopback():
                    ray.init(
                        address="local",
                        num_cpus=cpus,
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level="ERROR",
                        _temp_dir=str(scratch),
                        runtime_env={"env_vars": WORKER_ENV | LOCAL_ENV | _blank(NOT_FOR_WORKERS)},
                    )
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ClusterError(
                    f"Ray did not start ({reason}); run `dcdctl doctor` to see what is missing"
                ) from error
            # A trial that failed is told of in one sentence of ours, not in Tune's traceback.
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
            from ray.data import DataContext

            DataContext.get_current().enable_progress_bars = False
            with _sigterm_interrupts(), sentence_if_ray_dies():
                yield
        finally:
            with _no_collection():
                ray.shutdown()


@contextmanager
def _loopback() -> Iterator[None]:
    """Have Ray start as it does where it knows of no clusters: nothing of it is reached from afar.

    Its processes inherit the switch; in this one it is put back, since a cluster may come next.
    """
    from ray._private import ray_constants

    before, known = os.environ.get(CLUSTERS), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[CLUSTERS], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = known
        if before is None:
            del os.environ[CLUSTERS]
        else:
            os.environ[CLUSTERS] = before


def _blank(names: Sequence[str]) -> dict[str, str]:
    return {name: "" for name in names if name in os.environ}


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage now, and not while Ray stops.

    A reference to one of Ray's objects that dies on another thread at that moment ends the whole
    process, and which thread the collector runs on is chance. That lost a sweep's report.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        gc.collect()
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does; Ray's own handler prints a dump of its stack."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # As the command itself takes Ctrl-C, so that a second signal ends it at once.
    taken = signal.getsignal(signal.SIGINT)
    wanted = taken if callable(taken) else signal.default_int_handler
    before = signal.signal(signal.SIGTERM, wanted)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _keep_token_private() -> None:
    """Make the token before Ray does: Ray's own is readable for everybody."""
    with suppress(OSError):  # a home folder that cannot be written is Ray's matter
        own_token()
