"""What answers behind the emulator: an honest baseline, recorded answers, replayed systems."""

import json
import re
import string
from collections import Counter

import pytest
from emulator_kit import ABSTAIN, MODEL, Api, row, started

from pipeline.emulator.answers import asked as asking
from pipeline.emulator.answers import baseline
from pipeline.emulator.answers.completion import Answerer, JobSettings, tokens
from pipeline.emulator.answers.recorded import question_id
from pipeline.emulator.config import Config
from pipeline.errors import ConfigError

PASSAGE = (
    "The harbour of Port Elva was built in 1874 by the engineer Marta Lindqvist. It cost 240,000 crowns. "
    "The lighthouse was added eleven years later because many ships were lost in fog. "
    "Today the town lives on tourism and mussels."
)


def answer(request, **settings):
    """The completion's content, or the error, of one row."""
    outcome = Answerer(Config.from_dict(settings)).complete(request["custom_id"], request["body"], JobSettings(MODEL))
    return outcome.error or outcome.response["choices"][0]["message"]["content"]


def ask(question, **more):
    return answer(row(0, question, PASSAGE, **more))


# --- reading a request -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "phrase"),
    [
        ("Answer briefly.", None),
        ("Always answer. Never say you don't know.", None),
        ("Do not abstain: give your best guess.", None),
        ("Don't answer 'I don't know'.", None),
        ('If you do not know, reply "I don\'t know".', "I don't know"),
        ("If the passage does not contain the answer, reply with: UNANSWERABLE", "UNANSWERABLE"),
        ("Say exactly: I don't know. Then stop.", "I don't know"),
        ("If unsure, say 'No answer' and do not use outside knowledge.", "No answer"),
        ("If it cannot be answered, say 'No answer'.", "No answer"),
        ("Do not use other knowledge. If you are not certain, say that.", asking.DEFAULT_ABSTENTION),
        ("", None),
    ],
)
def test_the_system_prompt_says_whether_and_how_to_abstain(system, phrase):
    assert asking.abstention(system) == phrase


def test_a_request_is_read_from_its_messages_and_its_id():
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Passage:\none\n\nQuestion: not this\n\nQuestion: this one?"},
    ]
    got = asking.read("d|a%7Cb%25|tre%7Cat|0.7|3|open", messages, 0.7)
    assert (got.item_id, got.condition, got.sample) == ("a|b%", "tre|at", 3)
    assert (got.passage, got.question) == ("one\n\nQuestion: not this", "this one?")
    closed = asking.read("free-form id", [{"role": "user", "content": [{"type": "text", "text": "Question: q?"}]}], 0)
    assert (closed.item_id, closed.condition, closed.sample, closed.passage, closed.question) == (
        ("free-form id", "", 0, None, "q?")
    )


def test_chance_draws_by_score_and_temperature():
    scores = [1.0, 0.5, 0.0]
    assert {asking.draw(scores, 0.0, luck / 10) for luck in range(10)} == {0}
    drawn = Counter(asking.draw(scores, 1.0, asking.chance(0, f"id {number}")) for number in range(3000))
    assert drawn[0] > drawn[1] > drawn[2] > 300
    cold = Counter(asking.draw(scores, 0.1, asking.chance(0, f"id {number}")) for number in range(3000))
    assert cold[0] > 2900


# --- the baseline -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("When was the harbour of Port Elva built?", "1874"),
        ("Who built the harbour of Port Elva?", "Marta Lindqvist"),
        ("How many crowns did it cost?", "240,000"),
        ("Why was the lighthouse added?", "many ships were lost in fog"),
    ],
)
def test_it_finds_what_stands_in_the_passage(question, expected):
    assert ask(question) == expected


def test_it_abstains_only_when_asked_to_and_nothing_fits():
    strange = "Which planet did the astronomers discover beyond Neptune?"
    assert ask(strange, system=ABSTAIN) == "I don't know"
    assert ask(strange) in PASSAGE
    assert ask("Who built the harbour of Port Elva?", system=ABSTAIN) == "Marta Lindqvist"


