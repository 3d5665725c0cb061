"""report: `report.md`, `report.html` and the figures of a trial, built from the artifacts and nothing else.

The same artifacts give the same bytes: no time, no path of this machine, no history of how the run went.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import disk
from pipeline.config import Config
from pipeline.parts import Index
from pipeline.paths import RunPaths, TrialPaths
from pipeline.phases import Outcome, Output
from pipeline.report.blocks import figures
from pipeline.report.document import document
from pipeline.report.html import page
from pipeline.report.markdown import markdown
from pipeline.report.model import read
from pipeline.report.plot import standalone
from pipeline.trials import Trial


def report(run: RunPaths, paths: TrialPaths, config: Config, trial: Trial, index: Index) -> Outcome:
    """Write the report of *trial*. Raises DamagedArtifact naming the artifact that is not what its phase writes."""
    composed = document(read(run, paths, config, trial, index))
    drawings = [figure for section in composed.sections for figure in figures(section.blocks)]
    texts = {paths.report_md: markdown(composed), paths.report_html: page(composed)}
    texts |= {paths.figures / f"{figure.name}.svg": standalone(figure.svg) for figure in drawings}
    disk.make_folder(paths.figures)
    written = {path: Output(disk.write_bytes(path, text.encode())) for path, text in texts.items()}
    _sweep(paths, set(texts))
    return Outcome(
        written,
        {"report_md": paths.relative(paths.report_md), "report_html": paths.relative(paths.report_html)},
    )


def _sweep(paths: TrialPaths, current: set[Path]) -> None:
    """Remove figures that the report no longer has."""
    for path in sorted(paths.figures.glob("*.svg")):
        if path not in current:
            disk.remove(path)
