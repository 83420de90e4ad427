"""`dcdctl status` and `logs` of a job: its cluster is asked, from any terminal and any machine."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from clusters.jobs import ENDED, Jobs
from orchestrator.job_mirror import JobMirror, events_of
from orchestrator.run_events import Event
from orchestrator.run_log import RunLog, event_line
from orchestrator.run_status import AskedJob, StatusReader
from tasks.errors import ClusterError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.job_request import SentJob

JOB_PREFIX = "dcdctl-"


class WatchedJob:
    """A job as its cluster tells of it; what it sent lies in a folder that goes with this.

    Args:
        jobs: the cluster's job server.
        job_id: the job.
        root: folder for a copy of its runs.
    """

    def __init__(self, jobs: Jobs, job_id: str, root: Path) -> None:
        self.job_id = job_id
        self.who = f"job {job_id} on {jobs.handle.name}"
        self._jobs = jobs
        self._taken = 0
        self.own: list[Event] = []
        """What it told that belongs to none of its runs."""
        self.mirror = JobMirror(root, job_id, jobs.handle.name)
        self._state, self._message = "PENDING", ""
        self.update()

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self._state in ENDED

    @property
    def run(self) -> Path | None:
        """The run under way or ended last; None where there is none (yet)."""
        return self.mirror.folders[-1] if self.mirror.folders else None

    def update(self) -> None:
        """Ask the cluster.

        Raises:
            ClusterError: it cannot be reached, or knows no such job.
        """
        if self.over:
            return
        state, self._message = self._jobs.status(self.job_id)  # before the output: none is missed
        lines = self._jobs.output(self.job_id)
        for event in events_of(lines[self._taken :]):
            self.mirror.take(event)
            if not self.mirror.folders:
                self.own.append(event)
        self._taken, self._state = len(lines), state

    def asked(self) -> AskedJob:
        """Return where the job is, as the status of its run has it."""
        runs = len(self.mirror.folders)
        which = f", run {runs}" if self.mirror.command == "compare" and runs else ""
        come = f"; get the results with: dcdctl attach {self.job_id}"
        if not self.over:
            return AskedJob(self.who, "running", which)
        if self.mirror.error is not None:
            return AskedJob(self.who, "stopped", f"{which}: {self.mirror.error[0]}")
        if self._state != "SUCCEEDED":
            said = self._message.strip().splitlines()
            return AskedJob(
                self.who,
                "stopped",
                f"{which}: it {self._state.lower()}{f' ({said[-1][:200]})' if said else ''}; go "
                "on with the same command and --resume",
            )
        return AskedJob(self.who, "finished", which + come)


def is_job(name: str | None) -> bool:
    """Say whether a name is that of a job, and not of a run."""
    return name is not None and name.startswith(JOB_PREFIX)


def show_status(
    job: WatchedJob, every_s: float | None, hour_price: float | None, *, as_json: bool
) -> None:
    """Show where a job is: the screen of its run, or the stages of a single step.

    Args:
        job: the job.
        every_s: seconds between two looks, until it ends; None looks once.
        hour_price: of a core for an hour.
        as_json: print an object a line instead.
    """
    from rich.console import Console

    from orchestrator import status_page

    readers: dict[Path, StatusReader] = {}

    def reader() -> StatusReader | None:
        if job.run is None:
            return None
        return readers.setdefault(job.run, StatusReader(job.run, hour_price, job.asked))

    def draw() -> tuple[RenderableType, bool]:
        job.update()
        found = reader()
        screen = status_page.status_screen(found.read()) if found else _steps(job)
        return screen, not job.over

    if not as_json:
        console = Console(highlight=False)
        if every_s is None:
            console.print(draw()[0])
        else:
            status_page.watch(console, draw, every_s)
        return
    while True:
        job.update()
        found = reader()
        typer.echo(found.read().model_dump_json() if found else _steps_json(job))
        if every_s is None or job.over:
            return
        time.sleep(every_s)


def _steps(job: WatchedJob) -> RenderableType:
    asked = job.asked()
    lines = [f"{job.mirror.command or 'job'}  {asked.state}: {asked.who}{asked.says}", ""]
    for name, event in job.mirror.stages.items():
        done, total = int(event.get("done", 0)), int(event.get("total", 0))
        took = event.get("seconds")
        seconds = f"  {took:.1f} s" if isinstance(took, int | float) else ""
        lines.append(f"  {name:<28} {done:,} of {total:,}{seconds}")
    return "\n".join(lines)


def _steps_json(job: WatchedJob) -> str:
    asked, keys = job.asked(), ("name", "done", "total", "seconds")
    stages = [
        {key: event.get(key) for key in keys if key in event}
        for event in job.mirror.stages.values()
    ]
    found = {"version": 1, "job": job.job_id, "command": job.mirror.command}
    return json.dumps(found | {"state": asked.state, "says": asked.says, "stages": stages})


def show_logs(job: WatchedJob, every_s: float | None, trial: int | None) -> None:
    """Print what happened in a job's runs.

    Args:
        job: the job.
        every_s: seconds between two looks, until it ends; None looks once.
        trial: index of the trial to tell of; None tells of all.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    logs: list[RunLog] = []
    told, printed = 0, False
    while True:
        over = job.over
        logs += [RunLog(run, trial) for run in job.mirror.folders[len(logs) :]]
        lines = [line for log in logs for line in log.new(settled=over or every_s is None)]
        if trial is None:
            lines += [line for event in job.own[told:] if (line := event_line(event))]
            told = len(job.own)
        for line in lines:
            console.print(line)
            printed = True
        if every_s is None or over:
            break
        time.sleep(every_s)
        job.update()
    if not printed:
        typer.echo("nothing is known of this job yet; add --follow to wait for it", err=True)


@contextmanager
def watched(
    name: str | None, root: Path, cluster: str | None, *, insecure: bool = False
) -> Iterator[WatchedJob]:
    """Reach the cluster of a job.

    Args:
        name: the job; None is the newest that dcdctl sent to the cluster.
        root: storage that may know where the job is.
        cluster: what `--cluster` says; None asks the storage.
        insecure: accept a cluster without a token.

    Raises:
        StoreError: no cluster is named, and the storage does not know the job.
        ClusterError: the cluster cannot be reached, or knows no such job.
    """
    from clusters.lifecycle import joined

    where = cluster or _sent(root, name or "").where
    with (
        joined(where, insecure=insecure) as handle,
        tempfile.TemporaryDirectory(prefix="dcdctl-job-") as folder,
    ):
        jobs = Jobs(handle)
        yield WatchedJob(jobs, name or _newest(jobs), Path(folder))


def _sent(root: Path, name: str) -> SentJob:
    from orchestrator.cluster_run import sent_job

    return sent_job(root, name)


def _newest(jobs: Jobs) -> str:
    names = [name for name in jobs.names() if is_job(name)]
    if not names:
        raise ClusterError(f"the cluster {jobs.handle.name} has no job of dcdctl's")
    return names[-1]