def test_it_reads_nothing_but_the_request():
    other = PASSAGE.replace("1874", "1921").replace("Marta Lindqvist", "Olof Brandt")
    assert answer(row(0, "When was the harbour of Port Elva built?", other)) == "1921"
    assert answer(row(0, "Who built the harbour of Port Elva?", other)) == "Olof Brandt"


def test_samples_agree_when_cold_and_differ_when_hot():
    def answers(temperature):
        ids = [f"d|1|control|{temperature}|{sample}|open" for sample in range(30)]
        return [ask("Who built the harbour of Port Elva?", custom_id=one, temperature=temperature) for one in ids]

    assert set(answers(0)) == {"Marta Lindqvist"}
    hot = answers(1.0)
    assert len(set(hot)) > 2
    assert Counter(hot).most_common(1)[0][0] == "Marta Lindqvist"
    assert answers(1.0) == hot


def test_the_seed_changes_hot_answers_only():
    ids = [f"d|{number}|control|1|0|open" for number in range(20)]
    hot = [row(0, "Who built it?", PASSAGE, custom_id=one, temperature=1.0) for one in ids]
    assert [answer(one, seed=1) for one in hot] != [answer(one, seed=2) for one in hot]
    cold = row(0, "Who built it?", PASSAGE)
    assert answer(cold, seed=1) == answer(cold, seed=2)


@pytest.mark.parametrize("passage", ["", " ", ".", "?!", "\n\n", "word", "É" * 50, "a" * 5000, "1 2 3", "\u2028x"])
@pytest.mark.parametrize("question", ["", "?", "who", "How many?", "x" * 3000])
def test_no_passage_or_question_breaks_it(passage, question):
    assert isinstance(answer(row(0, question, passage, system=ABSTAIN)), str)
    assert isinstance(answer(row(0, question, passage)), str)


def _normal(text):
    text = re.sub(r"\b(a|an|the)\b", " ", "".join(c for c in text.lower() if c not in string.punctuation))
    return text.split()


def _f1(got, gold):
    common = sum((Counter(_normal(got)) & Counter(_normal(gold))).values())
    return 2 * common / (len(_normal(got)) + len(_normal(gold))) if common else 0.0


def test_it_is_a_plausible_baseline_on_real_questions(shared_data):
    """EM 29 and F1 37 on the answerable ones when this was written: far from a trained model, far from chance."""
    data = json.loads((shared_data / "squad_v2_dev_sample.json").read_text())["data"]
    asked = [(p["context"], qa) for article in data for p in article["paragraphs"] for qa in p["qas"]]
    exact, overlap, count, abstained = 0.0, 0.0, 0, Counter()
    for context, qa in asked:
        question = asking.Asked(qa["id"], qa["id"], "c", 0, context, qa["question"], None, 0.0)
        if not qa["is_impossible"]:
            got = baseline.answer(question, 0.0)
            exact += max(_normal(got) == _normal(gold["text"]) for gold in qa["answers"])
            overlap += max(_f1(got, gold["text"]) for gold in qa["answers"])
            count += 1
        asking_to_abstain = asking.Asked(qa["id"], qa["id"], "c", 0, context, qa["question"], "-", 0.0)
        abstained[qa["is_impossible"]] += baseline.answer(asking_to_abstain, 0.0) == "-"
    assert 0.25 < exact / count < 0.45
    assert 0.33 < overlap / count < 0.50
    assert abstained[True] / (len(asked) - count) > abstained[False] / count + 0.05


