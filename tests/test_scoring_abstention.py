"""Which replies decline to answer: labelled cases, the traps that earlier detectors fell into, and real answers."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.scoring import abstention, benchmarks
from pipeline.scoring.abstention_patterns import VERSIONS
from pipeline.scoring.response import EMPTY_AFTER_NORMALISATION, ItemScorer, ScoringSettings

SHARED = Path(os.environ.get("TRIALMAKE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data sets are not on this machine")

# Replies that decline, under the name of the rule that must say so.
DECLINES = {
    "empty": ["", "   ", "\n", "\t\r\n\u00a0"],
    "unknown": """
        unknown|Unknown.|UNKNOWN|**Unknown**|"unknown"|`unknown`|### Unknown|> Unknown|- Unknown|Answer: unknown
        Final Answer: Unknown.|The answer is unknown.|Answer - unknown|The answer is: unknown|unanswerable
        <unanswerable>|The question is unanswerable.|This question is unanswerable based on the passage.|n/a|N/A.
        N.A.|Not applicable|Not known|Undetermined|The person's name is unknown.|Unknown from the given text
        Not answerable.
    """,
    "no_answer": """
        no answer|No answer.|[no answer]|<no answer>|no_answer|NO ANSWER FOUND|There is no answer.
        There is no definitive answer.|There is no answer to this question in the passage.|none given|None provided.
        The passage provides no answer.
    """,
    "dont_know": """
        I don't know|I don’t know.|I dont know|i do not know|I do not know the answer.
        I don't know the answer to that question.|don't know|Don't know the answer|Sorry, I don't know.
        I'm sorry, but I don't know the answer.|I'm sorry. I don't know.|I'm afraid I don't know.
        I really don't know.|I don't know who wrote it.|I don't know when the treaty was signed.
        I don't know the exact year.|I don't know! |I don't know :(|I don't know. 🤷|Ｉ don't know|IDK|idk.|I dunno
        I don't remember.|We don't know.|**Answer:** I don't know.|Honestly, I don't know.|I have no way of knowing.
        I don't know, the passage doesn't say.|I don't know because the passage does not mention it.
        I have not heard of this person.
    """,
    "not_sure": "not sure|I'm not sure.|I am not sure about that.|Unsure|I'm not certain.|I'm not entirely sure.",
    "no_idea": "no idea|I have no idea.|No clue.|Honestly, no idea.|Not a clue.",
    "hard_to_say": """
        Hard to say.|It is impossible to say.|It is not possible to tell from the passage.|It is impossible to know.
        Based on the passage, it is not possible to determine the answer.|Hard to tell from the passage.
    """,
    "cannot_answer": """
        cannot answer|can't answer|Can’t answer.|cannot determine|unable to answer|unable to determine|Cannot say.
        Unable to answer based on the passage.|I cannot answer this question.|I can't answer that.|I couldn't say.
        I can't answer this question based on the given passage.
        I am unable to answer this question from the provided context.|I cannot determine who won from the passage.
        I couldn't find the answer in the passage.|I can't say for sure.
        I could not find any information about this.
        Based on the information provided, I cannot answer this question.
    """,
    "cannot_be_answered": """
        cannot be answered|This question cannot be answered.|The question can't be answered from the passage.
        Cannot be determined|It cannot be determined from the text.
        The exact date cannot be determined from the passage.|This problem cannot be answered.
    """,
    "not_enough_information": """
        not enough information|Not enough info|insufficient information|Insufficient information to answer.
        Insufficient data.|There is not enough information in the passage.
        There isn't enough information to answer the question.
        I don't have enough information to answer this question.
        The passage does not provide enough information to answer.
        As an AI language model, I do not have access to that information.
        The passage does not contain any information about that.
        The given information is insufficient to answer the question.|I don't have real-time information.
        The passage lacks this information.
    """,
    "passage_silent": """
        The passage does not say.|The passage doesn't say who won.|The text does not state the year.
        The context does not mention Oslo.|The given passage doesn't specify.|passage does not mention this
        The passage does not explicitly state when he died.|The passage does not mention John, Paul, or George.
        The passage does not mention St. Louis.|It doesn't say.|Doesn't say.|The article never mentions it.
        The passage gives no year.|The passage makes no mention of a king.|The text is silent on this.
        The passage does not say when he died. It only mentions that he was born in 1815.
        The passage fails to mention the year.
        The passage does not mention the dates. It discusses the causes of the war instead.
        Nothing in the passage indicates this.|The passage discusses the Normans but does not mention their king.
        Unfortunately, the passage does not mention it.|The passage does not say. Please provide more context.
        The passage mentions a treaty, but it does not say who signed it.|THE PASSAGE DOES NOT MENTION THIS.
    """,
    "not_stated": """
        not stated|Not stated.|Not mentioned.|not mentioned in the passage|Not provided in the passage.
        is not stated in the passage|not given|Not specified in the text.|not in the passage
        It is not mentioned in the passage.|The answer is not in the passage.|The answer is not provided.
        The population of Oslo is not mentioned in the passage.|The year is not given in the text.
        The name of the king isn't mentioned in the context.|The exact number is not specified.
        No specific date is mentioned in the passage.|The information is not available in the passage.
        Answer not found.
    """,
    "unclear": "It is unclear.|It is unclear from the passage who won.|It's not clear who did it.",
    "no_information": """
        there is no information|There is no information about this in the passage.
        There's no mention of Oslo in the passage.|According to the passage, there is no information about that.
        No information.|No information provided.
        No information about the population of Oslo is given in the passage.|No mention of this in the text.
        There is nothing about this in the passage.|There is no public information available.
    """,
    "false_premise": """
        The question contains a false premise.|The question is based on a false premise.
        The premise of the question is incorrect.|No such person exists.|There was no such treaty.
    """,
}

# Answers that a careless detector takes for abstentions.
ANSWERS = {
    "names of works and places": """
        Letter from an Unknown Woman|I Don't Know Why I Love You|I Don't Know How to Love Him|Don't Know Why
        The Unknown Soldier|Unknown Pleasures|The Tomb of the Unknown Soldier|Unknown Mortal Orchestra
        No Country for Old Men|Not in Our Time|The Unanswered Question|I Can't Tell You Why
        Can't Help Falling in Love|I Don't Know What You Want|It's Hard to Say Goodbye|Uncertain, Texas
        Person or Persons Unknown|Nothing Compares 2 U|The Man Who Wasn't There|I'm Not There|Not Given Lightly
        There's No Business Like Show Business|No Such Thing as Silence|No Idea's Original|I Don't Know What to Do
    """,
    "somebody else does not know": """
        the minister could not answer the charge|The king did not know who had won.|They did not know
        He did not answer|They were unable to determine the cause|because they did not have enough information
        He could not say who had won.
    """,
    "an answer behind a hedge": """
        Hard to say, possibly Oslo|The text gives no year, but it was 1815|I don't know, maybe Paris?|Not sure, Oslo
        I'm not sure, but I think it is Oslo.|I am not sure. Oslo|Unknown, but likely 1815|Unknown (possibly 1815)
        Not mentioned; probably 1815.|The passage does not say, so I would guess Oslo.|Oslo, but I am not sure.
        The passage does not state the year. However, it was 1815.|I'm not sure; it might be Mikhail Bulgakov.
        The passage states that it was 1815. It does not mention the month.
        1815. The passage does not say who signed it.|1815 (the passage does not say this explicitly)
        Oslo (not mentioned in the passage)|I do not know for certain, but Oslo.
        I'm not entirely sure, but I believe it was 1492.|The text gives no year, it was 1815.|I don't know - Oslo
        I don't know: Oslo|Unknown. Possibly Oslo.|I don't know.\\nOslo
    """,
    "negative facts": """
        it did not mention slavery|They do not have a king|It does not have a capital|It does not contain oxygen
        not found in Europe|does not require them to be declared|He was not given a trial|It was not given to him
        not known to science|no evidence of life|There is no such thing as a free lunch|There is no place like home
        not enough food|insufficient funds|insufficient oxygen|cannot be solved by a deterministic machine
        It is false.|This is incorrect.|not until 1917|unable to read|could not find work|No information was lost
        a material of unknown origin|lack of information
    """,
    "short answers": """
        no|No.|none|None|nothing|zero|nobody|Impossible|NA|Na|Oslo|The answer is Oslo.|I think the answer is Oslo.
        I'm sorry
    """,
    "words about passages": """
        the passage of the Reform Act|the text of the constitution|The context of war
        The passage says that he was born in Oslo.|the paragraph does not apply to aliens
        The story does not end well|the question is whether P = NP|Information theory
        The document gives citizens the right to vote|The passage mentions Oslo.|The passage discusses the Normans.
    """,
}


def _cases(table):
    for group, texts in table.items():
        listed = texts if isinstance(texts, list) else [text for line in texts.split("\n") for text in line.split("|")]
        for text in listed:
            if text.strip() or isinstance(texts, list):
                yield group, (text if isinstance(texts, list) else text.lstrip(" ")).replace("\\n", "\n")


@pytest.mark.parametrize(("name", "text"), list(_cases(DECLINES)))
def test_a_reply_that_declines_is_recognised_by_its_rule(name, text):
    assert abstention.rule(text, 1) == name


@pytest.mark.parametrize(("group", "text"), list(_cases(ANSWERS)))
def test_an_answer_is_not_taken_for_an_abstention(group, text):
    assert abstention.rule(text, 1) is None


def test_there_are_enough_labelled_cases_on_both_sides():
    assert len(list(_cases(DECLINES))) >= 60
    assert len(list(_cases(ANSWERS))) >= 60


@pytest.mark.parametrize("name", ["squad_v2", "triviaqa", "nq_open"])
@pytest.mark.parametrize("text", ["the", "...", "The. A!", "-"])
def test_a_text_that_normalises_to_nothing_abstains(name, text):
    scorer = ItemScorer(benchmarks()[name], ("oslo",), None, ScoringSettings())
    score = scorer.score(text)
    assert (score.abstain_rule, score.numbers.abstained, score.normalised) == (EMPTY_AFTER_NORMALISATION, 1, "")


@pytest.mark.parametrize(
    ("name", "gold", "reply"),
    [
        ("nq_open", "unknown", "Unknown."),
        ("triviaqa", "No Answer", "No answer"),  # an album
        ("triviaqa", "i don t know", "I Don't Know"),
        ("squad_v2", "not specified", "not specified"),
        ("triviaqa", "The The", "The The"),
    ],
)
def test_a_reply_that_equals_a_gold_of_its_item_is_an_answer(name, gold, reply):
    benchmark = benchmarks()[name]
    score = ItemScorer(benchmark, benchmark.golds([gold]), None, ScoringSettings()).score(reply)
    assert (score.abstain_rule, score.numbers.abstained, score.numbers.em) == (None, 0, 1)
    other = ItemScorer(benchmark, benchmark.golds(["Oslo"]), None, ScoringSettings()).score(reply)
    assert (other.numbers.abstained, other.numbers.em) == (1, 0)


def test_an_empty_reply_abstains_even_where_a_gold_is_empty():
    benchmark = benchmarks()["triviaqa"]
    assert (
        ItemScorer(benchmark, benchmark.golds(["The The"]), None, ScoringSettings()).score(" ").abstain_rule == "empty"
    )


def test_an_unknown_version_of_the_patterns_is_a_config_error():
    with pytest.raises(ConfigError, match=r"scoring\.abstention_patterns: is 99; allowed are 1"):
        ScoringSettings(abstention_patterns=99)


def test_the_cues_cost_no_rule_a_match(monkeypatch):
    """They only save time: in a version whose one cue every sentence has, the verdicts are the same."""
    monkeypatch.setitem(VERSIONS, 0, VERSIONS[1]._replace(cues=("",)))
    for _, text in [*_cases(DECLINES), *_cases(ANSWERS)]:
        assert abstention.rule(text, 0) == abstention.rule(text, 1)


@given(st.text(alphabet="nota knw'’.,;:!?()-–\n*", max_size=300))
def test_any_text_gets_a_verdict(text):
    name = abstention.rule(text, 1)
    assert name is None or name == abstention.EMPTY or name in {rule.name for rule in VERSIONS[1].rules}


@pytest.mark.parametrize(
    "text",
    [
        "." * 1_990 + "x",
        "sorry. " * 280,
        "(" * 1_990,
        "the passage " * 33,
        "not in the passage " * 20 + "x",
        "I don't know. " * 140,
    ],
    ids=lambda text: text[:12],
)
def test_no_text_makes_the_patterns_run_away(text):
    """Nested repetitions could take exponential time; a hang here is the failure."""
    assert abstention.rule(text, 1) in (None, "dont_know")


def test_a_reply_beyond_the_limits_is_an_answer():
    assert abstention.rule("I don't know. " * 200, 1) is None
    assert abstention.rule("The passage does not mention " + "very " * 100 + "old kings.", 1) is None


# --- real answers ---------------------------------------------------------------------------------


def _json(name):
    return json.loads((SHARED / name).read_text(encoding="utf-8"))


@needs_data
def test_no_gold_answer_of_any_data_set_is_taken_for_an_abstention():
    paragraphs = [
        paragraph for article in _json("squad_v2_dev_sample.json")["data"] for paragraph in article["paragraphs"]
    ]
    golds = {
        answer["text"]
        for paragraph in paragraphs
        for entry in paragraph["qas"]
        for answer in [*entry["answers"], *entry.get("plausible_answers", [])]
    }
    for entry in _json("triviaqa_wikipedia_dev_sample.json")["Data"]:
        golds.update(entry["Answer"]["Aliases"], entry["Answer"]["NormalizedAliases"])
    for line in (SHARED / "nq_open_sample.jsonl").read_text(encoding="utf-8").splitlines():
        golds.update(json.loads(line)["answer"])
    assert len(golds) > 20_000
    assert [gold for gold in golds if abstention.rule(gold, 1)] == []


@needs_data
def test_no_answer_of_a_real_system_is_taken_for_an_abstention():
    answers = set()
    for system in ("bert_single", "nlnet_single", "docqa_elmo_single"):
        answers.update(_json(f"squad_v2_dev_sample.predictions.{system}.json").values())
    for questions in _json("triviaqa_wikipedia_dev_sample.predictions_5x2.json")["systems"].values():
        answers.update(answer for five in questions.values() for answer in five)
    answers.discard("")
    assert len(answers) > 2_900
    assert [answer for answer in answers if abstention.rule(answer, 1)] == []


@needs_data
def test_the_words_of_the_made_up_nq_predictions_are_recognised():
    lines = (SHARED / "nq_open_sample.predictions.synthetic.jsonl").read_text(encoding="utf-8").splitlines()
    found = [row["prediction"] for row in map(json.loads, lines) if abstention.rule(row["prediction"], 1)]
    assert found == ["I don't know"] * 111
