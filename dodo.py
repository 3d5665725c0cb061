"""The run as a doit build: one task per phase and trial. What is done, and why, is decided in `pipeline`."""

from pipeline import tasks

SESSION = tasks.load()
DOIT_CONFIG = tasks.doit_config(SESSION)


def task_phases():  # noqa: ANN201 - a doit task creator
    """prepare, build, submit, download, parse, score, stats, costs, report, archive, index"""
    yield from tasks.create(SESSION)
