"""TriviaQA: punctuation becomes a space, so do three quotation marks outside ASCII.

Joshi et al. 2017, doi:10.18653/v1/P17-1147; `evaluation/triviaqa_evaluation.py` of mandarjoshi90/triviaqa.
"""

from __future__ import annotations

from pipeline.scoring.benchmark import PUNCTUATION_TO_SPACE, Benchmark, overlap_f1, tokens_without_articles

_QUOTES = "\u2018\u2019\u00b4"  # the grave accent, fourth in the official list, is among the ASCII ones


def tokens(text: str) -> list[str]:
    """*text* in lower case without articles, cut at white space and punctuation."""
    text = text.lower()
    if not text.isascii():
        for quote in _QUOTES:
            text = text.replace(quote, " ")
    return tokens_without_articles(text, PUNCTUATION_TO_SPACE)


# Unlike SQuAD, F1 is 0 when both sides are empty, although the exact match is 1.
BENCHMARK = Benchmark("triviaqa", tokens, overlap_f1, keeps_empty_golds=True)
