"""The run folder: configs survive JSON exactly, differences are found and judged, and one process writes at a time."""

import functools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from genflow import workdir
from genflow.errors import UserError


def example() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "name": 'Grüße "quoted"\n',
            "nothing": None,
            "flag": True,
            "rate": 3e-4,
            "whole": 1.0,
            "tiny": 5e-324,
            "big": 2**70,
            "shape": (32, 32, 3),
            "one": (1,),
            "empty": (),
            "rules": ((".*kernel", ("", "model")), (".*", ())),
            "section": {},
            "model": {"name": "glow", "width": 32, "inner": {"deep": {}, "levels": (1, (2.0, None, "x"))}},
        }
    )


def edited(**changes) -> ConfigDict:
    config = ConfigDict(example().to_dict(), type_safe=False)
    for path, value in changes.items():
        *sections, key = path.split(".")
        functools.reduce(getattr, sections, config)[key] = value
    return config


def same_types(a, b) -> bool:
    if isinstance(a, ConfigDict):
        return isinstance(b, ConfigDict) and set(a) == set(b) and all(same_types(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same_types, a, b))
    return type(a) is type(b) and a == b


def test_config_round_trip(tmp_path):
    workdir.write_config(tmp_path, example())
    back = workdir.read_config(tmp_path)
    assert same_types(example(), back)
    assert back.is_locked
    assert back.model.inner.is_locked
    assert workdir.diff(example(), back) == []
    assert workdir.config_hash(example()) == workdir.config_hash(back)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf, [1, 2], {"a"}, np.float32(1), 1j, ({"a": 1}, math.nan), b"x"])
def test_config_refuses_what_json_cannot_hold(tmp_path, value):
    workdir.write_config(tmp_path, example())
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(UserError, match=r"^config\.model\.inner\.odd"):
        workdir.write_config(tmp_path, edited(**{"model.inner.odd": value}))
    assert (tmp_path / "config.json").read_text() == before


@pytest.mark.parametrize(
    "text", [None, "", "{", '{"a": NaN}', '{"a": Infinity}', "[1]", "null", "<html>", "[" * 100_000, b"\xff\xfe"]
)
def test_unreadable_config_is_told_in_few_lines(tmp_path, text):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="config.json") as caught:
        workdir.read_config(tmp_path)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_failed_write_leaves_the_old_config(tmp_path, monkeypatch):
    workdir.write_config(tmp_path, example())

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        workdir.write_config(tmp_path, edited(seed=7))
    assert workdir.read_config(tmp_path).seed == 0


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("flag", 1),
        ("seed", 0.0),
        ("nothing", 0),
        ("nothing", "(absent)"),
        ("empty", ((),)),
        ("empty", ""),
        ("shape", (32, 32)),
        ("rules", ((".*kernel", ("", "model")), (".*", ("",)))),
        ("model.inner.levels", (1, (2.0, None, "y"))),
        ("model.new", None),
        ("model.new", "(absent)"),
        ("model.new", {}),
        ("section.new", 1),
    ],
)
def test_diff_and_hash_see_every_change(path, value):
    new = edited(**{path: value})
    differences = workdir.diff(example(), new)
    assert path in [d[0] for d in differences]
    assert {d[0] for d in differences} <= {path, "section"}
    assert workdir.diff(new, example()) == [(p, b, a) for p, a, b in differences]
    assert workdir.config_hash(example()) != workdir.config_hash(new)


def test_order_of_keys_is_no_difference():
    turned = ConfigDict(dict(reversed(example().to_dict().items())))
    assert workdir.diff(example(), turned) == []
    assert workdir.config_hash(example()) == workdir.config_hash(turned)


def test_resume_accepts_what_it_may_change_and_prints_it(capsys):
    new = edited(**{"rate": 1e-3, "model.inner.levels": ()})
    differences = workdir.check_resume(example(), new, ("rate", "model.inner"))
    assert [d[0] for d in differences] == ["model.inner.levels", "rate"]
    assert "config.rate: 0.0003 -> 0.001" in capsys.readouterr().out


