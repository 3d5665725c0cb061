"""The whole report of a trial, in the order a reader wants it: verdict first, machinery last."""

from __future__ import annotations

from pipeline.report import cases, inference, money, opening, provenance, reliability, results
from pipeline.report.blocks import Code, Document, Line
from pipeline.report.model import Model
from pipeline.report.text import counted, listed


def document(model: Model) -> Document:
    """The report of *model*."""
    sections = [opening.verdict(model), opening.data_balance(model)]
    for treatment in model.treatments:
        sections += [results.results(model, treatment), results.datasets(model, treatment)]
    sections += [
        inference.significance(model),
        cases.unsupported(model),
        reliability.selective_risk(model),
        reliability.power(model),
        money.cost(model),
        money.cost_effectiveness(model),
        cases.examples(model),
        provenance.prompts(model),
        provenance.parts(model),
        provenance.remarks(model),
        provenance.reproduce(model),
    ]
    return Document("Evaluation Report", model.name, tuple(_facts(model)), tuple(sections))


def _facts(model: Model) -> list[tuple[str, Line]]:
    questions = sum(size.items for size in model.scores.sizes.values())
    return [
        ("Model", Code(listed(model.models or ("unknown",)))),
        ("Prompt set", f"{model.prompt_set}: {listed(model.conditions)}"),
        ("Questions", f"{questions:,}"),
        ("Temperatures", listed(model.temps)),
        ("Samples per item", counted(model.scores.samples, "sample").split()[0]),
        ("Provider", model.provider),
        ("Run ID", Code(model.rid)),
        ("Trial", Code(model.slug)),
    ]
