"""NQ-Open: SQuAD's rules on the canonical decomposition (NFD) of the text; the official number is exact match only.

Lee et al. 2019, doi:10.18653/v1/P19-1612; `language/orqa/utils/eval_utils.py` of google-research/language.
"""

from __future__ import annotations

import unicodedata

from pipeline.scoring.benchmark import PUNCTUATION, Benchmark, tokens_without_articles


def tokens(text: str) -> list[str]:
    """*text* decomposed, in lower case, without ASCII punctuation and articles, cut at white space."""
    return tokens_without_articles(unicodedata.normalize("NFD", text).lower(), None, PUNCTUATION)


BENCHMARK = Benchmark("nq_open", tokens, None, keeps_empty_golds=True)
