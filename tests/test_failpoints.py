"""Faults on demand fire where they are asked to, and nowhere else."""

import contextlib

import pytest

from genflow import failpoints


@pytest.mark.parametrize(
    ("text", "fires"), [("", 0), ("a:raise", 1), ("a@3:raise", 1), ("a@4:raise", 0), ("b:raise", 0), ("aa:raise", 0)]
)
def test_they_fire_where_they_are_asked_to(monkeypatch, text, fires):
    monkeypatch.setenv(failpoints.VARIABLE, text)
    with pytest.raises(RuntimeError, match="failpoint a at step 3") if fires else contextlib.nullcontext():
        failpoints.failpoint("a", 3)


@pytest.mark.parametrize("text", ["a", "a:", "a:boom", "a@x:term", "a@1:term:term", ":term"])
def test_a_mistyped_failpoint_is_told(monkeypatch, text):
    monkeypatch.setenv(failpoints.VARIABLE, text)
    with pytest.raises(ValueError, match="GENFLOW_FAILPOINT"):
        failpoints.failpoint("a", 3)


def test_failpoint_actions(monkeypatch):
    monkeypatch.setenv(failpoints.VARIABLE, "a@3:enospc")
    with pytest.raises(OSError, match="No space left on device"):
        failpoints.failpoint("a", 3)
    failpoints.failpoint("a")
