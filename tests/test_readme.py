"""Every command line of the README can be typed: its files, flags and values exist, and its run folders are made."""

import argparse
import pathlib
import re
import runpy
import shlex
import sys

import pytest

from genflow import cli
from genflow.detect import paired
from genflow.experiment import assemble

TEXT = (cli.ROOT / "README.md").read_text("utf-8")
LINES = [line.strip() for line in TEXT.splitlines() if line.startswith("    python ")]


def made(lines):
    """{run folder: its configuration} of the lines that train, and of the first command."""
    runs = {"runs/glow_digits": cli.load_config(cli.DEFAULT_CONFIG)}
    for line in lines:
        _, program, *words = shlex.split(line, comments=True)
        overrides, rest = cli.split_overrides(words)
        given = dict(re.findall(r"--(config|workdir)=(\S+)", " ".join(rest)))
        if program == "main.py" and "config" in given:
            config = cli.load_config(given["config"], overrides)
            runs[given.get("workdir", f"runs/{config.name}")] = config
    return runs


class Parsed(Exception):
    """Ends a script where it has read its command line."""


def check_line(line, monkeypatch):
    """Parses a line as its program does."""
    python, program, *words = shlex.split(line, comments=True)
    assert python == "python"
    assert (cli.ROOT / program).is_file()
    if program == "main.py":
        monkeypatch.setattr(cli, "_check_run_folder", lambda mode, workdir: None)  # its run is not there yet
        cli.parse([program, *(word for word in words if word != "--help")])  # which main.py answers
        return dict(re.findall(r"--(workdir|mode)=(\S+)", " ".join(words)))
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, given=None):  # some programs take --config.KEY=VALUE out of their words first
        raise Parsed(parse(self, words if given is None else given))

    monkeypatch.setattr(sys, "argv", [program, *words])

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    with pytest.raises(Parsed) as parsed:
        runpy.run_path(str(cli.ROOT / program))["main"]()
    return vars(parsed.value.args[0]) | {"mode": program}


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_can_be_typed(line, monkeypatch):
    given = check_line(line, monkeypatch)
    if given.get("workdir") and "mode" in given:
        assert given["workdir"] in made(LINES[: LINES.index(line)]), "no line above it makes this run"
    if "outliers" in given:
        parts = paired(assemble(made(LINES)[given["workdir"]]), given["outliers"], 4)
        assert [part.num for part in parts.values()] == [4, 4, 4]


def test_there_are_lines_of_every_program():
    assert len(LINES) > 10
    programs = {pathlib.Path(line.split()[1]).name for line in LINES}
    assert {"main.py", "prepare_data.py", "estimate_evidence.py", "detect_outliers.py"} <= programs
