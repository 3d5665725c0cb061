"""A provider's lines in every shape seen or feared give one kind of row, or one clear reason."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import jsonl
from pipeline.providers.rows import BadRow, Row, read_row

COMPLETION = {"id": "chatcmpl-1", "choices": [{"index": 0, "message": {"content": "4"}}], "usage": {"total_tokens": 49}}


def line(**fields):
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    "data",
    [
        line(custom_id="a", response=COMPLETION),
        line(custom_id="a", response=COMPLETION, error=None),
        line(custom_id="a", response=COMPLETION, error={}),
        line(custom_id="a", response={"status_code": 200, "request_id": "r", "body": COMPLETION}),
        line(custom_id="a", response=COMPLETION | {"body": None}),
        line(customId="a", response=COMPLETION),
        line(request_id="a", response=COMPLETION),
        line(custom_id=None, customId="a", response=COMPLETION),
        line(id="batch_req_1", custom_id="a", request_id="r", response=COMPLETION),
        b"  " + line(custom_id="a", response=COMPLETION) + b"\r\n",
        b"\xef\xbb\xbf" + line(custom_id="a", response=COMPLETION),
        line(custom_id="a", response=COMPLETION).replace(b": ", b" :\t"),
    ],
)
def test_a_success_gives_the_flat_completion_whatever_it_is_wrapped_in(data):
    row = read_row(data)
    assert (row.custom_id, row.error) == ("a", None)
    assert {key: row.response[key] for key in COMPLETION} == COMPLETION


def test_what_a_completion_holds_is_not_judged_here():
    for choice in ({"message": {"content": ""}}, {"message": None}, {"finish_reason": "length"}, {}):
        assert read_row(line(custom_id="a", response={"choices": [choice, {}], "usage": None})).response is not None


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"error": {"message": "no", "code": 400}}, 400, "no"),
        ({"error": {"message": "no", "code": "bad_request", "param": None, "extra": [1]}}, "bad_request", "no"),
        ({"error": "plain text"}, None, "plain text"),
        ({"error": {"error": {"message": "inner", "code": 1}}}, 1, "inner"),
        ({"error": {"error": "inner"}}, None, "inner"),
        ({"response": None, "error": {"message": "no", "code": 400}}, 400, "no"),
        ({"response": {"error": {"message": "no", "code": 7}}}, 7, "no"),
        ({"response": {"status_code": 429, "body": {"error": {"message": "slow", "type": "rate"}}}}, 429, "slow"),
        ({"response": {"status_code": 500, "body": "upstream"}}, 500, "upstream"),
        ({"response": {"status_code": 500, "body": {"message": "m"}}}, 500, "m"),
        ({"response": {"status_code": 400, "body": None}, "error": None}, 400, "neither an answer nor a reason"),
        ({"response": "gone"}, None, "gone"),
        ({"error": {"message": "no", "code": "400"}}, 400, "no"),  # else it would be asked again, to the same end
        ({"error": {"message": "no", "code": "4000"}}, "4000", "no"),
        ({"response": {"message": "no", "code": 3}}, 3, "no"),
        ({"message": "at the top", "code": 5}, 5, "at the top"),
        ({"error": {"code": 404}}, 404, "neither an answer nor a reason"),
        ({"error": {"message": {"detail": ["x"]}, "code": 400}}, 400, '{"detail":["x"]}'),
        ({"error": {"message": "no", "code": {"odd": 1}}}, None, "no"),
        ({}, None, "neither an answer nor a reason"),
        ({"response": None, "error": None}, None, "neither an answer nor a reason"),
        ({"response": {}}, None, "neither an answer nor a reason"),
        ({"response": []}, None, "neither an answer nor a reason"),
        ({"response": {"choices": []}}, None, "neither an answer nor a reason"),
        ({"response": {"choices": [None]}}, None, "neither an answer nor a reason"),
        ({"response": {"choices": "4"}, "error": ""}, None, "neither an answer nor a reason"),
    ],
)
def test_a_failure_gives_code_and_message_wherever_they_are(fields, code, message):
    row = read_row(line(custom_id="a", **fields))
    assert row.response is None
    assert row.error["code"] == code
    assert message in row.error["message"]


GOOD = line(custom_id="a", response=COMPLETION)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (GOOD[:-1], "not JSON"),
        (GOOD + GOOD, "not JSON"),
        (b"null", "not a JSON object"),
        (b'["custom_id"]', "not a JSON object"),
        (b'"a"', "not a JSON object"),
        (b"{}", "no custom_id"),
        (line(custom_id=None, response=COMPLETION), "no custom_id"),
        (line(custom_id=7), "custom_id is not a string .7"),
        (line(custom_id=["a"]), "not a string"),
        (line(custom_id="", customId="a"), "custom_id is empty"),
        (line(customId=7), "customId is not a string"),
        (b'{"custom_id":"a","response":NaN}', "not JSON"),
        (b'{"custom_id":"a","response":{"n":Infinity}}', "not JSON"),
        (b'{"custom_id":"a","response":{"n":1e999}}', "not JSON"),
        (b'{"custom_id":"a","custom_id":"b"}', "'custom_id' stands there twice"),
        (b'{"custom_id":"a","custom_id":"a"}', "twice"),
        (b'{"custom_id":"a","custom_\\u0069d":"b"}', "twice"),
        (b'{"custom_id":"a","response":{"usage":{"n":1,"n" :\t2}}}', "'n' stands there twice"),
        (b'{"custom_id":"a","n":1,"n"\t:2}', "twice"),
        (b'{"custom_id":"a","x":[{"k":1},{"k":2,"k":3}]}', "twice"),
        (b'{"custom_id":"a","k\\\\":1,"k\\\\":2}', "twice"),
        (b'{"custom_id":"a","x":"\\": \\":","k":1,"k":2}', "twice"),
        (b'{"custom_id":"a","n":18446744073709551616}', "beyond 64 bits"),
        (b'{"custom_id":"a","n":-9223372036854775809}', "beyond 64 bits"),
        (b'{"custom_id":"a","n":' + b"9" * 5000 + b"}", "not JSON|beyond 64 bits"),
        (b'{"custom_id":"a","x":' + b"[" * 101 + b"]" * 101 + b"}", "deeper than 100"),
        (b'{"custom_id":"a","x":' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "not JSON|deeper"),
        (b'{"custom_id":"\\ud800"}', "not JSON"),
        (b'{"custom_id":"a","x":"\\udc00"}', "not JSON"),
        (b'{"custom_id":"a","x":"\xff"}', "not JSON"),
        (b'{"custom_id":"a","x":"\x00"}', "not JSON"),
        ('{"custom_id":"a"}'.encode("utf-16"), "not JSON"),
    ],
)
def test_a_line_that_is_damaged_is_refused_with_the_reason(data, reason):
    with pytest.raises(BadRow, match=reason):
        read_row(data)


@pytest.mark.parametrize(
    "text",
    [
        "\u2028 \u2029 \x85",
        "\x00\x1b[2J",
        "\U0001f600",
        '"k":1,"k":2',
        '": ": \\": \\\\',
        "{" * 200,
        "tab\tcr\rlf\n",
        "\\",
    ],
)
def test_hostile_text_in_an_answer_is_text(text):
    completion = {"choices": [{"message": {"content": text}}], text: {text: 1}}
    for ascii_only in (True, False):
        data = json.dumps({"custom_id": text, "response": completion}, ensure_ascii=ascii_only).encode()
        assert read_row(data) == Row(text, completion, None)


def test_numbers_at_the_limits_are_kept():
    fields = {"a": 2**64 - 1, "b": -(2**63), "c": 1e300, "d": -0.0, "e": 1.5}
    assert read_row(line(custom_id="a", response=COMPLETION | fields)).response == COMPLETION | fields


TEXTS = st.text(alphabet=st.sampled_from('ab":\\{}[], \t\n\u00e9'), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def documents(draw):
    """JSON text in any spelling: escapes, blanks before colons, and now and then a key that stands twice."""
    separators = (",", draw(st.sampled_from([":", ": ", " :", "\t: "])))
    value = {"custom_id": "a", "x": draw(VALUES)}
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), separators=separators)
    if draw(st.booleans()):
        name = json.dumps(draw(TEXTS), ensure_ascii=draw(st.booleans()))
        text = text[:-1] + f",{name}{draw(st.sampled_from([':', ' :']))}1,{name}:2}}"
    return text.encode()


@given(documents())
@settings(max_examples=500, deadline=None)
def test_the_fast_way_accepts_exactly_what_the_strict_parser_accepts(data):
    try:
        strict = jsonl.loads_checked(data)
    except jsonl.BadJson:
        with pytest.raises(BadRow):
            read_row(data)
    else:
        assert strict["custom_id"] == "a"
        assert read_row(data).custom_id == "a"
