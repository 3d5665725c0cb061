"""What each phase's task does: hands the phase its paths, settings and collaborators.

Imported when a phase is about to run, and each phase module when it is that phase's turn, so that
deciding and listing load none of pandas, SciPy, matplotlib or requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pipeline import console, environment, plain, waiting
from pipeline.errors import AuthError, Refused
from pipeline.phases import Outcome
from pipeline.secret import Secret

if TYPE_CHECKING:
    from pipeline.emulator.config import Config as EmulatorConfig
    from pipeline.parts import Index
    from pipeline.providers.base import Provider
    from pipeline.queue.context import Context
    from pipeline.queue.drive import Queue
    from pipeline.queue.estimates import Planned
    from pipeline.session import Session

Action = Callable[["Session", str, Mapping[str, str]], Outcome]

_MAKING_QUEUE = threading.Lock()
_EMULATOR_POLL = 0.1  # seconds; the emulator is local and quick
_STOP_LOOK = 1.0  # seconds between two looks for a stop request while waiting
_SERVICE_POLL = 30.0  # seconds; the service's own steps come on about 60 s ticks
_SERVICE_SECOND_LOOK = 90.0  # seconds between two looks at what is gone, however short `poll=` is
_SERVICE_OUTAGE = 6 * 3600.0  # seconds: a night's maintenance or a router's bad hours, while jobs run


def _prepare(session: Session, _slug: str, _inputs: Mapping[str, str]) -> Outcome:
    from pipeline.phases.prepare import prepare

    work = session.workspace
    # Where the record tells what was asked, done.py has compared it.
    asked = {} if session.question("prepare", "").stage.settings else work.items_asked()
    return prepare(work.paths, work.config, asked)


def _build(session: Session, slug: str, inputs: Mapping[str, str]) -> Outcome:
    from pipeline.phases.build import build

    work = session.workspace
    return build(
        work.paths,
        work.trial_paths(slug),
        work.config,
        work.trials[slug],
        settings=session.settings("build", slug),
        inputs=inputs,
        submitted=work.sent_parts(slug),
    )


def _submit(session: Session, slug: str, _inputs: Mapping[str, str]) -> Outcome:
    from pipeline.phases.submit import submit

    return submit(_queue(session), slug)


def _download(session: Session, slug: str, _inputs: Mapping[str, str]) -> Outcome:
    from pipeline.phases.download import download

    return download(_queue(session), session.workspace.trial_paths(slug))


def _parse(session: Session, slug: str, _inputs: Mapping[str, str]) -> Outcome:
    from pipeline.phases.parse import parse

    return parse(session.workspace.trial_paths(slug), _index(session, slug))


def _score(session: Session, slug: str, _inputs: Mapping[str, str]) -> Outcome:
    from pipeline.phases.score import score
    from pipeline.scoring.response import ScoringSettings

    run, trial = session.workspace.paths, session.workspace.trial_paths(slug)
    settings = ScoringSettings.of(session.workspace.config["scoring"])
    outcome = score(trial.predictions, (run.closed_book, run.open_book), trial.scores, settings)
    return Outcome(outcome.outputs, {**outcome.artifacts, "per_item_scores_csv": trial.relative(trial.scores)})


def _stats(session: Session, slug: str, _inputs: Mapping[str, str]) -> Outcome:
    from pipeline.phases.stats import stats
    from pipeline.statistics.settings import StatisticsSettings

    trial = session.workspace.trial_paths(slug)
    control, *treatments = session.workspace.trials[slug].conditions
    settings = StatisticsSettings.of(session.workspace.config["statistics"])
    outcome = stats(trial.scores, trial.significance, settings, control, treatments)
    significance = trial.relative(trial.significance)
    return Outcome(outcome.outputs, {**outcome.artifacts, "significance_json": significance})


def _costs(session: Session, slug: str, _inputs: Mapping[str, str]) -> Outcome:
    from pipeline.phases.costs import costs

    work = session.workspace
    return costs(work.trial_paths(slug), work.config, work.trials[slug])


def _report(session: Session, slug: str, _inputs: Mapping[str, str]) -> Outcome:
    from pipeline.phases.report import report

    work = session.workspace
    return report(work.paths, work.trial_paths(slug), work.config, work.trials[slug], _index(session, slug))


def _archive(session: Session, slug: str, _inputs: Mapping[str, str]) -> Outcome:
    from pipeline.phases.archive import archive

    work = session.workspace
    return archive(work.paths, work.trial_paths(slug), _index(session, slug), work.fingerprints, session.say)


def _run_index(session: Session, _slug: str, _inputs: Mapping[str, str]) -> Outcome:
    from pipeline.phases.index import index

    work = session.workspace
    return index(work.paths, work.config, [work.trial_paths(slug) for slug in work.trials])


ACTIONS: Mapping[str, Action] = {
    "prepare": _prepare,
    "build": _build,
    "submit": _submit,
    "download": _download,
    "parse": _parse,
    "score": _score,
    "stats": _stats,
    "costs": _costs,
    "report": _report,
    "archive": _archive,
    "index": _run_index,
}


def _queue(session: Session) -> Queue:
    """The run's queue, one for all phases of this process; its provider is connected when first needed."""
    from pipeline.queue.drive import Queue

    with _MAKING_QUEUE:  # under `-n` with threads two phases may come at once
        if session.queue is None:
            session.queue = Queue(make_context(session))
        return session.queue


