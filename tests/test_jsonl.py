"""JSON as this project reads and writes it: strict, canonical, and never stopped by one bad line."""

import json
import math
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import jsonl
from pipeline.errors import DamagedArtifact, UnreadableFile
from pipeline.jsonl import BadJson

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBER = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


# --- lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n\n\n", []),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb\r\n", [(1, b"a"), (2, b"b")]),
        (b"a\n\n  \n\t\r\nb\n", [(1, b"a"), (5, b"b")]),
        (b"\xef\xbb\xbfa\nb\n", [(1, b"a"), (2, b"b")]),
        (b"\xef\xbb\xbf\na\n", [(2, b"a")]),
        (b"a\n\xef\xbb\xbfb\n", [(1, b"a"), (2, b"\xef\xbb\xbfb")]),
        (b"a\rb\n", [(1, b"a\rb")]),
        ("a\u2028b\u0085c\u2029d\x0be\x0cf\x1cg\n".encode(), [(1, "a\u2028b\u0085c\u2029d\x0be\x0cf\x1cg".encode())]),
        (b"a\x00b\n", [(1, b"a\x00b")]),
        (b"\xff\xfe\n", [(1, b"\xff\xfe")]),
    ],
)
def test_lines_end_at_lf_only_and_keep_their_numbers(tmp_path, data, expected):
    path = tmp_path / "f.jsonl"
    path.write_bytes(data)
    assert [(line.number, line.data) for line in jsonl.lines(path)] == expected


@given(st.lists(TEXT.filter(lambda text: text.strip()), max_size=6), st.sampled_from([b"\n", b"\r\n"]))
@settings(max_examples=50, deadline=None)
def test_whatever_stands_in_a_string_is_one_line(tmp_path_factory, texts, end):
    path = tmp_path_factory.mktemp("lines") / "f.jsonl"
    path.write_bytes(b"".join(jsonl.dumps(text) + end for text in texts))
    assert [jsonl.loads(line.data) for line in jsonl.lines(path)] == texts


def test_an_endless_line_is_refused_while_streaming(tmp_path):
    """A file without a line end must not fill the memory."""
    path = tmp_path / "f.jsonl"
    with open(path, "wb") as stream:
        stream.write(b"{}\n")
        stream.truncate(1 << 30)
    tracemalloc.start()
    lines = jsonl.lines(path)
    assert next(lines).data == b"{}"
    with pytest.raises(DamagedArtifact) as damage:
        next(lines)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "f.jsonl line 2: longer than 67,108,864 bytes" in str(damage.value)
    assert "left as it is" in str(damage.value)
    assert peak < 200e6


def test_absent_and_unreadable_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError):
        next(jsonl.lines(tmp_path / "none"))
    with pytest.raises(UnreadableFile):
        next(jsonl.lines(tmp_path))


# --- reading --------------------------------------------------------------------------------------

