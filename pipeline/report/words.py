"""What the numbers say, in the sentences a report opens with: the verdict, the figures behind it, and its limits.

Every difference comes with its interval, p and q; one that was not shown comes with what the data leave
possible and with what the run could have found.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report.artifacts import Block, Json
from pipeline.report.blocks import Finding
from pipeline.report.limits import Size, out_of_reach, spots
from pipeline.report.model import Model
from pipeline.report.text import (
    counted,
    exact_percent,
    exact_points,
    listed,
    p_phrase,
    percent,
    points,
    points_span,
    unsigned_points,
)
from pipeline.report.verdict import METRIC_WORDS, TYPE_NAMES, Verdict, judged

_COUNTED = {**METRIC_WORDS, "false_answer_rate": "false answers to unanswerable questions"}


def headline(model: Model, treatment: str) -> str:
    """What *treatment* did to right answers and to false ones, in two sentences at most."""
    parts = [
        phrase
        for kind in ("open", "closed")
        if (phrase := _across(model, model.of(treatment, kind), "em", f"on {TYPE_NAMES[kind].lower()} questions, "))
    ]
    if all(block.data["metrics"]["em"]["delta_mean"] is None for block in model.of(treatment)):
        return f"No question was answered with both {treatment} and {model.control}, so there is nothing to compare."
    sentence = f"With {treatment} instead of {model.control}: {'; '.join(parts)}."
    false_answers = _across(model, model.of(treatment, "open"), "false_answer_rate", "")
    return f"{sentence} {_capital(false_answers)}." if false_answers else sentence


def findings(model: Model, treatment: str) -> list[Finding]:
    """EM at every type and temperature, each with its caveats; then what else changed, type by type."""
    found = [_finding(model, block) for block in model.of(treatment) if "em" in block.data["metrics"]]
    for kind in ("open", "closed"):
        for name in ("false_answer_rate", "unsupported_rate", "abstain_rate"):
            blocks = [block for block in model.of(treatment, kind) if name in block.data["metrics"]]
            if any(block.data["metrics"][name]["delta_mean"] is not None for block in blocks):
                verdicts = [judged(block, name, model.alpha) for block in blocks]
                found.append(
                    Finding(
                        f"{TYPE_NAMES[kind]}, {METRIC_WORDS[name]}",
                        _named(verdicts, blocks),
                        verdicts[0].tone if len(set(verdicts)) == 1 else "open",
                        _sentence(model, blocks, name),
                    )
                )
    return found


def intervals(model: Model) -> str:
    """How the intervals of differences were made, as a clause: "95% intervals are BCa bootstraps"."""
    tested = [metric["primary"] for block in model.blocks for _, metric in block.metrics]
    used = {test["ci_method"] for test in tested if test["ci_95"] is not None}  # without one the method is a name
    said = "BCa bootstraps" if "bca" in used else "t intervals" if "t" in used else ""
    if used >= {"bca", "t"}:
        said += ", t intervals below 30 questions"
    if "cluster_t" not in used:
        return f"95% intervals are {said}" if said else ""
    unit = model.significance["stats_config"]["cluster"]
    shared = f"cluster-robust (CR1, t) where questions share a {unit}, and there tests flip whole clusters"
    return f"95% intervals are {shared}" + (f"; elsewhere they are {said}" if said else "")


def _finding(model: Model, block: Block) -> Finding:
    em = block.data["metrics"]["em"]
    verdict = judged(block, "em", model.alpha)
    if em["delta_mean"] is None:
        return Finding(
            spots(model, [block]), verdict.value, verdict.tone, "No question was answered in both conditions."
        )
    if verdict is Verdict.SAME:
        line = f"{percent(em['mean_treatment'])} right with both, over {Size.of(em, block.type)}. "
        return Finding(
            spots(model, [block]), verdict.value, verdict.tone, f"{line}{_meaning(model, block, em, verdict)}"
        )
    line = (
        f"{percent(em['mean_treatment'])} right with {block.treatment}, "
        f"{percent(em['mean_control'])} with {model.control}: "
        f"{points(em['delta_mean'])} points ({_evidence(em)}), over {Size.of(em, block.type)}; "
        f"{em['wins']:,} won, {em['losses']:,} lost, {em['ties']:,} tied. {_meaning(model, block, em, verdict)}"
    )
    return Finding(spots(model, [block]), verdict.value, verdict.tone, line)


def _meaning(model: Model, block: Block, em: Json, verdict: Verdict) -> str:
    margin = block.data["tost"].get("em", {}).get("margin")
    level = f"tests at alpha {model.alpha:g}"
    match verdict:
        case Verdict.BETTER | Verdict.WORSE:
            word = "more" if verdict is Verdict.BETTER else "fewer"
            small = block.data["tost"].get("em", {}).get("equivalent")
            return f"So {block.treatment} gives {word} right answers" + (
                f", by less than the margin of ±{exact_points(margin)} points." if small else "."
            )
        case Verdict.SAME:
            return "Every question came out the same."
        case Verdict.HINT_BETTER | Verdict.HINT_WORSE:
            none = f"; with {Size.of(em, block.type).units} none could" if out_of_reach(model, block) else ""
            return f"Alone this would count; among {counted(model.tests(), 'test')} it does not{none}."
        case Verdict.EQUIVALENT:
            return f"By two one-sided {level} the difference lies within ±{exact_points(margin)} points."
        case Verdict.NOT_WORSE:
            worse = f"not worse by {exact_points(margin)} points or more"
            return f"By a one-sided {level.replace('tests', 'test')} it is {worse}; whether it is better stays open."
        case Verdict.UNCLEAR:
            within = " within that interval" if em["primary"]["ci_95"] else ""
            return f"No difference was shown, and none was ruled out{within}.{_reach(model, block, em)}"
    return "The test is not defined for these data."


def _reach(model: Model, block: Block, em: Json) -> str:
    """Which true difference such a run finds; one of more than 100 points is none, nor is one no test can show."""
    power, mde = em["power"], em["power"]["mde_t"]
    if mde is None:
        return ""
    if mde > 1:
        return " So few questions could hardly have shown any difference."
    if out_of_reach(model, block):
        return f" With {Size.of(em, block.type).units} none could have been shown."
    found = f"have p < {model.alpha:g} in {exact_percent(power['power'])} of such runs"
    corrected = f", before the correction for {counted(model.tests(), 'test')}" if model.tests() > 1 else ""
    return f" A true difference of {unsigned_points(mde)} points or more would {found}{corrected}."


def _sentence(model: Model, blocks: Sequence[Block], name: str) -> str:
    several = len(model.temps) > 1
    said = []
    alike: dict[str, list[str]] = {}  # what both have, where every question came out the same
    for block in blocks:
        metric = block.data["metrics"][name]
        if metric["delta_mean"] is None:
            said.append(f"undefined at temperature {block.temp}" if several else "undefined")
            continue
        if judged(block, name, model.alpha) is Verdict.SAME:
            alike.setdefault(percent(metric["mean_treatment"]), []).append(block.temp)
            continue
        said.append(
            (f"at temperature {block.temp}: " if several else "")
            + f"{percent(metric['mean_treatment'])} against {percent(metric['mean_control'])}, "
            f"{points(metric['delta_mean'])} points ({_evidence(metric)})"
        )
    for share, temps in alike.items():
        where = f"at temperature {listed(temps)}: " if several else ""
        said.append(f"{where}{share} with both, every question the same")
    sentence = f"{_capital('; '.join(said))}."
    if name == "abstain_rate" and not alike:
        return " ".join([sentence, *_where_abstained(blocks[0], several)])
    return sentence


def _where_abstained(block: Block, several: bool) -> list[str]:
    """Whether abstaining hit questions that have an answer: only beside ones that have none does that need saying."""
    kinds = block.data["abstention"]
    if len(kinds) < 2 or any(kind["delta_mean"] is None for kind in kinds.values()):
        return []
    said = [
        f"{points(kinds[kind]['delta_mean'])} points where the question {has} an answer"
        for kind, has in (("unanswerable", "has not"), ("answerable", "has"))
    ]
    said = [text.replace("has not an answer", "has no answer") for text in said]
    return [f"That is {listed(said)}{f' (temperature {block.temp})' if several else ''}."]


def _across(model: Model, blocks: Sequence[Block], name: str, of: str) -> str:
    """A phrase on metric *name* over all temperatures: "on open-book questions, more right answers (+12.9 points)"."""
    blocks = [block for block in blocks if name in block.data["metrics"]]
    if not blocks:
        return ""
    groups: dict[str, list[Block]] = {}
    for block in blocks:
        groups.setdefault(_effect(judged(block, name, model.alpha), block.data["metrics"][name]), []).append(block)
    phrases = [f"{effect} {_COUNTED[name]}{_deltas(model, members, name)}" for effect, members in groups.items()]
    return f"{of}{', '.join(phrases)}"


def _deltas(model: Model, blocks: Sequence[Block], name: str) -> str:
    """The differences of *blocks* in parentheses: one by one while there are few, else their range."""
    deltas = [block.data["metrics"][name]["delta_mean"] for block in blocks]
    temps = [block.temp for block in blocks]
    if None in deltas:
        return f" at temperature {listed(temps)}" if len(model.temps) > 1 else ""
    if len(model.temps) == 1:
        if judged(blocks[0], name, model.alpha) is Verdict.SAME:
            return ""
        return f" ({points(deltas[0])} points, {_evidence(blocks[0].data['metrics'][name])})"
    if len(blocks) > 2:
        ends = dict.fromkeys((points(min(deltas)), points(max(deltas))))
        return f" ({' to '.join(ends)} points at temperature {listed(temps)})"
    first = f"{points(deltas[0])} points at temperature {temps[0]}"
    others = [f"{points(d)} at {t}" for d, t in zip(deltas[1:], temps[1:], strict=True)]
    return f" ({', '.join([first, *others])})"


def _effect(verdict: Verdict, metric: Json) -> str:
    match verdict:
        case Verdict.BETTER | Verdict.WORSE | Verdict.MORE | Verdict.FEWER:
            return "more" if metric["delta_mean"] > 0 else "fewer"
        case Verdict.HINT_BETTER | Verdict.HINT_WORSE | Verdict.HINT:
            return "a hint of more" if metric["delta_mean"] > 0 else "a hint of fewer"
        case Verdict.EQUIVALENT:
            return "practically as many"
        case Verdict.SAME:
            return "exactly as many"
        case Verdict.NONE:
            return "no judgement on"
    return "no clear change in"


def _evidence(metric: Json) -> str:
    primary = metric["primary"]
    q = primary["q_value"]
    interval = f"95% CI {points_span(primary['ci_95'])}" if primary["ci_95"] else "no interval"
    corrected = "" if q is None or q == primary["p_value"] else f", {p_phrase('q', q)}"
    return f"{interval}, {p_phrase('p', primary['p_value'])}{corrected}"


def _named(verdicts: Sequence[Verdict], blocks: Sequence[Block]) -> str:
    """The verdict, or each with its temperatures: "better at temperature 0, unclear at 0.3 and 0.7"."""
    temps: dict[str, list[str]] = {}
    for verdict, block in zip(verdicts, blocks, strict=True):
        temps.setdefault(verdict.value, []).append(block.temp)
    if len(temps) == 1:
        return verdicts[0].value
    return ", ".join(f"{value} at {listed(of)}" for value, of in temps.items()).replace(" at ", " at temperature ", 1)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