# --- recorded answers to the closed book ----------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "recorded.jsonl"
    lines = [
        {
            "question": "Who painted it?",
            "answers": {"control": ["Vermeer", "Rembrandt", "Hals"], "treatment": ["Vermeer"]},
        },
        {"question": "Café where?", "answers": {"control": ["Paris"]}},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_recorded_answers_go_by_question_and_condition(recorded):
    assert answer(row(0, "Who painted it?"), recorded=recorded) == "Vermeer"
    assert answer(row(0, " who  painted IT?"), recorded=recorded) == "Vermeer"
    assert answer(row(0, "Cafe\u0301 where?"), recorded=recorded) == "Paris"
    hot = [
        answer(
            row(0, "Who painted it?", custom_id=f"d|0|control|1|{sample}|closed", temperature=1.0), recorded=recorded
        )
        for sample in range(40)
    ]
    assert set(hot) == {"Vermeer", "Rembrandt", "Hals"}
    assert Counter(hot).most_common(1)[0][0] == "Vermeer"


def test_an_unknown_question_gets_the_abstention_asked_for_or_a_guess(recorded):
    unknown = "What did Ada Lovelace write?"
    assert answer(row(0, unknown, system=ABSTAIN), recorded=recorded) == "I don't know"
    assert answer(row(0, unknown), recorded=recorded) == "Ada Lovelace"
    assert answer(row(0, "Who painted it?", condition="third", system=ABSTAIN), recorded=recorded) == "I don't know"
    assert answer(row(0, "how?")) == asking.DEFAULT_ABSTENTION


# --- replayed systems -----------------------------------------------------------------------------------


def replay(tmp_path, content, system=None):
    path = tmp_path / "predictions"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return {"replay": {"control": {"path": str(path), "system": system}}}


def by_id(item, sample=0, condition="control", **more):
    return row(0, "q?", custom_id=f"d|{item}|{condition}|0|{sample}|closed", **more)


@pytest.mark.parametrize(
    ("content", "system", "expected"),
    [
        ({"x": "one", "y": ""}, None, ["one", "one", "one"]),
        ({"x": ["one", "two"]}, None, ["one", "two", "one"]),
        ({"systems": {"only": {"x": ["one", "two", "three"]}}}, None, ["one", "two", "three"]),
        ({"systems": {"a": {"x": "no"}, "b": {"x": ["one", "two", "three"]}}}, "b", ["one", "two", "three"]),
    ],
)
def test_every_form_of_recorded_predictions(tmp_path, content, system, expected):
    settings = replay(tmp_path, content, system)
    assert [answer(by_id("x", sample), **settings) for sample in range(3)] == expected


def test_predictions_by_question_are_found_by_their_hash(tmp_path):
    lines = [{"question": "caf\u00e9?", "prediction": " as is \n"}, {"question": "other", "prediction": "o"}]
    for count in (1, 2):
        settings = replay(tmp_path, "".join(json.dumps(line) + "\n" for line in lines[:count]))
        assert answer(by_id(question_id("cafe\u0301?")), **settings) == " as is \n"


def test_an_empty_answer_is_an_answer_and_a_missing_one_fails_its_row(tmp_path):
    settings = replay(tmp_path, {"y": "", "a|b": "piped"})
    assert answer(by_id("y"), **settings) == ""
    assert answer(by_id("a%7Cb"), **settings) == "piped"
    assert answer(by_id("z"), **settings)["code"] == 404
    assert answer(by_id("y", condition="treatment"), **settings) != ""  # not replayed: the baseline's


@pytest.mark.parametrize(
    ("content", "system", "message"),
    [
        ({"systems": {"a": {}, "b": {}}}, None, "name one of: a, b"),
        ({"systems": {"a": {}, "b": {}}}, "c", "name one of: a, b"),
        ({"x": 1}, None, "'x': expected a text"),
        ({"x": []}, None, "'x': expected a text"),
        ([], None, "expected {item id: answer}"),
        ('{"question": "q"}\n{"question": "q"}\n', None, "line 1"),
        ("{", None, "not JSON"),
    ],
)
def test_a_wrong_predictions_file_is_named(tmp_path, content, system, message):
    with pytest.raises(ConfigError) as error:
        answer(by_id("x"), **replay(tmp_path, content, system))
    assert message in str(error.value)
    assert "predictions" in str(error.value)


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("squad_v2_dev_sample.predictions.bert_single.json", None),
        ("triviaqa_wikipedia_dev_sample.predictions.flan_t5_large.json", None),
        ("triviaqa_wikipedia_dev_sample.predictions_5x2.json", "flan_t5_base"),
        ("nq_open_sample.predictions.synthetic.jsonl", None),
    ],
)
def test_the_shared_predictions_are_replayed_word_for_word(tmp_path, name, system, shared_data):
    """Through the API, file to file: what comes back is what was recorded."""
    text = (shared_data / name).read_text()
    if name.endswith(".jsonl"):
        predictions = {question_id(line["question"]): line["prediction"] for line in map(json.loads, text.splitlines())}
    else:
        predictions = json.loads(text)
        predictions = predictions["systems"][system] if system else predictions
    runs = {item: runs if isinstance(runs, list) else [runs] for item, runs in list(predictions.items())[:60]}
    sent = {
        f"d|{item}|control|0|{sample}|closed": run
        for item, all_runs in runs.items()
        for sample, run in enumerate(all_runs)
    }
    settings = {"replay": {"control": {"path": str(shared_data / name), "system": system}}}
    with started(tmp_path, **settings) as emulator, Api(emulator.url) as api:
        api.finished("j", [row(0, "q?", custom_id=one) for one in sent])
        got = {one: response["choices"][0]["message"]["content"] for one, response in api.results("j-out").items()}
    assert got == sent