REFUSED = {
    "not JSON": [b"", b"{", b"{'a': 1}", b"nul", b"[1,]", b'{"a":}', b'"a', b"{} {}", b"\x00", b"01", b"+1", b".5"],
    "NaN and Infinity": [b"NaN", b"Infinity", b"-Infinity", b'{"a": NaN}', b"1e999", b"[-1e999]", b"1" + b"0" * 5000],
    "not UTF-8": [b'"\xff"', b'"\xc3"', b'"\xed\xa0\x80"', b'"\xc0\xaf"'],
    "UTF-16 and UTF-32": ['{"a": 1}'.encode(code) for code in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")],
    "a BOM inside": [b'\xef\xbb\xbf{"a": 1}'],
    "a lone surrogate": [b'"\\ud800"', b'"\\udc00"', b'"\\ud800\\ud800"', b'{"\\udfff": 1}'],
    "a bare control character": [b'"a\nb"', b'"a\x00b"', b'"\t"'],
    "nesting without end": [b"[" * 100_000, b"[" * 5000 + b"]" * 5000, b'{"a":' * 3000 + b"1" + b"}" * 3000],
}
ALSO_REFUSED_WHEN_CHECKED = {
    "twice": [b'{"a": 1, "a": 1}', b'{"x": [{"a": 1, "b": 2, "a": 3}]}', b'{"a": 1, "\\u0061": 2}', b'{"": 1, "": 2}'],
    "deeper than 100": [b"[" * 101 + b"]" * 101, b'{"a":' * 101 + b"1" + b"}" * 101],
    "beyond 64 bits": [b"18446744073709551616", b"-9223372036854775809", b"[1" + b"0" * 300 + b"]"],
}


def cases(table):
    return [pytest.param(data, id=f"{name} {data[:12]!r}") for name, group in table.items() for data in group]


@pytest.mark.parametrize("parse", [jsonl.loads, jsonl.loads_checked])
@pytest.mark.parametrize("data", cases(REFUSED))
def test_what_is_not_strict_json_is_refused_with_a_reason(parse, data):
    with pytest.raises(BadJson, match="not JSON"):
        parse(data)


@pytest.mark.parametrize(
    ("data", "reason"), [(data, reason) for reason, group in ALSO_REFUSED_WHEN_CHECKED.items() for data in group]
)
def test_the_checked_reading_refuses_what_parsers_let_pass(data, reason):
    with pytest.raises(BadJson, match=reason):
        jsonl.loads_checked(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'"\\u0000"', "\x00"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        ('"\u2028\u0085"'.encode(), "\u2028\u0085"),
        (b"18446744073709551615", 2**64 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"[" * 100 + b"]" * 100, ...),
        (b'{"a":' * 99 + b"1" + b"}" * 99, ...),
        (b'{"a": {"a": [{"a": 1}, {"a": 1}]}}', {"a": {"a": [{"a": 1}, {"a": 1}]}}),
        (b" \t\r\n1 ", 1),
        (b"1e-999", 0.0),
        (b"-0.0", -0.0),
    ],
)
def test_what_only_looks_odd_is_read(data, value):
    for parse in (jsonl.loads, jsonl.loads_checked):
        found = parse(data)
        assert value is ... or found == value


def test_a_key_that_stands_there_twice_is_named():
    with pytest.raises(BadJson, match="the key 'usage' stands there twice"):
        jsonl.loads_checked(b'{"id": 1, "usage": {}, "x": 1, "usage": {}}')


@given(st.binary(max_size=60) | TEXT.map(lambda text: text.encode()))
@example(b'{"a":1,"a":2}')
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_value_or_a_reason(data):
    reason = "read"
    try:
        value = jsonl.loads_checked(data)
    except BadJson as refused:
        reason = str(refused)
    else:
        assert json.loads(data) == value
    assert reason


# --- writing --------------------------------------------------------------------------------------


@given(VALUE)
@settings(max_examples=200, deadline=None)
def test_what_is_written_reads_back_and_equal_data_are_equal_bytes(value):
    data = jsonl.dumps(value)
    assert jsonl.loads_checked(data) == value
    assert b"\n" not in data
    assert jsonl.dumps(jsonl.loads(data)) == data
    assert jsonl.dumps(_reordered(value)) == data
    pretty = jsonl.dumps_pretty(value)
    assert pretty.endswith(b"\n")
    assert jsonl.dumps(jsonl.loads(pretty)) == data


def _reordered(value):
    if isinstance(value, dict):
        return {key: _reordered(value[key]) for key in reversed(value)}
    return [_reordered(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"a": [{"b": x}]}, lambda x: (1, x)])
def test_a_number_json_does_not_have_is_refused_and_not_written_as_null(bad, wrap):
    for write in (jsonl.dumps, jsonl.dumps_pretty):
        with pytest.raises(ValueError, match="JSON has no such number"):
            write(wrap(bad))


def test_floats_are_written_so_that_they_round_trip():
    assert jsonl.dumps([0.1, 1e22, 5e-324, 1 / 3]) == b"[0.1,1e+22,5e-324,0.3333333333333333]"


# --- documents ------------------------------------------------------------------------------------


def test_a_document_is_read_or_its_file_is_named(tmp_path):
    path = tmp_path / "d.json"
    path.write_bytes(b'{"a": [1]}\n')
    assert jsonl.read_document(path) == {"a": [1]}
    for data in (b"", b'{"a": 1', b'{"a": 1, "a": 2}', b"\x00" * 10):
        path.write_bytes(data)
        with pytest.raises(DamagedArtifact, match=str(path)):
            jsonl.read_document(path)
    with pytest.raises(UnreadableFile):
        jsonl.read_document(tmp_path)
    with pytest.raises(FileNotFoundError):
        jsonl.read_document(tmp_path / "none")
