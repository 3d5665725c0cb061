"""`python -m pipeline COMMAND`: what is not a build. The broad handler of this file is the program's outermost edge."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline import console, jsonl
from pipeline.errors import EXIT_DONE, EXIT_ERROR, EXIT_FAILED, EXIT_SIGINT, NotReady, TrialmakeError, UsageError
from pipeline.request import Request

Chosen = argparse.Namespace


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is that of its error, or 0."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    chosen, rest = _parser().parse_known_args([word for word in given if word != "--debug"])
    if rest and chosen.command != "emulate":
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    chosen.rest = rest
    try:
        return int(chosen.run(chosen) or EXIT_DONE)
    except TrialmakeError as error:
        console.warn(f"ERROR: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_SIGINT
    except BrokenPipeError:
        return EXIT_ERROR  # `... | head`: the reader has gone
    except Exception as error:  # noqa: BLE001 - the outermost edge: one line, the traceback on request
        console.warn(f"ERROR: {type(error).__name__}: {error}\nThis is a bug; --debug shows where.")
        if debug:
            traceback.print_exc()
        return EXIT_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Look at runs; plan; run the emulator.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an unexpected error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[Chosen], int | None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="a JSON document instead of text")
        return added

    command("runs", _runs, "list the runs there are, newest first")
    command("status", _status, "how far a run is, phase by phase").add_argument("rid", nargs="?")
    explain = command("explain", _explain, "why each phase is current or not")
    explain.add_argument("rid", nargs="?")
    explain.add_argument("phase", nargs="?")
    explain.add_argument("trial", nargs="?")
    command("plan", _plan, "what would run and why, what would be sent and cost").add_argument("rid", nargs="?")
    manifest = command("manifest", _manifest, "check a manifest, or bring it up to date")
    manifest.add_argument("action", choices=["check", "migrate"])
    manifest.add_argument("path")
    compare = command("compare", _compare, "one run's condition against another's: RID[:trial[:condition]] twice")
    compare.add_argument("first")
    compare.add_argument("second")
    power = command("power", _power, "items and samples the next experiment needs, and what a budget can show")
    power.add_argument("pilot", nargs="?", help="RID[:trial] of a finished run")
    power.add_argument("--temp")
    power.add_argument("--type", choices=["open", "closed"])
    power.add_argument("--metric", default="em")
    power.add_argument("--omega2", type=float, help="assumed variance between items, without a pilot")
    power.add_argument("--sigma2", type=float, default=0.0, help="assumed variance within an item")
    power.add_argument("--items", type=int, help="what can so many items show?")
    power.add_argument("--requests", type=int, help="what can so many requests show?")
    power.add_argument("--usd", type=float, help="what can this budget show, at the pilot's price?")
    command("init", _init, "a folder to start an own experiment from").add_argument("folder")
    doctor = command("doctor", _doctor, "check key, account, model, disk, clock, config and question files")
    doctor.add_argument("config", nargs="?")
    config = command("config", _config, "show the effective config, or check one")
    config.add_argument("action", choices=["show", "check"])
    config.add_argument("path", nargs="?")
    command("open", _open, "show the run's pages in a browser, or print where they are").add_argument("rid", nargs="?")
    emulate = commands.add_parser("emulate", add_help=False, help="run the emulator by hand")
    emulate.set_defaults(run=_emulate)
    return parser


def _show(chosen: Chosen, document: Any, text: Iterable[str]) -> None:
    if chosen.json:
        console.say(jsonl.dumps_pretty(document).decode().rstrip())
    else:
        for line in text:
            console.say(line)


def _runs(chosen: Chosen) -> None:
    from pipeline import views

    found = views.runs()
    _show(chosen, found, views.runs_text(found))


def _status(chosen: Chosen) -> None:
    from pipeline import views

    document = views.status(_session(chosen.rid))
    _show(chosen, document, views.status_text(document))


def _explain(chosen: Chosen) -> None:
    from pipeline import views

    explained = views.explain(_session(chosen.rid), chosen.phase, chosen.trial)
    _show(chosen, explained, views.explain_text(explained))


def _plan(chosen: Chosen) -> None:
    from pipeline import plan

    planned = plan.plan(_session(chosen.rid))
    if chosen.json:
        console.say(plan.as_json(planned).decode().rstrip())
    else:
        for line in plan.as_text(planned):
            console.say(line)


def _manifest(chosen: Chosen) -> None:
    from pathlib import Path

    from pipeline import repair

    said = repair.check(Path(chosen.path)) if chosen.action == "check" else repair.migrate(Path(chosen.path))
    _show(chosen, {"path": chosen.path, "says": said}, said)


def _compare(chosen: Chosen) -> None:
    from pipeline import comparing

    document = comparing.compare(chosen.first, chosen.second)
    _show(chosen, document, comparing.compare_text(document, chosen.first, chosen.second))


def _power(chosen: Chosen) -> None:
    from pipeline import comparing

    if chosen.pilot is not None:
        document = comparing.power_from_pilot(
            chosen.pilot, chosen.temp, chosen.type, chosen.metric, chosen.items, chosen.usd
        )
    elif chosen.omega2 is not None:
        document = comparing.power_from_variances(chosen.omega2, chosen.sigma2, chosen.items, chosen.requests)
    else:
        raise UsageError("name a finished run, or give --omega2 (and --sigma2).")
    _show(chosen, document, comparing.power_text(document))


def _init(chosen: Chosen) -> None:
    from pathlib import Path

    from pipeline import starter

    written = [str(path) for path in starter.init(Path(chosen.folder))]
    _show(chosen, written, [*written, f"Next: cd {chosen.folder} && doit plan && doit"])


def _doctor(chosen: Chosen) -> int:
    from pathlib import Path

    from pipeline import doctor

    findings = doctor.examine(Path(chosen.config) if chosen.config else doctor.default_config())
    _show(chosen, [vars(finding) for finding in findings], doctor.as_text(findings))
    return EXIT_FAILED if any(finding.ok is False for finding in findings) else EXIT_DONE


def _config(chosen: Chosen) -> None:
    from pathlib import Path

    from pipeline import config, doctor

    path = Path(chosen.path) if chosen.path else doctor.default_config()
    checked = config.read(path, environment=config.environment())
    if chosen.action == "check":
        trials = [trial.slug for trial in checked.trials]
        _show(chosen, {"path": str(path), "trials": trials}, [f"{path}: valid; trials: {', '.join(trials)}"])
    else:
        _show(chosen, dict(checked.values), config.frozen_text(checked).decode().splitlines())


def _open(chosen: Chosen) -> None:
    import webbrowser

    page = _session(chosen.rid).workspace.paths.index_html
    if not page.exists():
        raise NotReady("is not there yet.", where=str(page), hint="doit resume")
    shown = webbrowser.open(page.resolve().as_uri())
    _show(chosen, {"path": str(page), "shown": shown}, [str(page)])


def _emulate(chosen: Chosen) -> int:
    from pipeline.emulator.server import main as emulate

    return int(emulate(chosen.rest))


def _session(rid: str | None) -> Any:
    from pipeline import session

    return session.open_for_reading(Request(rid=rid), console.warn)


if __name__ == "__main__":
    sys.exit(main())