# --- the completion ---------------------------------------------------------------------------------------


def complete(request, model=MODEL):
    return Answerer(Config()).complete(request["custom_id"], request["body"], JobSettings(model)).response


def test_ids_time_and_cached_tokens_belong_to_the_row_alone():
    one, again, other = complete(row(1)), complete(row(1)), complete(row(2))
    assert one == again
    assert one["id"] != other["id"]
    assert one["created"] != other["created"]
    assert complete(row(1), "accounts/fireworks/models/x") | {"model": MODEL} == one


def test_usage_follows_the_rule():
    request = row(0, "Who?", PASSAGE)
    usage = complete(request)["usage"]
    system, user = (message["content"] for message in request["body"]["messages"])
    assert usage["prompt_tokens"] == tokens(system) + tokens(user) + 8
    assert usage["prompt_tokens_details"] == {"cached_tokens": tokens(system) + 4}
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert [tokens(text) for text in ("", "a", "abcd", "abcde", "éé", "ééé")] == [0, 1, 1, 2, 1, 2]


def test_an_answer_ends_at_its_limit_or_at_a_stop(tmp_path):
    settings = replay(tmp_path, {"x": "ééééé one\ntwo"})
    answerer = Answerer(Config.from_dict(settings))
    cut = answerer.complete(**by_id("x", max_tokens=1), job=JobSettings(MODEL)).response
    assert (cut["choices"][0]["message"]["content"], cut["choices"][0]["finish_reason"]) == ("éé", "length")
    assert cut["usage"]["completion_tokens"] == 1
    stopped = answerer.complete(**by_id("x", stop=["\n"]), job=JobSettings(MODEL)).response
    assert (stopped["choices"][0]["message"]["content"], stopped["choices"][0]["finish_reason"]) == (
        "ééééé one",
        "stop",
    )


def test_several_choices_are_several_draws():
    request = row(0, "Who built the harbour of Port Elva?", PASSAGE, temperature=1.0, n=12)
    choices = complete(request)["choices"]
    assert [choice["index"] for choice in choices] == list(range(12))
    assert len({choice["message"]["content"] for choice in choices}) > 1


def test_token_ids_instead_of_messages_are_counted():
    response = Answerer(Config()).complete("x", {"prompt_token_ids": [1, 2, 3]}, JobSettings(MODEL)).response
    assert response["usage"]["prompt_tokens"] == 3
