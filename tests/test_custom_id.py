"""The name of a request: it carries any ids there and back, and two requests never share one."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline import custom_id
from pipeline.custom_id import RequestId

FIELD = st.text("%|257Cc a\n\x00/é", max_size=8) | st.text(max_size=8)
TEMPERATURE = st.floats(0, 5)
REQUEST = st.builds(
    RequestId,
    FIELD,
    FIELD,
    st.sampled_from(["control", "treatment", "a_b"]),
    TEMPERATURE.map(custom_id.temperature_text),
    st.integers(0, 999),
    st.sampled_from([custom_id.OPEN, custom_id.CLOSED]),
)


@pytest.mark.parametrize(
    ("request_id", "text"),
    [
        (RequestId("squad", "56be", "control", "0.7", 2, "open"), "squad|56be|control|0.7|2|open"),
        (RequestId("a|b", "50%", "control", "0", 0, "closed"), "a%7Cb|50%25|control|0|0|closed"),
        (RequestId("%7C", "%25|", "control", "1", 0, "closed"), "%257C|%2525%7C|control|1|0|closed"),
    ],
)
def test_it_is_written_with_six_fields_and_escapes(request_id, text):
    assert custom_id.join(request_id) == text
    assert custom_id.split(text) == request_id


@given(REQUEST)
def test_any_request_reads_back(request_id):
    text = custom_id.join(request_id)
    assert text.count("|") == 5
    assert custom_id.split(text) == request_id


@given(REQUEST, REQUEST)
def test_two_requests_never_share_an_id(one, other):
    assume(one != other)
    assert custom_id.join(one) != custom_id.join(other)


@given(TEMPERATURE)
def test_the_shortest_decimal_of_a_temperature_reads_back(temperature):
    text = custom_id.temperature_text(temperature)
    assert float(text) == temperature
    assert not text.endswith(".0")


@pytest.mark.parametrize(
    ("temperature", "text"), [(0, "0"), (0.0, "0"), (0.7, "0.7"), (0.25, "0.25"), (1, "1"), (1e-05, "1e-05")]
)
def test_temperatures_as_people_write_them(temperature, text):
    assert custom_id.temperature_text(temperature) == text


@pytest.mark.parametrize("temp", ["0.0", "0", "0.00"])
def test_an_id_of_the_earlier_tool_is_the_same_request(temp):
    assert custom_id.split(f"squad|1|control|{temp}|0|open").temp == "0"


@pytest.mark.parametrize(
    "text",
    [
        "", "|", "a|b|c|0|0", "a|b|c|0|0|open|x", "a|b|c|0|0|ajar", "a|b|c|0|-1|open", "a|b|c|0|x|open",
        "a|b|c|0||open", "a|b|c|0|²|open", "a|b|c|zero|0|open", "a|b|c||0|open", "a|b|c|0|0|OPEN", "../../etc/passwd",
    ],
)  # fmt: skip
def test_what_is_no_id_is_refused(text):
    with pytest.raises(ValueError, match=r"six|does not end|could not convert"):
        custom_id.split(text)
