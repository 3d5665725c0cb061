"""Where the numbers come from: what was sent, in which parts, under which seeds and formats, and how to do it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline import jsonl
from pipeline.identity import FORMATS
from pipeline.paths import RunPaths
from pipeline.report import words
from pipeline.report.artifacts import TYPES
from pipeline.report.blocks import (
    Block,
    Bullets,
    Code,
    Details,
    Heading,
    Inline,
    Line,
    Paragraph,
    Quotation,
    Section,
    Table,
)
from pipeline.report.model import Model
from pipeline.report.text import DASH, count, counted, listed, sha256
from pipeline.report.verdict import METRIC_NAMES, TYPE_NAMES
from pipeline.version import VERSION

_DIGITS = 16  # of a digest, where its whole length would break the table


def prompts(model: Model) -> Section:
    """Model, parameters and prompts as they stand in the requests."""
    return Section("Prompts", "prompts", tuple(_prompts(model)))


def parts(model: Model) -> Section:
    """Every part with its attempts."""
    return Section("Parts and attempts", "parts", tuple(_parts(model)))


def remarks(model: Model) -> Section:
    """What the statistics warn of."""
    return Section("Warnings", "warnings", tuple(_remarks(model)))


def reproduce(model: Model) -> Section:
    """How to cite the run and how to repeat it."""
    return Section("How to cite and reproduce", "reproduce", tuple(_reproduce(model)))


def _prompts(model: Model) -> Iterator[Block]:
    yield Paragraph(("Model: ", *_listed(model.models)) if model.models else "Model: the ledger names none.")
    rows = tuple(
        (TYPE_NAMES[kind], temp, tuple(_listed([jsonl.dumps(values).decode() for values in sent])))
        for kind in TYPES
        for temp in model.temps
        if (sent := model.sent.parameters.get((temp, kind)))
    )
    if rows:
        yield Table(
            ("Type", "Temperature", "Parameters sent"),
            rows,
            "Taken from the first and the last request of every part. What is not listed was not sent.",
        )
    if model.sent.absent:
        yield Paragraph(
            f"The request files of {counted(len(model.sent.absent), 'part')} are no longer here, so what they held is "
            "told from the config, not from the requests."
        )
    for condition, text in model.prompts.items():
        yield Heading(f"Prompt {condition}")
        for prompt in model.sent.prompts.get(condition, [text]):
            yield Paragraph((f"{counted(len(prompt), 'character')}, sha256 ", Code(sha256(prompt))))
            yield Quotation(prompt, "System message")
    for kind, user in sorted(model.sent.users.items()):
        yield Details(
            f"How a question was put, {TYPE_NAMES[kind].lower()}",
            (Quotation(user[:4000], "User message", len(user) if len(user) > 4000 else None),),
        )


def _parts(model: Model) -> Iterator[Block]:
    rows: list[tuple[Line, ...]] = []
    digests = {part.part: part.sha256 for part in model.index.parts}
    paid = {part["part"]: part["usd"] for part in model.costs["parts"]}
    for part in model.attempts["parts"]:
        states = [attempt["state"] or "unknown" for attempt in part["attempts"]]
        rows.append(
            (
                Code(part["part"]),
                count(part["rows"]),
                count(part["succeeded"]),
                count(part["failed"]),
                count(len(states)) if states else DASH,
                ", ".join(states).lower().replace("_", " ") or DASH,
                model.usd(paid.get(part["part"])),
                Code(digests.get(part["part"], DASH)[:_DIGITS]),
            )
        )
    yield Table(
        (
            "Part",
            "#Rows",
            "#With a response",
            "#Failed",
            "#Attempts",
            "How they ended",
            "#US dollars",
            "sha256 of the requests",
        ),
        tuple(rows),
        "Rows as the provider's jobs ended: a response that the content filter stopped, or that has no text, is one, "
        f"but no answer. The first {_DIGITS} digits of each digest; index.json has them all.",
    )


def _remarks(model: Model) -> Iterator[Block]:
    lines: list[Line] = [_plain(text) for text in model.significance["warnings"]]
    for block in model.blocks:
        where = f"{block.treatment}, {TYPE_NAMES[block.type].lower()}, temperature {block.temp}"
        lines += [f"{where}: {_plain(text)}" for text in block.data["warnings"]]
        for name, metric in block.metrics:
            lines += [f"{where}, {name}: {_plain(text)}" for text in metric["warnings"]]
    if not lines:
        yield Paragraph("None.")
        return
    yield Paragraph(
        f"{counted(len(lines), 'remark')} of the statistics, word for word. An en dash in a table is a value that "
        "does not exist; its reason stands here, with its key in parentheses."
    )
    yield Details("All remarks", (Bullets(tuple(lines)),))


def _reproduce(model: Model) -> Iterator[Block]:
    config = model.significance["stats_config"]
    config_file = RunPaths.of(model.rid).config.as_posix()
    yield Heading("Cite")
    yield Quotation(_citation(model))
    yield Heading("Methods, ready to adapt")
    yield Quotation(_methods(model))
    yield Heading("Reproduce")
    yield Bullets(
        (
            ("The run's frozen config is ", Code(config_file), "; prompts are inlined there."),
            ("The same experiment anew, with new answers: ", Code(f"doit rid=NEW config={config_file}"), "."),
            (
                "The same report from the same answers, byte for byte: ",
                Code(f"doit forget report rid={model.rid} && doit resume rid={model.rid}"),
                ".",
            ),
            "Answers at a temperature above 0 differ from call to call; the raw answers of this run are in its folder.",
        )
    )
    yield Heading("Seeds and settings")
    yield Table(
        ("Setting", "Value"),
        tuple(
            (key.replace("_", " "), Code(value if isinstance(value, str) else jsonl.dumps(value).decode()))
            for key, value in (
                *sorted(config.items()),
                *((f"scoring {k}", v) for k, v in sorted(model.scoring.items())),
            )
        ),
    )
    yield Heading("Versions and inputs")
    versions: dict[str, int | str] = {f"{phase} output": version for phase, version in FORMATS.items()}
    versions |= {
        "Trialmake": VERSION,
        "significance.json": model.significance["schema_version"],
        "costs.json": model.costs["schema_version"],
        "request identity": model.index.identity_version,
    }
    yield Details(
        "Versions of the tool and of what it writes",
        (Table(("Of", "#Version"), tuple((name, str(version)) for name, version in sorted(versions.items()))),),
    )
    yield Table(
        ("Input of the requests", "sha256"),
        tuple((Code(name), Code(digest)) for name, digest in sorted(model.index.inputs.items())),
    )


def _citation(model: Model) -> str:
    end = "" if model.name.endswith((".", "?", "!")) else "."
    requests = sha256("".join(part.sha256 for part in model.index.parts))[:_DIGITS]
    return (
        f"{model.name}{end} Trialmake {VERSION}, run {model.rid}, trial {model.slug}. "
        f"Model {listed(model.models or ('unknown',))}"
        f"{' (not asked: the emulator stood in for it)' if model.provider == 'emulator' else ''}, "
        f"prompt set {model.prompt_set}, "
        f"conditions {listed(model.conditions)}. "
        f"Requests: sha256 {requests} over {counted(len(model.index.parts), 'part')}."
    )


def _methods(model: Model) -> str:
    config, scoring = model.significance["stats_config"], model.scoring
    questions = sum(size.items for size in model.scores.sizes.values())
    taken = "" if scoring["extraction"] == "none" else f", taken from the replies by {scoring['extraction']},"
    sizes = [f"{METRIC_NAMES[name]} {100 * size:.10g}" for name, size in sorted(config["margins"].items())]
    when = "[say whether they were fixed before the answers were seen]"  # nothing here can know
    margins = f" Margins of equivalence, in points: {listed(sizes)} {when}." if sizes else ""
    how = words.intervals(model)
    asked = listed(model.models or ("the model",))
    # Whoever copies the paragraph must trip over this: "We asked" would be untrue.
    nobody = (
        f"[No model was asked: the emulator stood in for {asked}, answering from the passages or with answers recorded "
        "before.] "
        if model.provider == "emulator"
        else ""
    )
    return (
        f"{nobody}We asked {asked} {counted(questions, 'question')} under "
        f"{counted(len(model.conditions), 'system prompt')} ({listed(model.conditions)}), "
        f"{counted(model.scores.samples, 'time')} each at temperature {listed(model.temps)}. Answers{taken} were "
        "scored by each benchmark's official rules, abstentions (Trialmake's patterns, version "
        f"{scoring['abstention_patterns']}) as the empty answer, and averaged per question; a missing answer was left "
        "out. Conditions were compared per question by a two-sided sign-flip permutation test, with Benjamini-Hochberg "
        f"correction over {counted(model.tests(), 'primary test')} at level {config['alpha']:g}."
        f"{f' {how}.' if how else ''}{margins} Seed {config['seed']}."
    )


def _listed(data: Sequence[str]) -> Iterator[Inline]:
    for number, item in enumerate(data):
        if number:
            yield ", "
        yield Code(item)


def _plain(text: str) -> str:
    """A remark without the backticks that quote keys: here they would be markup."""
    return text.replace("`", "")
