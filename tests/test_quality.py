"""Samplers compared from a run folder: the table, the record, the picture, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

import main
from genflow.errors import UserError
from genflow.quality import compare_samplers


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "matching"
    words = ["--config=configs/flow_matching_toy.py:debug", f"--workdir={folder}", "--config.eval.every=0"]
    main.main(main.parse_flags(["main.py", *words]))
    return folder


def test_samplers_are_compared_by_their_calls(run, capsys):
    record = compare_samplers(str(run), ["ddim", "heun:karras", "ancestral"], [3, 4, 5], 40)
    out = capsys.readouterr().out
    assert json.loads((run / "samplers.json").read_text()) == record
    assert [(row["sampler"], row["calls"], row["steps"]) for row in record["rows"]] == [
        ("ddim", 3, 3),
        ("ddim", 4, 4),
        ("ddim", 5, 5),
        ("heun:karras", 3, 2),
        ("heun:karras", 5, 3),
    ]
    assert "ancestral, 3 times: left out: this model was taught no score" in out
    for row in record["rows"]:
        assert row["nonfinite"] == 0
        assert np.isfinite(row["sliced_wasserstein"])
        assert row["sliced_wasserstein"] > record["test_data"]["sliced_wasserstein"] / 2
        assert f"{row['sliced_wasserstein']:.4f}" in out
    assert len({row["sliced_wasserstein"] for row in record["rows"]}) == 5
    with Image.open(run / "samplers.png") as picture:
        assert min(picture.size) > 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((["magic"], [5], 40), "--samplers=magic: expected some of ancestral"),
        ((["ddim:magic"], [5], 40), "--samplers=ddim:magic: expected a spacing of linear"),
        ((["ancestral"], [5], 40), "nothing is left to compare"),
        ((["ddim"], [5], 40, -1), "a seed that is not negative"),
        ((["ddim"], [1], 40), "expected 2 or more"),
        ((["ddim"], [5], 1), "expected 2 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(run, options, message):
    with pytest.raises(UserError, match=message):
        compare_samplers(str(run), *options)
