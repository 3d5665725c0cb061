"""The run as a doit build: one task per phase and trial. What is done, and why, is decided in `pipeline`."""

from pipeline import tasks

globals().update(tasks.namespace())
