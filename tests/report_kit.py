"""A small finished run for report tests, made by the real phases from answers a test writes down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import config as configuration
from pipeline import custom_id, jsonl, parts
from pipeline.config import Config
from pipeline.custom_id import RequestId
from pipeline.parts import Index
from pipeline.paths import RunPaths, TrialPaths
from pipeline.phases.build import build
from pipeline.phases.costs import costs
from pipeline.phases.index import index
from pipeline.phases.parse import parse
from pipeline.phases.report import report
from pipeline.phases.score import score
from pipeline.phases.stats import stats
from pipeline.scoring.response import ScoringSettings
from pipeline.statistics.settings import StatisticsSettings
from pipeline.trials import Trial

# What models, providers and question files may write to get out of their quotation.
EVIL = [
    "<script>alert(1)</script>",
    '<img src="http://evil.example/x.png" onerror="alert(1)">',
    "![x](http://evil.example/x.png) [y](javascript:alert(1)) www.evil.example http://evil.example",
    "```\n# OWNED\n\n<h1>OWNED</h1>\n````\n# OWNED\n`````",
    "</details>\n\n# OWNED\n\n| a | b |\n|---|---|\n| `x` | \\| y |",
    "\x1b[31mred\x1b]8;;http://evil.example\x07 \u202eabc\u2066 zero\u200bwidth \x00 \x85 \u2028",
    '=HYPERLINK("http://evil.example")',
    "{{ 7 * 7 }} {% raw %} ${7*7} $\\frac{1}{0}$ &lt;b&gt; ]]> <!-- --> '\"",
    "<style>*{display:none}</style><base href=//evil.example><meta http-equiv=refresh content=0>",
    "</pre></main></svg><svg onload=alert(1)>",
]

Answer = Callable[[RequestId, Mapping[str, Any]], "str | Failure | Filtered | Truncated"]


@dataclass(frozen=True)
class Failure:
    """A request that got no response."""

    message: str


@dataclass(frozen=True)
class Filtered:
    """A response that the provider's filter emptied: it came, and holds no answer."""


@dataclass(frozen=True)
class Truncated:
    """An answer that ran into the token limit."""

    text: str


def closed(number: int, **changes: Any) -> dict[str, Any]:
    """A closed-book question whose gold answer is `gold NUMBER`."""
    name = f"c{number:03}"
    row = {"answers": [f"gold {number}"], "benchmark": "triviaqa", "cluster": name, "dataset": "trivia", "id": name}
    return {**row, "question": f"What is closed question {number}?", **changes}


def open_book(number: int, **changes: Any) -> dict[str, Any]:
    """An open-book question; every third one has no answer in its passage."""
    name = f"o{number:03}"
    answerable = number % 3 != 0
    return {
        "answers": [f"gold {number}"] if answerable else [],
        "benchmark": "squad_v2",
        "cluster": f"passage {number // 2}",
        "context": f"Passage {number // 2} says gold {number}, among others.",
        "dataset": "squad",
        "id": name,
        "is_unanswerable": not answerable,
        "question": f"What is open question {number}?",
        **changes,
    }


def better(request: RequestId, row: Mapping[str, Any]) -> str:
    """The control is right on every second question, a treatment on all but every eighth, also where it abstains."""
    number = int("".join(filter(str.isdigit, request.item_id)) or "0")
    right = row["answers"][0] if row["answers"] else "I don't know"
    if request.condition == "control":
        return right if number % 2 and row["answers"] else "something else"
    return right if number % 8 else "something else"


@dataclass(frozen=True)
class Made:
    """A finished run of one trial."""

    run: RunPaths
    paths: TrialPaths
    config: Config
    trial: Trial
    index: Index

    def report(self) -> None:
        """Build the trial's report."""
        report(self.run, self.paths, self.config, self.trial, self.index)

    def overview(self) -> None:
        """Build the run's overview."""
        index(self.run, self.config, [self.run.trial(trial.slug) for trial in self.config.trials])

    @property
    def markdown(self) -> str:
        return self.paths.report_md.read_text()

    @property
    def html(self) -> str:
        return self.paths.report_html.read_text()

    def written(self) -> dict[str, bytes]:
        """Every file of the report and the overview, by its place in the run."""
        files = [*sorted(self.paths.reports.rglob("*")), self.run.aggregate_report, self.run.index_html]
        return {path.relative_to(self.run.root).as_posix(): path.read_bytes() for path in files if path.is_file()}


