"""The bundled example's own questions, passages, prompts and recorded answers.

If one of these failed, the numbers of the first report a newcomer sees would be wrong without a sign of it.
"""

import re
import string
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline import jsonl

EXAMPLES = Path(__file__).parents[1] / "examples"
CLOSED = EXAMPLES / "questions" / "closed_book.jsonl"
OPEN = EXAMPLES / "questions" / "open_book.json"
RECORDED = EXAMPLES / "recorded" / "closed_book_answers.jsonl"
CONTROL = EXAMPLES / "prompts" / "control.txt"
TREATMENT = EXAMPLES / "prompts" / "treatment.txt"
FILES = [CLOSED, OPEN, RECORDED, CONTROL, TREATMENT, EXAMPLES / "README.md"]
ABSTENTION = "I don't know"


def rows(path: Path) -> list[dict[str, Any]]:
    return [jsonl.loads_checked(line.data) for line in jsonl.lines(path)]


def paragraphs() -> list[dict[str, Any]]:
    return [paragraph for article in jsonl.read_document(OPEN)["data"] for paragraph in article["paragraphs"]]


def open_questions() -> list[dict[str, Any]]:
    return [qa for paragraph in paragraphs() for qa in paragraph["qas"]]


def normalise(text: str) -> str:
    """SQuAD's normalisation, repeated here so that the data are not judged by the scorer they are to exercise."""
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def normalise_triviaqa(text: str) -> str:
    text = re.sub(f"[{re.escape(string.punctuation)}‘’´`]", " ", text.lower())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_are_utf8_composed_and_end_lines_with_lf(path):
    data = path.read_bytes()
    text = data.decode("utf-8")
    assert b"\r" not in data
    assert not text.startswith("\ufeff")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert text == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("path", [CLOSED, RECORDED], ids=lambda path: path.name)
def test_jsonl_is_canonical(path):
    for line in jsonl.lines(path):
        assert line.data == jsonl.dumps(jsonl.loads_checked(line.data)), f"{path} line {line.number}"


def test_open_book_file_is_canonical():
    assert OPEN.read_bytes() == jsonl.dumps_pretty(jsonl.read_document(OPEN))


def test_ids_and_questions_are_unique():
    items = rows(CLOSED) + open_questions()
    for field in ("id", "question"):
        twice = [value for value, count in Counter(item[field] for item in items).items() if count > 1]
        assert not twice, field
    assert all(re.fullmatch(r"c\d{3}", row["id"]) for row in rows(CLOSED))
    assert all(re.fullmatch(r"o\d{3}", qa["id"]) for qa in open_questions())


def test_no_question_stands_inside_another():
    """The emulator finds a closed-book question in the user message, so that it must point to one recording."""
    questions = [item["question"] for item in rows(CLOSED) + open_questions()]
    assert not [(one, other) for one in questions for other in questions if one != other and one in other]


def test_closed_book_questions_can_be_scored():
    items = rows(CLOSED)
    assert len(items) >= 72
    for item in items:
        assert set(item) - {"cluster"} == {"id", "question", "answers"}, item["id"]
        assert item["question"].endswith("?"), item["id"]
        assert item["answers"], item["id"]
        assert len(set(item["answers"])) == len(item["answers"]), item["id"]
        assert all(normalise(answer) for answer in item["answers"]), item["id"]


def test_a_closed_book_cluster_has_company():
    sizes = Counter(item["cluster"] for item in rows(CLOSED) if "cluster" in item)
    assert sizes
    assert min(sizes.values()) >= 2


def test_open_book_file_has_the_squad_v2_layout():
    document = jsonl.read_document(OPEN)
    assert set(document) == {"version", "data"}
    assert document["version"] == "v2.0"
    assert all(set(article) == {"title", "paragraphs"} for article in document["data"])
    assert all(set(paragraph) == {"context", "qas"} for paragraph in paragraphs())
    for qa in open_questions():
        expected = {"id", "question", "answers", "is_impossible"}
        assert set(qa) == expected | ({"plausible_answers"} if qa["is_impossible"] else set()), qa["id"]
        assert bool(qa["answers"]) is not qa["is_impossible"], qa["id"]


def test_passages_are_many_and_of_reading_length():
    document = jsonl.read_document(OPEN)
    contexts = [paragraph["context"] for paragraph in paragraphs()]
    assert len({article["title"] for article in document["data"]}) == len(document["data"]) >= 7
    assert len(set(contexts)) == len(contexts) >= 14
    assert all(60 <= len(context.split()) <= 140 for context in contexts)
    assert all(re.fullmatch(r"\S+( \S+)*", context) for context in contexts), "single spaces, no line breaks"


