"""SQuAD v2.0: punctuation is deleted, golds that normalise to nothing are dropped.

Rajpurkar et al. 2018, doi:10.18653/v1/P18-2124; `evaluate-v2.0.py` of rajpurkar/SQuAD-explorer.
"""

from __future__ import annotations

from pipeline.scoring.benchmark import PUNCTUATION, Benchmark, overlap_f1, tokens_without_articles


def tokens(text: str) -> list[str]:
    """*text* in lower case without ASCII punctuation and articles, cut at white space."""
    return tokens_without_articles(text.lower(), None, PUNCTUATION)


def f1(shared: int, predicted: int, gold: int) -> float:
    """Token F1; where a side has no token, 1 if both have none, else 0."""
    if not predicted or not gold:
        return float(predicted == gold)
    return overlap_f1(shared, predicted, gold)


BENCHMARK = Benchmark("squad_v2", tokens, f1, keeps_empty_golds=False)