def make(
    folder: Path,
    answer: Answer = better,
    *,
    items: Sequence[Mapping[str, Any]] | None = None,
    treatments: Sequence[str] = ("treatment",),
    temperatures: Sequence[float] = (0,),
    samples: int = 1,
    prices: Mapping[str, Any] | None = None,
    tokens: bool | Callable[[RequestId], bool] = True,
    prompts: Mapping[str, str] | None = None,
    models: Sequence[str] = ("lab/model-a",),
    **settings: Any,
) -> Made:
    """A run in *folder* up to costs, for its first trial; the report is the caller's to build."""
    items = [*map(closed, range(1, 13)), *map(open_book, range(1, 13))] if items is None else items
    texts = prompts or {name: f"You are under {name}." for name in ("control", *treatments)}
    document = {
        "name": "Does it help?",
        "provider": "fireworks",
        "models": [{"id": name} for name in models],
        "prompt_sets": {"set": {name: {"text": text} for name, text in texts.items()}},
        "sources": [
            {"dataset": name, "format": "jsonl", "path": "x"} for name in sorted({i["dataset"] for i in items})
        ],
        "temperatures": list(temperatures),
        "samples_per_item": samples,
        "decoding": {"max_tokens": {"closed": 16, "open": 32}},
        "prices": {"models": prices or {}},
        **settings,
        # The fewest resamples a config may ask for: what a report shows of them does not depend on how many they are.
        "statistics": {"bootstrap_samples": 1000, "permutation_samples": 1000, **settings.get("statistics", {})},
    }
    config = configuration.check(document, base=folder, where="test")
    run = RunPaths.of("lab", folder)
    run.prepared.mkdir(parents=True)
    by_id = {(row["dataset"], row["id"]): row for row in items}
    run.closed_book.write_bytes(b"".join(jsonl.dumps(row) + b"\n" for row in items if "context" not in row))
    run.open_book.write_bytes(b"".join(jsonl.dumps(row) + b"\n" for row in items if "context" in row))
    made = None
    for trial in config.trials:
        paths = run.trial(trial.slug)
        build(run, paths, config, trial, settings={}, inputs={}, submitted={})
        listed = parts.read(paths.index)
        made = made or Made(run, paths, config, trial, listed)
        _answer(paths, trial, listed, lambda request: answer(request, by_id[request.dataset, request.item_id]), tokens)
        parse(paths, listed)
        score(paths.predictions, (run.closed_book, run.open_book), paths.scores, ScoringSettings.of(config["scoring"]))
        statistics = StatisticsSettings.of(config["statistics"])
        stats(paths.scores, paths.significance, statistics, trial.conditions[0], trial.conditions[1:])
        costs(paths, config, trial)
    assert made is not None
    return made


def hostile_run(folder: Path) -> Made:
    """Every text that comes from outside is hostile: answers, errors, questions, passages, golds, names."""
    items = []
    for number, payload in enumerate(EVIL):
        outside = {"question": f"{payload}?", "answers": [payload], "dataset": payload[:60], "id": f"{number}{payload}"}
        items += [
            closed(number, **outside),
            open_book(3 * number + 1, **{**outside, "context": f"{payload} {payload}"}),
        ]

    def answer(request: RequestId, row: Mapping[str, Any]) -> Any:
        payload = row["question"][:-1]
        if request.sample_index == 2:
            return Failure(payload)
        return payload if request.condition != "control" else Truncated(payload + "x" * 5000)

    return make(folder, answer, items=items, samples=3, treatments=("treatment", "other"), report={"examples": 50})


def _answer(paths: TrialPaths, trial: Trial, listed: Index, answer: Callable[[RequestId], Any], tokens: Any) -> None:
    """Write `results_combined.jsonl` and `attempts.json` as download would."""
    paths.results.mkdir()
    lines, entries = [], []
    for part in listed.parts:
        failed = 0
        for line in jsonl.lines(paths.part_requests(part.part)):
            name = jsonl.loads(line.data)["custom_id"]
            given = answer(custom_id.split(name))
            counted = tokens(custom_id.split(name)) if callable(tokens) else tokens
            failed += isinstance(given, Failure)
            lines.append(jsonl.dumps({"custom_id": name, **_result(name, given, counted)}))
        entries.append(
            {
                "part": part.part,
                "temp": part.temp,
                "condition": part.condition,
                "rows": part.rows,
                "succeeded": part.rows - failed,
                "failed": failed,
                "attempts": [
                    {
                        "attempt": 1,
                        "job_id": f"job-{part.part}",
                        "model": trial.model,
                        "rows": part.rows,
                        "state": "COMPLETED",
                        "counts": {},
                        "estimate": {"usd": None},
                    }
                ],
            }
        )
    paths.combined.write_bytes(b"".join(line + b"\n" for line in lines))
    paths.attempts.write_bytes(jsonl.dumps_pretty({"schema_version": 1, "parts": entries}))


def _result(name: str, given: str | Failure | Filtered | Truncated, tokens: bool) -> dict[str, Any]:
    if isinstance(given, Failure):
        return {"error": {"code": 500, "message": given.message, "attempts": 1}}
    text = given.text if isinstance(given, Truncated) else "" if isinstance(given, Filtered) else given
    finish = {Truncated: "length", Filtered: "content_filter"}.get(type(given), "stop")
    usage = {"prompt_tokens": 20 + len(name), "completion_tokens": 1 + len(text.split())}
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    response = {"id": f"r-{name}", "choices": [choice]}
    return {"response": {**response, "usage": {**usage, "total_tokens": sum(usage.values())}} if tokens else response}
