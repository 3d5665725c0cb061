"""`python -m pipeline COMMAND`: what is not a build. The broad handler of this file is the program's outermost edge."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline import console, graph
from pipeline.errors import (
    EXIT_DONE,
    EXIT_ERROR,
    EXIT_FAILED,
    EXIT_SIGINT,
    EXIT_USAGE,
    NotReady,
    TrialmakeError,
    UnknownRun,
    UsageError,
)
from pipeline.plain import lacking
from pipeline.request import Request

Chosen = argparse.Namespace


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is that of its error, or 0."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    parser = _parser()
    try:
        console.show_anything()
        chosen, rest = parser.parse_known_args([word for word in given if word != "--debug"])
        if chosen.run is None:
            parser.print_help()
            return EXIT_USAGE
        if rest and chosen.command != "emulate":
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        chosen.rest = rest
        return int(chosen.run(chosen) or EXIT_DONE)
    except TrialmakeError as error:
        if "--json" in given:
            console.say(console.as_json(error.as_json()))
        console.warn(f"ERROR: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_SIGINT
    except BrokenPipeError:
        console.say_no_more()
        return EXIT_FAILED
    except ModuleNotFoundError as error:
        console.warn(lacking(error.name))
        return EXIT_ERROR
    except Exception as error:  # noqa: BLE001 - the outermost edge: one line, the traceback on request
        console.warn(f"ERROR: {type(error).__name__}: {error}\nThis is a bug; --debug shows where.")
        if debug:
            traceback.print_exc()
        return EXIT_ERROR


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others: one message, exit code 3."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print, with the nearest word there is."""
        wrong = re.search(r"invalid choice: '(?P<word>.*?)' \(choose from (?P<words>.*)\)", message)
        close = difflib.get_close_matches(wrong["word"], re.findall(r"[\w-]+", wrong["words"]), n=1) if wrong else []
        nearest = f"; did you mean {close[0]!r}?" if close else "."
        raise UsageError(f"{message}{nearest}", hint=f"{self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m pipeline", description="Look at runs, compare them, plan the next; first steps.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an unexpected error")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def command(name: str, run: Callable[[Chosen], int | None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="a JSON document instead of text")
        return added

    command("init", _init, "a folder to start an own experiment from").add_argument("folder")
    doctor = command("doctor", _doctor, "check config, question files, key, account, model, clock and disk")
    doctor.add_argument("config", nargs="?", help="default: the config that doit would start from here")
    config = command("config", _config, "show the effective config, check it, or list every setting there is")
    config.add_argument("action", choices=["show", "check", "settings"])
    config.add_argument("path", nargs="?", help="default: the config that doit would start from here")
    command("plan", _plan, "what would run and why, what would be sent and cost").add_argument("rid", nargs="?")
    command("runs", _runs, "list the runs there are, newest first")
    command("status", _status, "how far a run is, phase by phase").add_argument("rid", nargs="?")
    explain = command("explain", _explain, "why each phase is current or not: explain [RID] [PHASE [TRIAL]]")
    for name in ("rid", "phase", "trial"):
        explain.add_argument(name, nargs="?")
    command("open", _open, "open a run's pages in a browser and print where they are").add_argument("rid", nargs="?")
    compare = command("compare", _compare, "one run's condition against another's: RID[:trial[:condition]] twice")
    compare.add_argument("first", help="takes the place of the control")
    compare.add_argument("second", help="its difference from the first is shown")
    _power_arguments(command("power", _power, "items and samples the next experiment needs, what a budget can show"))
    manifest = command("manifest", _manifest, "check a trial_manifest.json, or bring it up to date")
    manifest.add_argument("action", choices=["check", "migrate"])
    manifest.add_argument("path")
    orphans = command("orphans", _orphans, "jobs and datasets at the service that no ledger of a run owns")
    orphans.add_argument("rid", nargs="?")
    what = orphans.add_mutually_exclusive_group()
    what.add_argument("--adopt", action="store_true", help="take over the jobs that this run would submit itself")
    what.add_argument("--delete", action="store_true", help="delete what an earlier build of this run left; no other")
    completion = commands.add_parser("completion", help="a script that completes doit's words in bash or zsh")
    completion.add_argument("shell", choices=["bash", "zsh"])
    completion.set_defaults(run=_completion)
    commands.add_parser("emulate", add_help=False, help="run the emulator by hand").set_defaults(run=_emulate)
    return parser


def _power_arguments(power: argparse.ArgumentParser) -> None:
    power.add_argument("pilot", nargs="?", help="RID[:trial[:treatment]] of a finished run to take variances from")
    power.add_argument("--temp", help="the pilot's temperature; default: its first")
    power.add_argument("--type", choices=["open", "closed"], help="default: the pilot's first")
    power.add_argument("--metric", help="default: em")
    power.add_argument("--omega2", type=float, help="without a pilot: the variance of deltas between items")
    power.add_argument("--sigma2", type=float, default=0.0, help="the variance of one item's samples; default 0")
    power.add_argument("--delta", type=float, nargs="+", help="differences to plan for; default: the config's")
    power.add_argument("--items", type=int, help="what can so many items show?")
    power.add_argument("--requests", type=int, help="what can so many requests show?")
    power.add_argument("--usd", type=float, help="what can this budget show, at the pilot's price?")


def _show(chosen: Chosen, document: Any, text: Iterable[str]) -> None:
    if chosen.json:
        console.say(console.as_json(document))
    else:
        for line in text:
            console.say(line)


# --- first steps -----------------------------------------------------------------------------------


def _init(chosen: Chosen) -> None:
    from pipeline import starter

    written = [str(path) for path in starter.init(Path(chosen.folder))]
    _show(chosen, written, [*written, f"Next: cd {chosen.folder} && doit plan && doit"])


def _doctor(chosen: Chosen) -> int:
    from pipeline import doctor

    findings = doctor.examine(_config_path(chosen.config))
    _show(chosen, [finding.as_json() for finding in findings], doctor.as_text(findings))
    return EXIT_FAILED if any(finding.ok is False for finding in findings) else EXIT_DONE


def _config(chosen: Chosen) -> None:
    from pipeline import config, environment, settings, yaml_text

    if chosen.action == "settings":
        listed = settings.settings()
        _show(chosen, [vars(setting) for setting in listed], settings.as_text(listed))
        return
    from pipeline.record import base_of

    path = _config_path(chosen.path)
    checked = config.read(path, base=base_of(path), variables=environment.variables())
    if chosen.action == "check":
        trials = [trial.slug for trial in checked.trials]
        _show(chosen, {"path": str(path), "trials": trials}, [f"{path}: valid; trials: {', '.join(trials)}"])
    else:
        shown = config.as_yaml(checked)
        if not console.is_unicode():
            shown = yaml_text.in_ascii(shown)
        # In one piece: a line of a prompt must not be folded where the terminal is narrow.
        _show(chosen, dict(checked.values), [shown.removesuffix("\n")])


def _completion(chosen: Chosen) -> None:
    from pipeline import completion

    console.say(completion.script(chosen.shell).rstrip())


# --- looking at runs -------------------------------------------------------------------------------


def _plan(chosen: Chosen) -> None:
    from pipeline import plan

    planned = plan.plan(_session(chosen.rid))
    _show(chosen, plan.as_json(planned), plan.as_text(planned))


def _runs(chosen: Chosen) -> None:
    from pipeline import views

    found = views.runs()
    _show(chosen, found, views.runs_text(found))


def _status(chosen: Chosen) -> None:
    from pipeline import views

    document = views.status(_run(chosen.rid))
    _show(chosen, document, views.status_text(document))


def _explain(chosen: Chosen) -> None:
    from pipeline import fingerprints, paths, views

    rid, phase, trial = chosen.rid, chosen.phase, chosen.trial
    if rid in graph.BY_NAME and trial is None and fingerprints.kind(paths.RunPaths.of(rid).root) is None:
        rid, phase, trial = None, rid, phase  # `explain parse`: of the latest run
    explained = views.explain(_run(rid), phase, trial)
    _show(chosen, explained, views.explain_text(explained))


def _open(chosen: Chosen) -> None:
    import webbrowser

    opened = _run(chosen.rid)
    page = opened.workspace.paths.index_html
    if not page.exists():
        raise NotReady("is not there yet.", where=str(page), hint=opened.resume_command)
    shown = not chosen.json and webbrowser.open(page.resolve().as_uri())
    _show(chosen, {"path": str(page)}, [str(page) if shown else f"{page} (no browser to open it in)"])


def _compare(chosen: Chosen) -> None:
    from pipeline import comparing

    document = comparing.compare(chosen.first, chosen.second)
    _show(chosen, document, comparing.compare_text(document))


def _power(chosen: Chosen) -> None:
    from pipeline import comparing

    wanted = comparing.Wanted(chosen.delta, chosen.items, chosen.requests, chosen.usd)
    if (chosen.pilot is None) == (chosen.omega2 is None):
        raise UsageError("name a finished run, or give --omega2 (and --sigma2); one of the two.")
    if chosen.pilot is not None:
        document = comparing.power_from_pilot(chosen.pilot, chosen.temp, chosen.type, chosen.metric or "em", wanted)
    elif chosen.temp or chosen.type or chosen.metric:
        raise UsageError("--temp, --type and --metric choose variances of a finished run, and none is named.")
    else:
        document = comparing.power_from_variances(chosen.omega2, chosen.sigma2, wanted)
    _show(chosen, document, comparing.power_text(document))


def _manifest(chosen: Chosen) -> None:
    from pipeline import repair

    said = repair.check(Path(chosen.path)) if chosen.action == "check" else repair.migrate(Path(chosen.path))
    _show(chosen, {"path": chosen.path, "says": said}, said)


def _orphans(chosen: Chosen) -> None:
    from pipeline import actions, opening, orphans

    if chosen.adopt or chosen.delete:
        opened = opening.for_writing(_request(chosen.rid), console.warn, may_create=False)
    else:
        opened = _run(chosen.rid)
    try:
        context = actions.make_context(opened)
        found = orphans.find(context)
        adopted = orphans.adopt(context, found) if chosen.adopt else []
        deleted = orphans.delete(context, found) if chosen.delete else []
    finally:
        opened.close()
    text = [orphan.line for orphan in found] or ["no orphans: every job and dataset of this run is in its ledgers"]
    text += [f"adopted {orphan.id}" for orphan in adopted] + [f"deleted {orphan.id}" for orphan in deleted]
    document = {"orphans": found, "adopted": adopted, "deleted": deleted}
    _show(chosen, {name: [orphan.as_json() for orphan in listed] for name, listed in document.items()}, text)


def _emulate(chosen: Chosen) -> int:
    from pipeline.emulator.server import main as emulate

    try:
        return int(emulate(chosen.rest))
    except SystemExit as stop:  # its parser has said what is wrong, or shown its help
        return EXIT_USAGE if stop.code else EXIT_DONE
    except FileExistsError as error:
        raise UsageError(
            "is no folder.", where=str(error.filename), hint="name a new one, or an earlier store"
        ) from error
    except OverflowError as error:
        raise UsageError(
            f"--port: there is no such port ({error}).", hint="a number up to 65535, or no --port"
        ) from error


def _config_path(given: str | None) -> Path:
    from pipeline import opening

    return opening.config_path(Request(config=Path(given) if given else None))


def _session(rid: str | None) -> Any:
    """The named or latest run, to look at; before the first, what it would be."""
    from pipeline import opening

    return opening.for_reading(_request(rid), console.warn)


def _request(rid: str | None) -> Request:
    """What asks for the named or latest run. Raises UnknownRun for a name that no run can have."""
    from pipeline import runs

    return Request(rid=None if rid is None else runs.named(rid).rid)


def _run(rid: str | None) -> Any:
    """The named or latest run. Raises UnknownRun when there is none."""
    opened = _session(rid)
    if not opened.workspace.paths.root.exists():
        raise UnknownRun("there is no run here yet.", hint="doit starts one; doit plan shows what it would do")
    return opened


if __name__ == "__main__":
    sys.exit(main())