def make_context(session: Session) -> Context:
    """What the queue and `orphans` work with."""
    from pipeline.providers.rows import read_row
    from pipeline.queue.context import Collaborators, Context, Options

    config = session.workspace.config
    emulated = config["provider"] == "emulator"
    poll = session.request.poll_seconds or config["queue"]["poll_seconds"]
    return Context(
        session.workspace,
        Collaborators(
            connect=lambda: _connected(session),
            read_row=read_row,
            say=session.say,
            check_stop=session.check_stop,
            allow_spending=lambda planned: _confirm(session, planned),
            show=waiting.shown(session.say, as_json=session.request.json, alone=lambda: not session.has_workers),
            sleep=lambda seconds: _sleep(session, seconds),
        ),
        Options(
            wait=session.request.wait,
            requeue=session.request.requeue,
            poll_seconds=poll or (_EMULATOR_POLL if emulated else _SERVICE_POLL),
            second_look_seconds=0.0 if emulated else _SERVICE_SECOND_LOOK,
            outage_seconds=0.0 if emulated else _SERVICE_OUTAGE,
            since=session.began,
            trials=session.submits(),
            begins=not session.request.phases or "submit" in session.request.phases,
        ),
    )


def _connected(session: Session) -> Provider:
    provider = _connect(session)
    session.at_close(provider.close)
    return provider


def _sleep(session: Session, seconds: float) -> None:
    """Wait, but not past a stop request."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        session.check_stop()
        time.sleep(min(left, _STOP_LOOK))


def _connect(session: Session) -> Provider:
    from pipeline.emulator.config import DEFAULT_ACCOUNT, DEFAULT_KEY
    from pipeline.providers.fireworks import Fireworks
    from pipeline.providers.http import Pace

    config = session.workspace.config
    pace = Pace(sleep=lambda seconds: _sleep(session, seconds))
    if config["provider"] == "emulator":
        from pipeline.emulator.process import ensure

        emulator = ensure(session.workspace.paths.emulator, _emulator_config(session))
        session.at_close(emulator.close)
        return Fireworks(
            base_url=emulator.address.url,
            key=Secret(DEFAULT_KEY),
            account=DEFAULT_ACCOUNT,
            endpoint=f"emulator:{emulator.address.store_id}",
            pace=pace,
        )
    variables = environment.variables()
    key = environment.fireworks_key(variables)
    if key is None:
        raise AuthError(
            "there is no FIREWORKS_API_KEY in the environment or .env.",
            kept="Nothing was sent.",
            hint="put FIREWORKS_API_KEY=... into .env in the folder you run doit in, or set provider: emulator",
        )
    return Fireworks(
        base_url=config["fireworks"]["base_url"],
        key=key,
        account=environment.fireworks_account(config["fireworks"]["account_id"], variables),
        upload_threshold=config["fireworks"]["upload_threshold_bytes"],
        ready_seconds=config["queue"]["dataset_deadline_minutes"] * 60,
        pace=pace,
    )


def _emulator_config(session: Session) -> EmulatorConfig:
    from pipeline.emulator.config import Config, Replay

    config = session.workspace.config
    settings = config["emulator"]
    return Config(
        recorded=config.path(settings["recorded"]) if settings["recorded"] else None,
        replay={
            condition: Replay(config.path(entry["path"]), entry["system"])
            for condition, entry in settings["replay"].items()
        },
        job_seconds=settings["job_seconds"],
        ready_seconds=min(settings["job_seconds"], Config.ready_seconds),  # where no job takes time, no upload does
    )


def _confirm(session: Session, planned: Planned) -> None:
    """Show what the submissions may cost; above the threshold ask, or want yes=1 where nobody can answer."""
    if session.announces(planned.trials):
        session.say(
            f"to be submitted: {planned.estimate.rows:,} requests in {planned.parts:,} parts, about "
            f"{planned.estimate.input_tokens:,} tokens in and {planned.estimate.output_expected:,} out, {planned.cost}"
        )
    if asks_above(session, planned) is None:
        return
    if not console.can_ask():
        raise nobody_to_ask(session, planned)
    if not console.ask(f"Submit {planned.cost}{_before(planned)}?"):
        raise Refused("not confirmed.", kept=_kept(planned), hint=session.resume_command)


def asks_above(session: Session, planned: Planned) -> float | None:
    """`budget.confirm_above_usd` where *planned* is above it and a yes is wanted first; None where none is."""
    threshold: float | None = session.workspace.config["budget"]["confirm_above_usd"]
    if not planned.parts or threshold is None or session.request.yes:
        return None
    return None if planned.at_most is not None and planned.at_most <= threshold else threshold


def nobody_to_ask(session: Session, planned: Planned) -> Refused:
    """Why *planned*, which wants a yes, is not submitted where nobody can say one."""
    threshold = plain.usd(session.workspace.config["budget"]["confirm_above_usd"])
    return Refused(
        f"this would submit requests {planned.cost}{_before(planned)}, above budget.confirm_above_usd = {threshold}, "
        f"and nobody can be asked {'by a worker of -n' if session.has_workers else 'here'}.",
        kept=_kept(planned),
        # Said again where it was said: by queue.requeue of the config they might be left unasked.
        hint=f"{session.resume_command}{' requeue=auto' if session.request.requeue == 'auto' else ''} yes=1",
    )


def _before(planned: Planned) -> str:
    return f", beside at most {plain.usd(planned.sent)} sent by this command" if planned.sent else ""


def _kept(planned: Planned) -> str:
    return "Nothing more was sent." if planned.sent else "Nothing was sent."


def _index(session: Session, slug: str) -> Index:
    index = session.workspace.index(slug)
    if index is None:
        raise Refused(
            "there is no list of parts.",
            where=str(session.workspace.trial_paths(slug).index),
            kept="Nothing was changed.",
            hint=session.resume_command,
        )
    return index
