"""What the routes share: the store, the settings, the links, the faults and the worker."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.emulator import jobs
from pipeline.emulator.config import Config
from pipeline.emulator.faults import Faults
from pipeline.emulator.links import Links
from pipeline.emulator.records import Job
from pipeline.emulator.store import Store
from pipeline.emulator.worker import Worker


@dataclass(frozen=True)
class Service:
    """One emulated account. *url* is the server's own base address."""

    store: Store
    config: Config
    links: Links
    faults: Faults
    worker: Worker
    url: str

    def now(self) -> float:
        """The virtual time."""
        return self.store.clock.now()

    def view(self, job: Job) -> jobs.View | None:
        """What a client sees of *job* now, None when it is gone."""
        return jobs.view(job, self.now(), self.worker.progress(job))

    def output_reserved(self, dataset_id: str) -> bool:
        """Whether a job that still may write its output has asked for that id."""
        views = (self.view(job) for job in self.store.jobs() if job.output_dataset == dataset_id)
        return any(view is not None and not view.terminal for view in views)