@pytest.mark.parametrize("resumable", [(), ("model.wid", "rate"), ("mode",), ("model.width.x",)])
def test_resume_refuses_the_rest(resumable):
    with pytest.raises(UserError, match=r"config\.model\.width: 32 -> 64") as caught:
        workdir.check_resume(example(), edited(**{"model.width": 64, "rate": 1e-3}), resumable)
    assert len(str(caught.value).splitlines()) <= 3


def start(root, config, stem="glow") -> Path:
    path = workdir.resolve(stem, config, None, root)
    workdir.write_config(path, config)
    return path


def test_a_run_of_another_config_is_never_written_over(tmp_path):
    first, other = example(), edited(seed=1)
    assert [start(tmp_path, c).name for c in (first, other, first, other)] == ["glow", "glow-2", "glow", "glow-2"]
    (tmp_path / "glow-3").mkdir()
    (tmp_path / "glow-3" / "thesis.tex").touch()
    (tmp_path / "glow-4").touch()
    assert start(tmp_path, edited(seed=2)).name == "glow-5"


def test_a_run_that_was_killed_before_its_config_is_taken_over(tmp_path):
    (tmp_path / "glow").mkdir()
    (tmp_path / "glow" / ".lock").touch()
    assert start(tmp_path, example()).name == "glow"


def test_a_damaged_config_stops_the_search(tmp_path):
    start(tmp_path, example())
    (tmp_path / "glow" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"glow/config\.json"):
        workdir.resolve("glow", example(), None, tmp_path)


@pytest.mark.parametrize("name", ["plain", "with space", "größe/данные", "a/../b", "~/run", "./relative"])
def test_odd_names_become_absolute_folders(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = workdir.resolve("glow", example(), name)
    assert path.is_absolute()
    assert path.is_dir()
    assert path.is_relative_to(tmp_path)
    assert ".." not in path.parts


def test_an_odd_stem_stays_below_the_root(tmp_path):
    assert start(tmp_path, example(), "../x y/" + "z" * 99).parent == tmp_path


@pytest.mark.parametrize("make", [Path.touch, lambda p: p.symlink_to(p), lambda p: p.symlink_to("/proc/nowhere")])
@pytest.mark.parametrize("below", ["", "run"])
def test_unwritable_folders_are_told_before_anything_runs(tmp_path, make, below):
    make(tmp_path / "odd")
    with pytest.raises(UserError, match="--workdir") as caught:
        workdir.resolve("glow", example(), str(tmp_path / "odd" / below))
    assert len(str(caught.value).splitlines()) <= 3


def test_a_folder_that_exists_and_takes_no_files_is_told():
    with pytest.raises(UserError, match="cannot write .*/proc"):
        workdir.resolve("glow", example(), "/proc")


def test_an_unknown_home_is_told():
    with pytest.raises(UserError, match="--workdir"):
        workdir.resolve("glow", example(), "~nobody-of-this-name/run")


HOLD = """
import sys, time
from pathlib import Path
from genflow import workdir
try:
    with workdir.lock(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
except workdir.UserError as error:
    sys.exit(f"error: {error}")
"""


def hold(path: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, path]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_process_at_a_time_and_a_kill_frees_the_lock(tmp_path):
    with hold(tmp_path) as first:
        assert first.stdout.readline() == "held\n"
        begin = time.monotonic()
        with hold(tmp_path) as second:
            message = second.communicate(timeout=5)[1]
        assert time.monotonic() - begin < 5
        assert second.returncode == 1
        assert str(tmp_path) in message
        assert f"process {first.pid} on" in message
        assert "started 20" in message
        first.send_signal(signal.SIGKILL)
        first.wait()
    with workdir.lock(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
    with workdir.lock(tmp_path):
        assert len((tmp_path / ".lock").read_text().splitlines()) == 1


def test_no_jax_on_the_way_to_an_error():
    code = "import json, sys; from genflow import failpoints, workdir; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert "genflow.workdir" in modules
    assert not {"jax", "numpy", "orbax"} & set(modules)
