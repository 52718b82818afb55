"""JSON of others is read once, strictly: nothing that two readers could take for different things."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.errors import FinetDeployError
from finet_deploy.json_files import MAX_DEPTH, MAX_INTEGER, BadJson, decode_json, encode_json, read_json


class Point(msgspec.Struct, forbid_unknown_fields=True):
    x: int
    names: dict[str, float] = {}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers(-MAX_INTEGER - 1, MAX_INTEGER) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_holds_reads_back_however_it_is_spaced(value):
    for text in (json.dumps(value), json.dumps(value, indent=3), json.dumps(value, ensure_ascii=False)):
        assert decode_json(text.encode()) == value
    assert decode_json(encode_json(value)) == value


@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4), st.data())
def test_a_key_that_stands_twice_is_found_wherever_it_stands(members, data):
    twice = data.draw(st.sampled_from(sorted(members)))
    pairs = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in members.items()]
    pairs.insert(data.draw(st.integers(0, len(pairs))), f"{json.dumps(twice)}: null")
    inner = "{" + ", ".join(pairs) + "}"
    for text in (inner, f"[1, {inner}]", f'{{"a": [{inner}]}}', inner.replace(": ", ":").replace(", ", ",")):
        with pytest.raises(BadJson, match="stands twice"):
            decode_json(text.encode())


@given(st.integers(1, 3 * MAX_DEPTH), st.sampled_from(["[]", "{}"]), st.booleans())
def test_depth_is_bounded_and_brackets_in_text_do_not_count(depth, brackets, closed):
    begin, end = ("[", "]") if brackets == "[]" else ('{"a":', "}")
    text = begin * depth + '"[[{{\\"[\\\\"' + (end * depth if closed else "")
    if depth > MAX_DEPTH:
        with pytest.raises(BadJson, match="nested deeper than 64 levels"):
            decode_json(text.encode())
    elif closed:
        decode_json(text.encode())
    else:
        with pytest.raises(BadJson, match="truncated"):
            decode_json(text.encode())
    for quotes in ("", '"', '\\"', '"\\', '"x"'):  # however the text is escaped
        assert decode_json(json.dumps(quotes + "[{" * 500).encode()) == quotes + "[{" * 500


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"x": 9223372036854775808}', "integer 9223372036854775808 does not fit into 64 bits"),
        ('{"x":9223372036854775808,"names":{}}', "does not fit into 64 bits"),  # as we would write it
        ('{"x": -9223372036854775809}', "does not fit into 64 bits"),
        ('{"x": ' + "9" * 4000 + "}", "integer 99999999999999999999... does not fit"),
        ('{"x": ' + "9" * 5000 + "}", "out of range"),
        ('{"x": ' + "9" * 100_000 + "}", "out of range"),
        ('{"x": NaN}', "malformed"),
        ('{"x": Infinity}', "malformed"),
        ('{"x": 1, "names": {"a": 1e999}}', "out of range"),
        ('{"x": 1, "names": {"a": 1, "a": 2}}', "the key 'a' stands twice"),
        ('{"x": true}', "Expected `int`, got `bool`"),
        ('{"x": 1.0}', "Expected `int`, got `float`"),
        ('{"x": "1"}', "Expected `int`, got `str`"),
        ('{"x": null}', "Expected `int`, got `null`"),
        ('{"x": 1, "y": 2}', "unknown field `y`"),
        ('{"x": 1}{"x": 2}', "trailing"),
        ('{"x": 1', "truncated"),
        ("", "truncated"),
        ("\ufeff{}", "malformed"),
        ("[1]", "Expected `object`, got `array`"),
    ],
)
def test_what_is_not_exactly_such_a_value_is_refused_with_the_reason(text, message, tmp_path):
    with pytest.raises(BadJson, match=message):
        decode_json(text.encode(), Point)
    (tmp_path / "x.json").write_text(text, "utf-8")
    with pytest.raises(FinetDeployError, match=rf"no point: .*{message}.*x\.json.*; make one"):
        read_json(tmp_path / "x.json", Point, max_bytes=1 << 20, what="no point", do="make one")


def test_bytes_that_are_no_utf8_and_files_that_are_too_large_are_refused(tmp_path):
    with pytest.raises(BadJson):
        decode_json(b'{"x": 1, "names": {"\xff": 1}}', Point)
    with pytest.raises(BadJson):
        decode_json(b'"\\ud800"')
    (tmp_path / "x.json").write_text('{"x": 1}')
    with pytest.raises(FinetDeployError, match="larger than 7 bytes"):
        read_json(tmp_path / "x.json", Point, max_bytes=7, what="no point", do="make one")


@given(st.integers(MAX_INTEGER - 3, MAX_INTEGER) | st.integers(-MAX_INTEGER - 1, -MAX_INTEGER))
def test_integers_of_64_bits_are_read(number):
    assert decode_json(b'{"x": %d}' % number, Point).x == number


@given(st.binary(max_size=60) | st.text('[]{}":,1eE+-.truefalsn\\u0 ', max_size=60).map(str.encode))
def test_any_bytes_are_a_value_or_one_kind_of_error(data):
    try:
        value = decode_json(data)
    except BadJson as error:
        assert str(error)
    else:
        assert json.loads(data) == value
