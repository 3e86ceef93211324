"""Attributes as texts and numbers, whatever a file format gave."""

from __future__ import annotations

import numpy as np
import pytest

from stforecast.conventions.attributes import mend, number, numbers, plain, text, unread
from stforecast.errors import InputError


def test_texts():
    attrs = {"one": np.array([b" a\0"]), "two": ["a", [None, b"b "]], "number": 3, "none": None}
    found = [text(attrs, key) for key in (*attrs, "absent")]
    assert found == ["a", "a b", "3", "", ""]
    assert text(attrs, "one", "t") == "a"
    with pytest.raises(InputError, match=r"'t' has 2 two, .*expected one text"):
        text(attrs, "two", "t")


def test_numbers_are_whole_where_they_are_written_so():
    attrs = {"v": ["-1,+2 3.0", np.float32(0.5), [None, np.int16(7)], "nan", 2.0, b"1e2"]}
    found = numbers(attrs, "v", "t")
    assert found == [-1, 2, 3.0, 0.5, 7, 2.0, 100.0]
    assert [type(v) for v in found] == [int, int, float, float, int, float, float]
    assert numbers(attrs, "absent", "t") == []
    assert numbers({"v": [1, 2]}, "v", "t", most=2) == [1, 2]
    with pytest.raises(InputError, match=r"'t' has v \[1, 2\], expected one number"):
        numbers({"v": [1, 2]}, "v", "t", most=1)
    with pytest.raises(InputError, match="expected 2 numbers"):
        numbers({"v": [1, 2, 3]}, "v", "t", most=2)


def test_one_finite_number_or_the_default():
    assert number({}, "v", "t", 2.5) == number({"v": []}, "v", "t", 2.5) == 2.5
    one = number({"v": "3"}, "v", "t", 2.5)
    assert (one, type(one)) == (3.0, float)
    for bad in (np.nan, np.inf, "-inf", "x"):
        with pytest.raises(InputError, match="expected a number"):
            number({"v": bad}, "v", "t", 2.5)


def test_what_xarray_cannot_read_is_mended():
    attrs = {"scale_factor": "0.1", "add_offset": [], "_FillValue": [1, 2], "missing_value": [3]}
    assert unread(attrs) == ["scale_factor", "add_offset"]
    assert mend("t", attrs) == {**attrs, "scale_factor": 0.1, "add_offset": 0.0}
    assert attrs["scale_factor"] == "0.1"  # the caller's stay as they are
    assert unread({"scale_factor": [1.0], "add_offset": 2, "units": "K"}) == []
    other = {"scale_factor": [], "add_offset": "2", "_FillValue": "nan", "missing_value": ["3"]}
    assert mend("t", other) == {"scale_factor": 1.0, "add_offset": 2.0, "missing_value": 3}
    several = mend("t", {"missing_value": "3 4", "units": "K"})
    assert several["missing_value"].tolist() == [3, 4]
    assert several["units"] == "K"
    with pytest.raises(InputError, match=r"scale_factor \[1.0, 2.0\], expected one number"):
        mend("t", {"scale_factor": [1.0, 2.0]})


def test_plain_texts():
    attrs = {"a": [b"x\0"], "b": np.array(["y"]), "c": ["x", "y"], "d": [1], "e": 2.5}
    assert plain(attrs) == {"a": "x", "b": "y", "c": ["x", "y"], "d": [1], "e": 2.5}
