"""What a run says at its start about settings that lie around and that it does not live by."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline import config as configuration
from pipeline import disk, environment, identity, paths
from pipeline.errors import TrialmakeError
from pipeline.runs import is_begun
from pipeline.workspace import Workspace

_SHOWN = 3  # differences named


def on_local_config(work: Workspace) -> str | None:
    """What to say when `./experiment.yaml`, which only new runs are made from, is not what this run lives by."""
    local = paths.LOCAL_CONFIG
    try:
        if not local.exists() or _made_from(work, local):
            return None
        found = configuration.read(local, variables=environment.variables())
    except TrialmakeError as error:
        said = error.what.splitlines()[0]
    else:
        changes = identity.differences(dict(work.config.values), dict(found.values))
        if not changes:
            return None
        said = "; ".join(changes[:_SHOWN]) + (f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else "")
    note = f"{local} differs from what this run lives by: {said}\n  This run goes on with {work.paths.config}. "
    if is_begun(work.paths):
        return f"{note}For a new run: doit rid=NEW config={local}"
    return f"{note}Nothing of it was submitted, so it can still change: doit rid={work.rid} config={local}"


def on_environment(work: Workspace) -> str | None:
    """What to say when the environment sets what acts on new runs only, and this run lives by something else."""
    variables = environment.set_here()
    if not variables:
        return None
    try:
        found = configuration.read(work.paths.config, base=work.config.base, variables=variables)
    except TrialmakeError:
        return None  # it was not said to this run
    changes = identity.differences(dict(work.config.values), dict(found.values))
    if not changes:
        return None
    return f"{', '.join(variables)} acts on new runs only; this one lives by {work.paths.config}"


def _made_from(work: Workspace, local: Path) -> bool:
    """Whether the run was created from *local* and its prompt files as they are now: no YAML need be read."""
    if hashlib.sha256(disk.read_bytes(local)).hexdigest() != work.record.source_sha256:
        return False
    prompts = (prompt for conditions in work.record.config["prompt_sets"].values() for prompt in conditions.values())
    try:
        return all(
            disk.read_bytes(local.parent / prompt["file"]).rstrip(b"\n") == prompt["text"].encode().rstrip(b"\n")
            for prompt in prompts
            if "file" in prompt
        )
    except FileNotFoundError:
        return False
