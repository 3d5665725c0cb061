"""The verdict on a difference, and what metrics and types are called.

A difference counts when its q-value, corrected for every primary test of the trial, is below alpha. What
counts only alone is a hint. What does not count is never "no effect": either the data bound it within the
margin that was fixed before the run (equivalent), or they leave it unclear.
"""

from __future__ import annotations

from enum import Enum

from pipeline.report.artifacts import Block, Json

TYPE_NAMES = {"closed": "Closed-book", "open": "Open-book"}
METRIC_NAMES = {
    "em": "EM",
    "f1": "F1",
    "abstain_rate": "Abstain",
    "false_answer_rate": "False-Ans",
    "unsupported_rate": "Unsupported",
}
METRIC_WORDS = {  # in sentences, where an abbreviation would stop a reader
    "em": "right answers",
    "f1": "overlap with the gold answers",
    "abstain_rate": "abstentions",
    "false_answer_rate": "false answers",
    "unsupported_rate": "unsupported answers",
}
METRIC_MEANINGS = {
    "em": "exact match with a gold answer; on an unanswerable question, an abstention",
    "f1": "overlap of words with the best gold answer",
    "abstain_rate": "answers that decline to answer",
    "false_answer_rate": "unanswerable questions that were answered all the same",
    "unsupported_rate": "answers that the passage does not support",
}


class Verdict(Enum):
    """What may be said of a difference."""

    BETTER = "better"
    WORSE = "worse"
    MORE = "more"
    FEWER = "fewer"
    HINT_BETTER = "hint: better"
    HINT_WORSE = "hint: worse"
    HINT = "hint"
    EQUIVALENT = "equivalent"
    NOT_WORSE = "not worse"
    SAME = "no change"
    UNCLEAR = "unclear"
    NONE = "not defined"

    @property
    def tone(self) -> str:
        """good, bad or open, for a writer that can show it."""
        return {Verdict.BETTER: "good", Verdict.WORSE: "bad"}.get(self, "open")

    @property
    def counts(self) -> bool:
        """Whether the difference was shown, after correction."""
        return self in (Verdict.BETTER, Verdict.WORSE, Verdict.MORE, Verdict.FEWER)


def judge(metric: Json, tost: Json | None, alpha: float) -> Verdict:
    """The verdict on one metric's object; *tost* is its equivalence test, None without a margin."""
    delta, p, q = metric["delta_mean"], metric["primary"]["p_value"], metric["primary"]["q_value"]
    if delta is None or p is None or q is None:
        return Verdict.NONE
    if not metric["wins"] and not metric["losses"]:
        return Verdict.SAME
    gain = {"higher": delta, "lower": -delta, "neutral": 0.0}[metric["direction"]]
    if q < alpha:
        if gain:
            return Verdict.BETTER if gain > 0 else Verdict.WORSE
        return Verdict.MORE if delta > 0 else Verdict.FEWER
    if p < alpha:
        if gain:
            return Verdict.HINT_BETTER if gain > 0 else Verdict.HINT_WORSE
        return Verdict.HINT
    if tost and tost["equivalent"]:
        return Verdict.EQUIVALENT
    return Verdict.NOT_WORSE if tost and tost["non_inferior"] else Verdict.UNCLEAR


def judged(block: Block, name: str, alpha: float) -> Verdict:
    """The verdict on metric *name* of *block*."""
    return judge(block.data["metrics"][name], block.data["tost"].get(name), alpha)
