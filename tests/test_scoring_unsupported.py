"""What counts as unsupported by a passage, per strategy, and the known limits on real answers."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.unsupported import Passage

SHARED = Path(os.environ.get("TRIALMAKE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data sets are not on this machine")

PASSAGE = Passage(
    "In 1914 the 20-storey tower of Oslo's town hall—there were others in that category—burned. "
    "Its architect, “Ole Falk”, had paid 2.35 million for it."
)


@pytest.mark.parametrize(
    ("answer", "span", "overlap"),
    [
        ("town hall", False, False),
        ("The Town Hall!", False, False),
        ("Ole Falk", False, False),
        ("20", False, False),  # 20-storey
        ("Oslo", False, False),  # Oslo's
        ("others", False, False),  # between dashes
        ("2.35 million", False, False),
        # on token boundaries, never by characters
        ("cat", True, True),  # category
        ("19", True, True),  # 1914
        ("her", True, None),  # there; a function word has no content
        ("235 million", True, True),  # half of its content words
        # the whole span, or enough of the words
        ("hall town", True, False),
        ("architect of the tower", True, False),
        ("The answer is Ole Falk.", True, False),
        ("Ole Falk of Oslo built the tower of glass", True, False),  # 4 of 6 content words
        ("Ole Falk drew plans in Bergen", True, True),  # 2 of 5
        ("Trondheim", True, True),
        # nothing to look for
        ("", None, None),
        ("the", None, None),
        ("—", None, None),
        ("of it", True, None),
    ],
)
def test_what_is_unsupported(answer, span, overlap):
    assert PASSAGE.unsupported(answer, 0.6) == (span, overlap)


def test_the_threshold_is_the_share_that_suffices():
    answer = "Ole Falk Bergen"  # 2 of 3 content words
    assert [PASSAGE.unsupported(answer, threshold).overlap for threshold in (0.5, 2 / 3, 0.67)] == [False, False, True]


@given(st.lists(st.text(alphabet="abc-’. \n", max_size=8), min_size=1), st.data())
def test_any_run_of_a_passage_is_supported_by_both(words, data):
    first, last = sorted(data.draw(st.tuples(*2 * [st.integers(0, len(words))])))
    verdict = Passage(" ".join(words)).unsupported(" ".join(words[first:last]), 0.6)
    assert not verdict.span
    assert not verdict.overlap


@needs_data
def test_the_known_limits_on_real_questions():
    """Copying counts as support: nearly every gold is supported, and so is every wrong span."""
    document = json.loads((SHARED / "squad_v2_dev_sample.json").read_text(encoding="utf-8"))
    answers = json.loads((SHARED / "squad_v2_dev_sample.predictions.bert_single.json").read_text(encoding="utf-8"))
    golds, sentences, wrong = [], [], []
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            passage = Passage(paragraph["context"])
            for entry in paragraph["qas"]:
                if entry["answers"]:
                    gold = entry["answers"][0]["text"]
                    golds.append(passage.unsupported(gold, 0.6))
                    sentences.append(passage.unsupported(f"The answer is {gold}.", 0.6))
                elif answers[entry["id"]]:
                    wrong.append(passage.unsupported(answers[entry["id"]], 0.6))
    assert (len(golds), len(wrong)) == (476, 92)
    assert sum(bool(verdict.span) for verdict in golds) <= 0.005 * len(golds)
    assert all(verdict.span for verdict in sentences)
    assert sum(bool(verdict.overlap) for verdict in sentences) <= 0.005 * len(sentences)
    assert not any(verdict.span for verdict in wrong)
