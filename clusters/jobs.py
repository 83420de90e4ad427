"""Jobs of a cluster: submit one, follow what it prints, stop it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clusters.handle import ClusterHandle
from tasks.errors import ClusterError

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_CHATTY = (
    "ray",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers that tell of each upload."""
_POLL_S, _AGENT_S = 1.0, 60.0


class JobLostError(ClusterError):
    """The head that a job was given to is gone, and with it the job."""


class Jobs:
    """The job server of a cluster.

    Args:
        handle: the cluster.

    Raises:
        ClusterError: it does not answer.
    """

    def __init__(self, handle: ClusterHandle) -> None:
        from ray.job_submission import JobSubmissionClient

        self.handle = handle
        for chatty in _CHATTY:
            logging.getLogger(chatty).setLevel(logging.ERROR)
        try:
            self._client = JobSubmissionClient(handle.jobs_url, headers=handle.headers())
        except (ConnectionError, RuntimeError) as error:
            raise self._lost(error) from error

    def submit(
        self,
        entrypoint: str,
        folder: Path,
        modules: Sequence[Path],
        env: dict[str, str],
        job_id: str,
    ) -> None:
        """Send folders and have a command run on the head node.

        Args:
            entrypoint: the command; it shows in the cluster's logs, so no secret may be in it.
            folder: the command's working folder there.
            modules: Python packages that it imports; one that the cluster has is not sent again.
            env: environment variables; they show in the job server too.
            job_id: the job's name.
        """
        end = time.monotonic() + _AGENT_S
        while True:
            try:
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env={
                        "working_dir": str(folder),
                        "py_modules": [str(module) for module in modules],
                        "env_vars": env,
                    },
                    entrypoint_num_cpus=0,
                )
                return
            except (RuntimeError, ConnectionError, ValueError) as error:
                # A head that has just started has no agent for jobs yet.
                if "No available agent" in str(error) and time.monotonic() < end:
                    time.sleep(_POLL_S)
                    continue
                raise ClusterError(
                    f"the cluster {self.handle.name} did not take the job "
                    f"({str(error).strip().splitlines()[0][:200]})"
                ) from error

    def status(self, job_id: str) -> tuple[str, str]:
        """Return a job's state and what is said of it.

        Raises:
            ClusterError: there is no such job, or the cluster does not answer.
        """
        try:
            info = self._client.get_job_info(job_id)
        except RuntimeError as error:
            if "404" in str(error) or "does not exist" in str(error):
                raise ClusterError(
                    f"the cluster {self.handle.name} knows no job {job_id!r}; it has "
                    f"{', '.join(self.names()) or 'none'}"
                ) from error
            raise self._lost(error) from error
        except OSError as error:
            raise self._lost(error) from error
        return str(info.status.value), info.message or ""

    def output(self, job_id: str) -> list[str]:
        """Return the whole lines that a job has printed so far.

        Raises:
            ClusterError: the cluster does not answer.
        """
        try:
            text = self._client.get_job_logs(job_id)
        except (OSError, RuntimeError) as error:
            raise self._lost(error) from error
        return str(text).split("\n")[:-1]

    def names(self) -> list[str]:
        """Return the jobs that the cluster knows, the newest last."""
        try:
            found = self._client.list_jobs()
        except (OSError, RuntimeError) as error:
            raise self._lost(error) from error
        own = [job for job in found if job.submission_id]
        return [str(job.submission_id) for job in sorted(own, key=lambda job: job.start_time or 0)]

    def stop(self, job_id: str) -> None:
        """Ask a job to stop; it gets SIGTERM, and what is finished is kept."""
        self.status(job_id)
        self._client.stop_job(job_id)

    def follow(self, job_id: str, patience_s: float = 120) -> Iterator[str]:
        """Yield what a job prints, from its first line on, until it has ended.

        A connection that breaks is made again, and lines are not repeated.

        Args:
            job_id: the job.
            patience_s: how long the cluster may be out of reach.

        Raises:
            JobLostError: another head answers in the place of the one that had the job.
            ClusterError: it stayed out of reach; the job may well go on.
        """
        from aiohttp import ClientError

        told, broken = 0, None
        while True:
            try:
                for number, line in enumerate(self._lines(job_id)):
                    broken = None
                    if number >= told:
                        told = number + 1
                        yield line
                if self.status(job_id)[0] in ENDED:
                    return
            except (OSError, RuntimeError, ClientError, ClusterError) as error:
                if isinstance(error, ClientError):
                    self._still_known(job_id)
                broken = broken or time.monotonic()
                if time.monotonic() - broken > patience_s:
                    raise self._lost(error) from error
            time.sleep(_POLL_S)

    def _still_known(self, job_id: str) -> None:
        """Look whether a head that answers is still the one that was given the job.

        Raises:
            JobLostError: it is another one.
        """
        try:
            known = self.names()
        except ClusterError:
            return
        if job_id not in known:
            raise JobLostError(
                f"the cluster {self.handle.name} answers and knows no job {job_id}: its head was "
                "lost, and another is in its place; run the same command with --resume"
            )

    def _lines(self, job_id: str) -> Iterator[str]:
        """Yield whole lines of a job's output; the chunks in which it comes end anywhere."""
        loop = asyncio.new_event_loop()
        stream: Any = self._client.tail_job_logs(job_id).__aiter__()
        rest = ""
        try:
            while True:
                try:
                    rest += loop.run_until_complete(stream.__anext__())
                except StopAsyncIteration:
                    break
                *lines, rest = rest.split("\n")
                yield from lines
            if rest:
                yield rest
        finally:
            loop.run_until_complete(stream.aclose())
            loop.close()

    def _lost(self, error: BaseException) -> ClusterError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return ClusterError(f"the cluster {self.handle.name} cannot be reached ({reason})")
