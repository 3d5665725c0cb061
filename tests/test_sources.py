"""Question files: every official format is read as it is, and nothing in them is guessed."""

import csv
import hashlib
import io
import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import sources
from pipeline.errors import SourceError, TrialmakeError, UnreadableFile
from pipeline.items import BENCHMARKS, question_id
from pipeline.paths import resource


@pytest.fixture
def path(tmp_path):
    return tmp_path / "questions"


def source(format_, **changes):
    common = {"path": "questions", "limit": None, "benchmark": None, "fields": {}, "answer_separator": "|"}
    return {"dataset": "quiz", "format": format_, **common, **changes}


def read(path, format_, content, **changes):
    if isinstance(content, list):
        content = "\n".join(json.dumps(row) for row in content)
    elif isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(sources.read(path, source(format_, **changes)))


def refusal(path, format_, content, **changes):
    with pytest.raises(SourceError) as refused:
        read(path, format_, content, **changes)
    assert str(path) in str(refused.value)
    return str(refused.value)


def squad(*questions, context="Oslo is in Norway.", title="Norway"):
    return {"version": "v2.0", "data": [{"title": title, "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def question(id_="q1", *answers, **fields):
    return {"id": id_, "question": "Where is Oslo?", "answers": [{"text": text} for text in answers], **fields}


def trivia(**answer):
    return {"Data": [{"QuestionId": "tq1", "Question": "Capital of Norway?", "Answer": answer}]}


# --- official formats -----------------------------------------------------------------------------


def test_squad_gives_open_book_items_that_cluster_by_paragraph(path):
    document = squad(question("q1", "Norway", "Norway", "in Norway"), question("q2", is_impossible=True))
    document["data"].append({"paragraphs": [{"context": "c", "qas": [question("q3", "x")]}]})
    one, two, three = read(path, "squad_v2", document)
    assert (one.item_id, one.question, one.answers) == ("q1", "Where is Oslo?", ("Norway", "in Norway"))
    assert (one.context, one.unanswerable, one.benchmark) == ("Oslo is in Norway.", False, "squad_v2")
    assert (two.answers, two.unanswerable) == ((), True)
    assert [item.paragraph for item in (one, two, three)] == ["Norway/0", "Norway/0", "1/0"]
    assert [item.title for item in (one, two, three)] == ["Norway", "Norway", "1"]


def pieces(*articles):
    """A SQuAD file of articles (title, passage ...), one question a passage."""
    numbers = iter(range(100))
    return {
        "data": [
            {"title": title, "paragraphs": [{"context": c, "qas": [question(f"q{next(numbers)}", c)]} for c in given]}
            for title, *given in articles
        ]
    }


def test_articles_of_one_title_do_not_share_their_paragraphs(path):
    """40 passages, each an article "Normans" of its own, were one cluster: no interval and no test was left."""
    items = read(path, "squad_v2", pieces(("T", "a"), ("T", "b"), ("U", "c", "d"), ("T", "e", "f")))
    assert [item.paragraph for item in items] == ["T/0", "T/1", "U/0", "U/1", "T/2", "T/3"]
    assert [item.title for item in items] == ["T", "T", "U", "U", "T", "T"]


def test_an_empty_title_is_none(path):
    items = read(path, "squad_v2", pieces(("", "a", "b"), (None, "c"), ("", "d")))
    assert [(item.title, item.paragraph) for item in items] == [("0", "0/0"), ("0", "0/1"), ("1", "1/0"), ("2", "2/0")]


def test_a_passage_that_is_given_again_with_another_question_stays_one_cluster(path):
    """Files made from a table have an article a question; within an article, places tell paragraphs apart."""
    items = read(path, "squad_v2", pieces(("T", "a"), ("T", "b"), ("T", "a"), ("U", "c", "c"), ("T", "d")))
    assert [item.paragraph for item in items] == ["T/0", "T/1", "T/0", "U/0", "U/1", "T/2"]


def test_nq_open_items_are_named_by_their_question(path):
    asked = "Où est Oslo ?"
    items = read(path, "nq_open", [{"question": text, "answer": ["Norway"]} for text in (asked, "b", asked)])
    nfd = unicodedata.normalize("NFD", asked)
    assert nfd != asked
    assert items[0].item_id == question_id(nfd) == hashlib.sha256(asked.encode()).hexdigest()[:16]
    assert [item.item_id.count("-") for item in items] == [0, 0, 1]
    assert items[2].item_id == f"{items[0].item_id}-2"
    assert items[0].context is None
    assert items[0].benchmark == "nq_open"


@pytest.mark.parametrize(
    ("answer", "golds"),
    [
        ({"NormalizedAliases": ["oslo", "christiania"], "Aliases": ["Oslo"], "Value": "Oslo"}, ("oslo", "christiania")),
        ({"Aliases": ["Oslo", "Oslo"], "Value": "Oslo"}, ("Oslo",)),
        ({"Value": "Oslo"}, ("Oslo",)),
        ({"NormalizedAliases": ["oslo"], "HumanAnswers": ["Oslo, Norway"]}, ("oslo", "Oslo, Norway")),
    ],
)
def test_triviaqa_golds_are_those_of_the_official_scorer(path, answer, golds):
    [item] = read(path, "triviaqa", trivia(**answer))
    assert (item.item_id, item.answers, item.benchmark) == ("tq1", golds, "triviaqa")


def test_the_real_files_are_read_whole(shared_data):
    """1,000 questions each; SQuAD's split of answerable and not is the one its README counts."""
    found = {}
    for format_, name in (
        ("squad_v2", "squad_v2_dev_sample.json"),
        ("nq_open", "nq_open_sample.jsonl"),
        ("triviaqa", "triviaqa_wikipedia_dev_sample.json"),
    ):
        found[format_] = list(sources.read(shared_data / name, source(format_)))
        assert len(found[format_]) == len({item.item_id for item in found[format_]}) == 1000
        assert len(list(sources.read(shared_data / name, source(format_, limit=7)))) == 7
    squads = found["squad_v2"]
    assert sum(item.unanswerable for item in squads) == 524
    assert len({item.paragraph for item in squads}) == 107
    assert len({item.title for item in squads}) == 8
    with open(shared_data / "expected_official_scores_per_question.csv", newline="", encoding="utf-8") as stream:
        scored = {row["id"] for row in csv.DictReader(stream)}
    assert {item.item_id for item in [*squads, *found["triviaqa"]]} <= scored


def test_the_bundled_questions_are_read():
    closed = resource("examples/questions/closed_book.jsonl")
    opened = resource("examples/questions/open_book.json")
    assert len(list(sources.read(closed, source("jsonl", benchmark="triviaqa")))) >= 60
    assert len(list(sources.read(opened, source("squad_v2")))) >= 60


# --- own rows -------------------------------------------------------------------------------------


def test_own_jsonl_rows_may_be_open_or_closed_book(path):
    rows = [
        {"id": "a", "question": "q1", "answers": ["x", "y", "x"]},
        {"id": 7, "question": "q2", "answers": "x"},
        {"question": "q3", "answers": ["x"], "context": "passage", "cluster": "c1"},
        {"question": "q4", "context": "passage", "is_unanswerable": True, "answers": []},
        {"question": "q5", "context": None, "answers": ["x"], "id": None, "cluster": None, "is_unanswerable": None},
    ]
    items = read(path, "jsonl", rows)
    assert [item.item_id for item in items] == [
        "a", "7", *(question_id(text) for text in ("q3", "q4", "q5")),
    ]  # fmt: skip
    assert [item.answers for item in items] == [("x", "y"), ("x",), ("x",), (), ("x",)]
    assert [item.context for item in items] == [None, None, "passage", "passage", None]
    assert [item.unanswerable for item in items] == [False, False, False, True, False]
    assert items[2].paragraph == "c1"
    assert items[3].paragraph == hashlib.sha256(b"passage").hexdigest()[:16]
    assert items[4].paragraph == items[4].item_id


def test_own_csv_rows_read_the_same(path):
    text = 'id,question,answers,context,is_unanswerable\r\na,"q, 1","x|y| |x",,\r\nb,"q\r\n2",,passage,TRUE\r\n\r\n'
    one, two = read(path, "csv", "\ufeff" + text)
    assert (one.item_id, one.question, one.answers, one.context) == ("a", "q, 1", ("x", "y"), None)
    assert (two.question, two.answers, two.context, two.unanswerable) == ("q\r\n2", (), "passage", True)


def test_columns_and_keys_may_have_other_names(path):
    fields = {"id": "nr", "question": "Frage", "answers": "Antwort"}
    [item] = read(path, "csv", "nr,Frage,Antwort\n1,Wo?,hier;da\n", fields=fields, answer_separator=";")
    assert (item.item_id, item.question, item.answers) == ("1", "Wo?", ("hier", "da"))
    [item] = read(path, "jsonl", [{"nr": 1, "Frage": "Wo?", "Antwort": ["hier"]}], fields=fields)
    assert (item.item_id, item.question, item.answers) == ("1", "Wo?", ("hier",))


@pytest.mark.parametrize(("mark", "called"), [(";", "semicolons"), ("\t", "tabs")])
@pytest.mark.parametrize("fields", [{}, {"question": "Frage"}])
def test_a_table_with_other_separators_is_told_so(path, mark, called, fields):
    """It was told to rename its question, which could not help."""
    text = f"id{mark}Frage{mark}answers\n1{mark}Wo?{mark}hier\n"
    with pytest.raises(SourceError, match=f"cells are separated by commas, not by {called}"):
        read(path, "csv", text, fields=fields)


def test_a_passage_may_be_longer_than_the_csv_modules_limit(path):
    """Reading once stopped at 131,072 characters a field."""
    [item] = read(path, "csv", f"question,answers,context\nq,ans,{'x' * 200_000}\n")
    assert len(item.context) == 200_000


@pytest.mark.parametrize(
    ("text", "flag"), [("true", True), ("1", True), ("Yes", True), ("false", False), ("0", False), ("no", False)]
)
def test_flags_as_spreadsheets_write_them(path, text, flag):
    answers = "" if flag else "ans"
    [item] = read(path, "csv", f"question,answers,context,is_unanswerable\nq,{answers},passage,{text}\n")
    assert item.unanswerable is flag


# --- every bad input: one clear error with its place ----------------------------------------------

GOOD = {"id": "a", "question": "q", "answers": ["x"]}
BAD = [
    # whole files
    ("squad_v2", "", "not JSON", ""),
    ("squad_v2", "{", "not JSON", ""),
    ("squad_v2", "[]", "has no list 'data'", ""),
    ("squad_v2", {"Data": []}, "has no list 'data'", ""),
    ("squad_v2", b"\xff\xfe{\x00}\x00", "not JSON", ""),
    ("triviaqa", {"data": []}, "has no list 'Data'", ""),
    ("csv", b"question,answers\n\xff,x\n", "is not UTF-8 (invalid start byte at byte 17)", ""),
    # places inside documents
    ("squad_v2", {"data": [1]}, "has no list 'paragraphs'", "data[0]"),
    ("squad_v2", {"data": [{"paragraphs": [1]}]}, "has no list 'qas'", "data[0].paragraphs[0]"),
    ("squad_v2", squad(1), "not of its format", "data[0].paragraphs[0].qas[0]"),
    ("squad_v2", squad(question("q1", "x"), {"id": "q2", "answers": []}), "no 'question'", "qas[1]"),
    ("squad_v2", squad(question(5, "x")), "expected text, found 5", "qas[0]"),
    ("squad_v2", squad(question("q1", "x"), context=None), "expected text, found None", "qas[0]"),
    ("squad_v2", squad(question("q1", "x"), context=" "), "the passage is empty", "qas[0]"),
    ("squad_v2", squad(question("q1")), "there is no answer", "qas[0]"),
    ("squad_v2", squad({**question(), "answers": ["x"]}), "not of its format", "qas[0]"),
    ("squad_v2", squad({**question(), "answers": None}), "not of its format", "qas[0]"),
    ("squad_v2", squad(question("q1", is_impossible="perhaps")), "expected true or false", "qas[0]"),
    ("squad_v2", squad(question("q1", "x", is_impossible=True)), "unanswerable, and there is an answer", "qas[0]"),
    ("squad_v2", squad(question("q1", "x"), question("q1", "x")), "'q1' stands there twice (first: ", "qas[1]"),
    ("triviaqa", {"Data": [1]}, "not of its format", "Data[0]"),
    ("triviaqa", trivia(), "no 'Value'", "Data[0]"),
    ("triviaqa", trivia(Aliases="Oslo"), "expected a list of texts, found 'Oslo'", "Data[0]"),
    ("triviaqa", trivia(Value="Oslo", HumanAnswers="Oslo"), "expected a list of texts, found 'Oslo'", "Data[0]"),
    ("triviaqa", {"Data": [{"QuestionId": "1", "Question": "q", "Answer": ["x"]}]}, "not of its format", "Data[0]"),
    # lines
    ("nq_open", [{"question": "q", "answer": "Oslo"}], "expected a list of texts, found 'Oslo'", "line 1"),
    ("nq_open", [{"question": "q", "answer": ["x"]}, {"question": "q2"}], "no 'answer'", "line 2"),
    ("nq_open", [{"question": "q", "answer": []}], "there is no answer", "line 1"),
    ("jsonl", '{"question": "q", "answers": ["x"]}\n\n{bad', "not JSON", "line 3"),
    ("jsonl", "[1]", "holds a JSON list, not an object", "line 1"),
    ("jsonl", "null", "holds a JSON NoneType, not an object", "line 1"),
    ("jsonl", '{"question": "q", "question": "p", "answers": ["x"]}', "'question' stands there twice", "line 1"),
    ("jsonl", '{"question": "\\ud800", "answers": ["x"]}', "not JSON", "line 1"),
    ("jsonl", '{"question": "q", "answers": [NaN]}', "not JSON", "line 1"),
    ("jsonl", [{**GOOD, "question": " \n"}], "the question is empty", "line 1"),
    ("jsonl", [{"id": "a", "answers": ["x"]}], "there is no 'question'; there are: id, answers", "line 1"),
    ("jsonl", [{"question": "q", "gold": ["x"]}], "fields: {answers: ...}", "line 1"),
    ("jsonl", [{**GOOD, "question": 5}], "expected text, found 5", "line 1"),
    ("jsonl", [GOOD, {**GOOD, "question": "other"}], "the item id 'a' stands there twice (first: ", "line 2"),
    ("jsonl", [{**GOOD, "id": ""}], "the id must have 1 to 500 characters", "line 1"),
    ("jsonl", [{**GOOD, "id": " \t"}], "the id must have 1 to 500 characters", "line 1"),
    ("jsonl", [{**GOOD, "id": "x" * 501}], "the id must have 1 to 500 characters", "line 1"),
    ("jsonl", [{**GOOD, "id": True}], "expected text, found True", "line 1"),
    ("jsonl", [{**GOOD, "id": 1.5}], "expected text, found 1.5", "line 1"),
    ("jsonl", [{**GOOD, "answers": []}], "there is no answer", "line 1"),
    ("jsonl", [{**GOOD, "answers": ["", " "]}], "there is no answer", "line 1"),
    ("jsonl", [{**GOOD, "answers": [5]}], "expected text, found 5", "line 1"),
    ("jsonl", [{**GOOD, "answers": {"text": ["x"], "answer_start": [0]}}], "expected a list of texts", "line 1"),
    ("jsonl", [{**GOOD, "context": "  "}], "the passage is empty", "line 1"),
    ("jsonl", [{**GOOD, "context": "c", "is_unanswerable": "maybe"}], "expected true or false", "line 1"),
    ("jsonl", [{**GOOD, "context": "c", "is_unanswerable": 1}], "expected true or false", "line 1"),
    ("jsonl", [{**GOOD, "context": "c", "is_unanswerable": True}], "unanswerable, and there is an answer", "line 1"),
    ("jsonl", [{"question": "q", "is_unanswerable": True}], "there is no passage", "line 1"),
    # tables
    ("csv", "question;answers\nq;x\n", "separated by commas, not by semicolons", "line 1"),
    ("csv", "question,gold\nq,x\n", "there is no 'answers'; there are: question, gold", "line 1"),
    ("csv", "question,answers\nWhat, now?,x\n", "3 cells under a header of 2", "line 2"),
    ("csv", "question,answers\nq,x\nq2\n", "1 cells under a header of 2", "line 3"),
    ("csv", 'question,answers\n"a\nb",x\nq2\n', "1 cells under a header of 2", "line 4"),
    ("csv", "question,question,answers\nq,p,x\n", "two columns have the same name", "line 1"),
    ("csv", 'question,answers\n"q" p,x\n', "is not valid CSV", "line 2"),
    ("csv", 'question,answers\nq,x\n"q,x\n', "is not valid CSV", "line 3"),
    ("csv", "question,answers\n,x\n", "the item has no 'question'", "line 2"),
    ("csv", "question,answers\nq,|\n", "there is no answer", "line 2"),
    ("jsonl", [{**GOOD, "answers": ["A"]}], "nothing is left of the answer 'A': squad_v2 drops", "line 1"),
    ("csv", "question,answers\nq,?|The\n", "nothing is left of the answer '?': squad_v2 drops", "line 2"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("format_", "content", "said", "place"), BAD, ids=[f"{n} {row[0]} {row[2][:30]}" for n, row in enumerate(BAD)]
)
def test_a_bad_item_is_one_error_that_names_its_place(path, format_, content, said, place):
    words = refusal(path, format_, content)
    assert said in words
    assert place in words
    assert len(words) < 600


@pytest.mark.parametrize(("bad", "more"), [(2, ""), (5, ""), (8, "\n  and 3 more")])
def test_all_mistakes_of_a_file_are_told_at_once(path, bad, more):
    rows = [GOOD, *({"id": f"b{n}", "question": " ", "answers": ["x"]} for n in range(bad)), {**GOOD, "id": "c"}]
    named = "".join(f"\n  line {n}: the question is empty." for n in range(2, 2 + min(bad, 5)))
    assert refusal(path, "jsonl", rows) == (
        f"{path}: {bad} items cannot be used:{named}{more}\nNext: write a question or remove the item"
    )


def test_mistakes_before_a_file_breaks_are_told_with_it(path):
    words = refusal(path, "csv", 'question,answers\nq\n,x\nq,x\n"q,x\n')
    assert [line.strip() for line in words.splitlines()[1:4]] == [
        "line 2: 1 cells under a header of 2.",
        "line 3: the item has no 'question'.",
        "line 5: is not valid CSV (unexpected end of data).",
    ]


def test_nothing_comes_after_a_bad_item(path):
    path.write_text("\n".join(json.dumps(row) for row in (GOOD, {"id": "b"}, {**GOOD, "id": "c"})))
    found = sources.read(path, source("jsonl"))
    assert next(found).item_id == "a"
    with pytest.raises(SourceError, match="there is no 'question'"):
        next(found)


def test_a_column_that_the_config_names_must_be_there(path):
    """Without it every item would quietly become closed-book."""
    words = refusal(path, "csv", "question,answers,Passage\nq,ans,c\n", fields={"context": "passage"})
    assert "there is no column 'passage', which the config's `fields` names; did you mean 'Passage'?" in words


def test_a_limit_reads_no_further(path):
    text = json.dumps(GOOD) + "\n{damaged\n"
    assert len(read(path, "jsonl", text, limit=1)) == 1
    assert "line 2" in refusal(path, "jsonl", text, limit=2)


def test_absent_and_unreadable_are_told_apart(tmp_path):
    for format_ in BENCHMARKS:
        with pytest.raises(SourceError, match="there is no such question file"):
            list(sources.read(tmp_path / "none", source(format_)))
        with pytest.raises(UnreadableFile):
            list(sources.read(tmp_path, source(format_)))


@pytest.mark.parametrize("format_", ["squad_v2", "triviaqa", "nq_open", "jsonl", "csv"])
def test_a_bom_and_crlf_are_accepted(path, format_):
    content = {
        "squad_v2": json.dumps(squad(question("q1", "x"))),
        "triviaqa": json.dumps(trivia(Value="x")),
        "nq_open": '{"question": "q", "answer": ["x"]}\r\n',
        "jsonl": json.dumps(GOOD) + "\r\n",
        "csv": "question,answers\r\nq,x\r\n",
    }[format_]
    [item] = read(path, format_, "\ufeff" + content)
    assert item.answers == ("x",)


KEYS = [
    "data", "paragraphs", "qas", "context", "id", "question", "answers", "text", "title", "is_impossible", "answer",
    "Data", "Question", "QuestionId", "Answer", "Aliases", "Value",
]  # fmt: skip
JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from([*BENCHMARKS]), JSONISH | st.binary(max_size=30) | st.text(max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_content_gives_items_or_our_error(tmp_path_factory, format_, content):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    try:
        items = list(sources.read(path, source(format_)))
    except TrialmakeError as refused:
        items = [refused]
    assert all(str(item) for item in items)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), unique=True, max_size=5)
)
@settings(max_examples=50, deadline=None)
def test_text_survives_jsonl_and_csv_alike(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "same"
    rows = [{"id": str(n), "question": text, "answers": ["ans"], "context": text} for n, text in enumerate(texts)]
    table = io.StringIO(newline="")
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "question", "answers", "context"])
    writer.writerows([row["id"], row["question"], "ans", row["context"]] for row in rows)
    assert read(path, "csv", table.getvalue()) == read(path, "jsonl", rows)


# --- prepared rows --------------------------------------------------------------------------------


def test_a_prepared_row_holds_what_scoring_needs(path):
    opened, _ = read(path, "squad_v2", squad(question("q1", "Norway"), question("q2", is_impossible=True)))
    assert opened.row("paragraph") == {
        "answers": ["Norway"], "benchmark": "squad_v2", "cluster": "Norway/0", "context": "Oslo is in Norway.",
        "dataset": "quiz", "id": "q1", "is_unanswerable": False, "question": "Where is Oslo?",
    }  # fmt: skip
    assert [opened.row(unit)["cluster"] for unit in ("paragraph", "title", "none")] == ["Norway/0", "Norway", "q1"]
    [closed] = read(path, "jsonl", [GOOD], benchmark="triviaqa")
    assert closed.row("paragraph") == {
        "answers": ["x"], "benchmark": "triviaqa", "cluster": "a", "dataset": "quiz", "id": "a", "question": "q",
    }  # fmt: skip