def test_a_third_of_the_open_book_questions_is_unanswerable():
    questions = open_questions()
    assert len(questions) >= 72
    assert 1 / 3 <= sum(qa["is_impossible"] for qa in questions) / len(questions) <= 1 / 2
    assert all(any(qa["is_impossible"] for qa in paragraph["qas"]) for paragraph in paragraphs())


def test_answers_stand_in_the_passage_where_answer_start_says():
    """Offsets count characters, not bytes: most passages hold letters of two or three bytes."""
    for paragraph in paragraphs():
        context = paragraph["context"]
        for qa in paragraph["qas"]:
            for span in qa["answers"] + qa.get("plausible_answers", []):
                start, end = span["answer_start"], span["answer_start"] + len(span["text"])
                assert context[start:end] == span["text"], qa["id"]
                assert not context[start - 1 : start].isalnum(), f"{qa['id']}: starts within a word"
                assert not context[end : end + 1].isalnum(), f"{qa['id']}: ends within a word"
                assert normalise(span["text"]), qa["id"]


def test_every_closed_book_question_has_recorded_answers():
    recorded = rows(RECORDED)
    assert [row["question"] for row in recorded] == [item["question"] for item in rows(CLOSED)]
    for row in recorded:
        assert set(row["answers"]) == {"control", "treatment"}, row["question"]
        for variants in row["answers"].values():
            assert len(set(variants)) == len(variants) >= 4, row["question"]
            assert all(variant == variant.strip() != "" for variant in variants), row["question"]


def test_the_recording_holds_no_ids_and_no_golds():
    """What answers must not know what is right: a question and the replies are all that it is given."""
    assert all(set(row) == {"question", "answers"} for row in rows(RECORDED))
    text = RECORDED.read_text(encoding="utf-8")
    assert not re.search(r"\b[co]\d{3}\b", text)
    assert not re.search(r"\b(gold|correct|expected|alias(es)?|is_right|score)\b\"?\s*:", text, re.IGNORECASE)


def test_the_recorded_conditions_differ_as_two_prompts_would():
    """Bounds, not figures: room to mend a question, none for a recording in which the prompts make no difference."""
    golds = {item["question"]: {normalise(answer) for answer in item["answers"]} for item in rows(CLOSED)}
    recorded = rows(RECORDED)

    def exact(condition: str) -> float:
        right = (normalise(row["answers"][condition][0]) in golds[row["question"]] for row in recorded)
        return sum(right) / len(recorded)

    def abstained(condition: str) -> float:
        likeliest = (row["answers"][condition][0] for row in recorded)
        return sum(text.startswith(("I don't know", "I'm not sure.")) for text in likeliest) / len(recorded)

    assert 0.50 <= exact("control") <= 0.65
    assert exact("control") + 0.05 <= exact("treatment") <= 0.75
    assert abstained("control") <= 0.05
    assert 0.08 <= abstained("treatment") <= 0.25


def test_only_the_treatment_prompt_asks_for_abstention():
    """The emulator's baseline sees which condition it serves by these words alone."""
    assert ABSTENTION in TREATMENT.read_text(encoding="utf-8")
    assert ABSTENTION.lower() not in CONTROL.read_text(encoding="utf-8").lower()


@pytest.mark.parametrize(
    ("question", "reply", "squad", "triviaqa"),
    [
        ("In which city is the White House?", "Washington DC", True, False),
        ("How many feet are there in one statute mile?", "5280", True, False),
        ("Which comic-book superhero is Peter Parker in secret?", "Spiderman", True, False),
        ("Which comic-book superhero is Peter Parker in secret?", "Spider Man", False, True),
        ("Which music genre grew out of block parties in the Bronx in the 1970s, with DJ Kool Herc among its founders?",
         "Hip-hop", False, True),
        ("Which London cathedral did Christopher Wren build after the Great Fire of 1666?", "St Paul’s Cathedral",
         False, True),
        ("Which programming language did Bjarne Stroustrup create?", "C", True, True),
    ],
)  # fmt: skip
def test_awkward_spellings_are_left_to_the_scorer(question, reply, squad, triviaqa):
    """The table of the README; an alias for one of these would hide how the benchmarks differ."""
    item = next(item for item in rows(CLOSED) if item["question"] == question)
    recorded = next(row for row in rows(RECORDED) if row["question"] == question)
    assert any(reply in variants for variants in recorded["answers"].values())
    assert (normalise(reply) in {normalise(answer) for answer in item["answers"]}) is squad
    assert (normalise_triviaqa(reply) in {normalise_triviaqa(answer) for answer in item["answers"]}) is triviaqa
