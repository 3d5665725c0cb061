"""Doing the work of one phase, in whatever worker doit chooses: checked inputs, the work, the record of it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline import actions, done, foreign, identity
from pipeline.decision import Question, Refuse
from pipeline.errors import ContractBroken, Refused
from pipeline.manifest import COMPLETED, Stage
from pipeline.phases import Outcome
from pipeline.version import VERSION

if TYPE_CHECKING:
    from pipeline.session import Session


def perform(session: Session, phase: str, slug: str) -> dict[str, Any]:
    """Do the work of one cell and return its record as plain JSON. Raises TrialmakeError."""
    if os.getpid() != session.pid:
        # A worker was forked before the phases ahead of this one ran: it looks again.
        session.workspace.fingerprints.look_anew()
        session.workspace.refresh()
        session.decide(phase, slug)
    session.check_stop()
    decision = session.decisions.get((phase, slug))
    if isinstance(decision, Refuse):
        raise Refused(decision.reason, kept="Nothing was changed or sent.")
    question = session.question(phase, slug)
    # What was decided may rest on looks that are a moment old; those in this trial ended when the work began.
    if done.inputs_foreign in done.REASONS[phase] and (found := done.inputs_foreign(question)) is not None:
        raise Refused(found.reason, kept="Nothing was changed or sent.")
    inputs = _digests(question)
    started = time.monotonic()
    with foreign.outputs_set_aside(question, session.say):
        outcome = actions.ACTIONS[phase](session, slug, inputs)
        _check_inputs(question, inputs, session.resume_command)
    return _record(question, outcome, inputs, session.settings(phase, slug), time.monotonic() - started)


def _digests(question: Question) -> dict[str, str]:
    digests = {}
    for path in question.inputs:
        try:
            digests[question.relative(path)] = question.workspace.fingerprints.sha256(path)
        except FileNotFoundError:
            raise Refused(
                f"{question.phase.name} needs {path.name}, which is not there.",
                where=str(path),
                kept="Nothing was changed.",
                hint=f"run the phase that writes it: doit resume rid={question.workspace.rid}",
            ) from None
    return digests


def _check_inputs(question: Question, before: Mapping[str, str], hint: str) -> None:
    """An input that was edited while the phase ran must not count as what it was built from."""
    for name, digest in before.items():
        try:
            now = question.workspace.fingerprints.sha256(question.workspace.paths.root / name)
        except FileNotFoundError:
            now = None
        if now != digest:
            raise ContractBroken(
                f"{name} {'vanished' if now is None else 'changed'} while {question.phase.name} was reading it.",
                kept="The phase is not recorded as done.",
                hint=hint,
            )


def _record(
    question: Question, outcome: Outcome, inputs: Mapping[str, str], settings: identity.Settings, seconds: float
) -> dict[str, Any]:
    outputs, keys = {}, {}
    for path, output in outcome.outputs.items():
        name = question.relative(path)
        outputs[name] = {"sha256": output.written.sha256, "size": output.written.size}
        if output.rows is not None:
            outputs[name]["rows"] = output.rows
        keys[name] = list(output.written.key)
    stage = Stage(
        status=COMPLETED,
        updated_at=None,
        artifacts=outcome.artifacts,
        outputs=outputs,
        inputs=dict(inputs),
        settings=settings,
        identity_version=identity.VERSION,
        config_sha256=identity.digest(settings),
        tool_version=VERSION,
        duration_s=round(seconds, 3),
    )
    return {"stage": stage.as_json(), "keys": keys}
