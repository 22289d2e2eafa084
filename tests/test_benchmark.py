"""The benchmark: the turns of its contestants, a peer that is absent or fails, and one run of tiny sizes."""

import itertools
import json
import os
import re
import runpy
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow import bijectors as bj
from genflow.benchmark import (
    autoregressive_suite,
    core_suite,
    diffusion,
    diffusion_suite,
    energies,
    energy_suite,
    flows_suite,
    latent_suite,
    numerics,
    sites,
)
from genflow.benchmark.tables import shown
from genflow.benchmark.turns import Contestant, Score, take_turns
from genflow.core import Spec
from genflow.errors import UserError
from genflow.models import build
from genflow.models.flow import flow


def contestant(name, body):
    """A process that serves; `body` sees `serve` and its own name."""
    source = f"from genflow.benchmark.turns import serve\nname = {name!r}\n" + textwrap.dedent(body)
    return Contestant(name, [sys.executable, "-c", source], core_suite.ENVIRONMENT)


def test_contestants_alternate_and_are_told_apart(tmp_path):
    log = tmp_path / "log"
    body = f"""
        def step():
            with open({str(log)!r}, "a") as file:
                file.write(name)
        serve({{"name": name}}, step)
    """
    scores = take_turns([contestant("a", body), contestant("b", body)], rounds=3, steps=4)
    assert log.read_text() == "aabb" + 3 * "aaaabbbb"
    assert [score.facts["name"] for score in scores] == ["a", "b"]
    for score in scores:
        assert [len(turn) for turn in score.wall] == [len(turn) for turn in score.cpu] == [4, 4, 4]
        assert score.median > 0
        assert 2**20 < score.peak_bytes < 2**30


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise SystemExit('no memory left')", "a stopped with status 1: no memory left"),
        ("def step(): raise ValueError('step 3')\nserve({}, step)", "a stopped with status 1: ValueError: step 3"),
        ("import os\nos._exit(3)", "a stopped with status 3: no message"),
    ],
)
def test_a_contestant_that_dies_is_named_with_its_last_words(body, message):
    with pytest.raises(UserError, match=message):
        take_turns([contestant("b", "serve({}, lambda: 0)"), contestant("a", body)], rounds=1, steps=1)


def test_the_ratio_is_paired_by_turn():
    calm, busy = [1.0, 1.1, 1.2], [10.0, 11.0, 12.0]
    ours = Score("ours", {}, [calm, busy, busy], [], 0)
    theirs = Score("theirs", {}, [[2 * second for second in turn] for turn in ours.wall], [], 0)
    assert ours.ratio(theirs) == pytest.approx(0.5)
    assert ours.median == 10.0


def test_the_ratio_of_processor_times_has_a_clock_of_its_own():
    ours, theirs = (Score(name, {}, [[1.0]], [[cpu]], 0) for name, cpu in (("ours", 1.0), ("theirs", 4.0)))
    assert (ours.ratio(theirs), ours.ratio(theirs, "cpu")) == (1.0, 0.25)


def test_a_peer_that_is_absent_is_left_out_and_said_so(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho Traceback >&2\necho No module named torch >&2\nexit 1\n")
    broken.chmod(0o755)
    assert "--peer_python" in core_suite.missing_peer("")
    assert core_suite.missing_peer(str(broken)).endswith("No module named torch")
    assert core_suite.missing_peer(str(tmp_path / "none")).endswith("No such file or directory")
    assert {c.name for c in core_suite.contestants(core_suite.QUICK, 1, "")} == {
        "memory=store",
        "memory=remat",
        "memory=invert",
    }
    assert {c.name for c in core_suite.contestants(core_suite.QUICK, 1, "python")} > set(core_suite.PEERS)


def test_quick_run_prints_tables_and_writes_every_figure(tmp_path):
    out = tmp_path / "figures.json"
    words = ["--quick", "--memory=remat", "--peer_python=", f"--json={out}"]
    command = [sys.executable, str(core_suite.ROOT / "scripts/benchmark.py"), *words]
    environment = os.environ | core_suite.ENVIRONMENT
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(out.read_text())
    (row,) = result["glow"]
    assert row["contestant"] == "memory=remat"
    assert {name for name in core_suite.COLUMNS if row[name] is None} == {"/ peer"}
    assert 0 < row["best"] <= row["ms"]
    assert row["temp MB"] < row["peak MB"]
    rates = list(itertools.chain(*(list(row.values())[1:] for row in result["convs"])))
    assert len(rates) == 12
    assert min(rates) > 0
    assert {"jax", "python"} <= set(result["versions"])
    for text in (" cores of ", "load", "normflows under torch is left out", "temp MB", "conv2d in scan", f"to {out}"):
        assert text in done.stdout


@pytest.mark.parametrize("word", ["--depths=8,x", "--rounds=0", "--width=-1", "--suite=none", "stray"])
def test_a_wrong_word_stops_at_once(word):
    command = [sys.executable, str(core_suite.ROOT / "scripts/benchmark.py"), word]
    done = subprocess.run(command, env=os.environ | core_suite.ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert word.split("=")[-1].split(",")[-1] in done.stderr.splitlines()[-1]


def test_a_pinned_contestant_sees_its_cores_alone(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import json, os, sys\nfrom genflow.benchmark.turns import serve\n"
        "serve({'cores': len(os.sched_getaffinity(0)), 'words': sys.argv[1:], 'name': __name__}, lambda: 0)\n"
    )
    command = [sys.executable, "-m", "genflow.benchmark.pinned"]
    found = [Contestant(cores, [*command, cores, str(program), "{}"], core_suite.ENVIRONMENT) for cores in ("1", "0")]
    one, every = (score.facts for score in take_turns(found, rounds=1, steps=1))
    assert one == {"cores": 1, "words": ["{}"], "name": "__main__"}
    assert every["cores"] == len(os.sched_getaffinity(0))


def test_each_peer_of_the_flows_is_left_out_for_its_own_reason(tmp_path):
    assert list(flows_suite.missing_peers("")) == list(flows_suite.PEERS)
    assert "No such file" in flows_suite.missing_peers(str(tmp_path / "none"))["zuko"]
    python = tmp_path / "python"
    for script, expected in (("echo '[\"zuko\"]'", {"zuko"}), ("exit 1", set(flows_suite.PEERS))):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        assert set(flows_suite.missing_peers(str(python))) == expected
    names = {
        work: [c.name for c in flows_suite.contestants(flows_suite.WORKS[work], {}, ["zuko", "nflows"], "python")]
        for work in ("maf_train", "maf_sample")
    }
    assert names == {"maf_train": ["genflow", "zuko", "nflows"], "maf_sample": ["genflow", "zuko"]}


def test_growth_leaves_out_the_gradients_of_the_parameters(capsys):
    def row(name, width, depth, megabytes):
        times = {"first s": float(depth), "CPU s": 2.0 * depth}
        return {"contestant": name, "width": width, "K": depth, "temp MB": megabytes, **times} | {
            "parameter_bytes": 1e6 * depth
        }

    rows = [row("a", 4, 2, 12.0), row("peer", 4, 2, None), row("a", 4, 8, 23.0), row("a", 9, 8, 99.0)]
    sizes = flows_suite.QUICK._replace(depths=(2, 8), widths=(4, 9))
    (found,) = flows_suite.growth(sizes, rows)
    assert (found["MB before"], found["MB after"], found["MB ratio"]) == (10.0, 15.0, 1.5)
    assert (found["first s ratio"], found["first CPU s ratio"]) == (4.0, 4.0)
    assert "from K=2 to K=8, width 4" in capsys.readouterr().out
    assert flows_suite.growth(sizes._replace(depths=(8,)), rows) == []


def test_numerics_find_small_errors_and_count_what_is_not_finite():
    sizes = numerics.SIZES["quick"]._replace(sections=tuple(numerics.SECTIONS))
    found = {row["quantity"]: row["figure"] for row in numerics.rows(sizes)}
    assert all(figure == 0 for name, figure in found.items() if "non-finite" in name)
    errors = [figure for name, figure in found.items() if "non-finite" not in name and "deviation" not in name]
    assert len(errors) == 11
    assert 0 < max(errors) < 1e-4
    assert 0 < found["Glow of 2 steps at initialization: round trip of x in float64"] < 1e-12
    assert np.isnan(numerics.relative(np.array([np.nan, 1.0]), np.ones(2)))
    assert numerics.non_finite(np.array([1.0, np.inf, 0.0]), np.array([np.nan, 1.0, 0.0])) == 2


def test_the_log_det_of_a_model_is_that_of_its_flow_alone():
    model = flow(Spec("noise", (3,), None), bj.shift_scale())
    x, params = np.ones((2, 3), np.float32), {"model": {"noise": {}, "flow": {"raw": np.full((3, 2), 0.5, np.float32)}}}
    z, log_det, back = numerics.there_and_back(model, params, {}, x)
    np.testing.assert_allclose(z, np.full((2, 3), 1.5 * np.exp(0.5)), rtol=1e-6)
    np.testing.assert_allclose(log_det, 1.5, rtol=1e-5)
    np.testing.assert_allclose(back, x, rtol=1e-6)


def test_the_flows_suite_prints_a_table_and_writes_every_figure(tmp_path):
    out = tmp_path / "figures.json"
    words = ["--suite=flows", "--quick", "--parts=maf_sample", "--peer_python=", f"--json={out}"]
    done = benchmark(*words)
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json.loads(out.read_text())["works"]
    assert {name for name in flows_suite.COLUMNS if row[name] is None} == {"/ peer", "CPU / peer"}
    assert 0 < row["best"] <= row["ms"]
    for text in ("MAF sampling on two cores: 20 rows", "flowjax is left out", "zuko is left out", f"to {out}"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite=flows", "--width=3"], "error: --width is not for --suite=flows"),
        (["--suite=flows", "--parts=glow,x"], "error: parts x: expected some of glow, maf_train"),
    ],
)
def test_a_word_of_another_suite_is_named(words, message):
    done = benchmark(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(message)


def benchmark(*words):
    command = [sys.executable, str(core_suite.ROOT / "scripts/benchmark.py"), *words]
    return subprocess.run(command, env=os.environ | core_suite.ENVIRONMENT, capture_output=True, text=True)


def test_the_latent_suite_prints_a_table_and_writes_every_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(latent_suite, "PER_CALL", (4,))  # each is a process
    out = tmp_path / "figures.json"
    main = runpy.run_path(str(core_suite.ROOT / "scripts/benchmark.py"))["main"]
    main(["--suite=latent", "--quick", f"--json={out}"])
    printed = capsys.readouterr().out
    for text in ("bound: 4 draws for each of 2 examples", "images / s", "jax ", f"written to {out}"):
        assert text in printed
    result = json.loads(out.read_text())
    (row,) = result["bound"]
    assert row["contestant"] == "4 at once"
    assert row["images / s"] > 0
    assert re.search(rf"^{row['contestant']} .* {re.escape(shown(row['temp MB']))} ", printed, re.MULTILINE)


def test_the_latent_suite_names_its_parts_and_has_its_peers():
    for work in latent_suite.TRAINING.values():
        system, options = latent_suite.SYSTEMS[work.system], {} if work.memory else {"samples": work.samples}
        spec = Spec("images", system["shape"], system["bins"])
        assert build(system["model"] | options, spec).latent is not None
        if work.peer:
            assert (core_suite.ROOT / "scripts" / "peers" / f"{work.peer}.py").is_file()
            (_, network), *_ = latent_suite.PEERS[work.peer](system | {"model": system["model"] | {"samples": 1}})
            json.dumps(network)
    with pytest.raises(UserError, match="parts x: expected some of vae_train, iwae_train"):
        latent_suite.run(latent_suite.QUICK._replace(parts=("bound", "x")), "")


SYSTEM = {"shape": [6], "bins": 4, "model": {"name": "markov", "order": 2, "widths": [4]}}


def test_samplers_that_draw_the_same_have_the_same_digest():
    digests = {}
    for method, num_sites in (("naive", 3), ("cached", 6), ("cached", 2)):
        program = sites.Sampling(SYSTEM, 5, method, num_sites, compared=3)
        program.compile()
        digests[method, num_sites] = program.digest
    assert digests["naive", 3] == digests["cached", 6]
    assert digests["naive", 3] != digests["cached", 2]


def test_every_system_of_the_autoregressive_suite_can_be_built():
    for entry in autoregressive_suite.SYSTEMS.values():
        spec, model = sites.build(json.loads(json.dumps(entry["system"])))
        assert model.complete is not None
        assert jax.eval_shape(model.sites, jnp.zeros((1, *spec.shape))).shape[1] == entry["sites"]
    works = [*autoregressive_suite.WORKS.values(), *autoregressive_suite.TRAINING.values()]
    assert {work.system for work in works} == set(autoregressive_suite.SYSTEMS)


def test_the_pace_of_a_sampler_is_per_site():
    def score(name, seconds, digest):
        facts = {"digest": digest, "temporary_bytes": 1, "first_call": [1.0, 1.0]}
        return Score(name, facts, [[seconds]], [[seconds]], 0)

    drawn = {"naive": 4, "cached": 100}
    naive, cached = score("naive", 8.0, "a"), score("cached", 1.0, "a")
    row = autoregressive_suite._sampling_figures(cached, naive, drawn, 100)
    assert (row["ms / site"], row["all sites s"], row["x naive"], row["same"]) == (10.0, 1.0, 200.0, "yes")
    assert autoregressive_suite._sampling_figures(score("cached", 1.0, "b"), naive, drawn, 100)["same"] == "no"


def test_the_diffusion_suite_measures_the_network_that_its_peer_has():
    spec, model = sites.build(json.loads(json.dumps(diffusion_suite.SYSTEM)))
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0), {"x": jnp.zeros((1, *spec.shape), jnp.uint8)})
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 3_692_867  # diffusers' UNet2DModel of these sizes
    (first, network), (last, other) = diffusion_suite.networks(diffusion_suite.SYSTEM)
    assert (first, last) == ("torch", "torch, channels last")
    assert [json.loads(json.dumps(n))["channels_last"] for n in (network, other)] == [False, True]
    assert (core_suite.ROOT / "scripts" / "peers" / "torch_unet.py").is_file()
    with pytest.raises(UserError, match="parts x: expected some of unet_train, unet_sample"):
        diffusion_suite.run(diffusion_suite.QUICK._replace(parts=("x",)), "")


def test_the_sampling_contestant_draws_in_one_program():
    program = diffusion.Sampling(diffusion_suite.QUICK.system, rows=2, num_steps=3)
    program.compile()
    drawn = np.asarray(program.compiled(*program._args))
    assert drawn.shape == (2, 4, 4, 3)
    assert 0 <= drawn.min() < drawn.max() <= 255


def test_the_energy_suite_measures_the_networks_that_its_peers_have():
    assert set(energy_suite.TINY) < set(energy_suite.PARTS)
    sizes = {"rbm_epoch": 784 * 500 + 784 + 500, "igebm_small_train": 76_417, "igebm_train": 38_049}  # torch's
    for name, work in energy_suite.WORKS.items():
        spec, model = sites.build(json.loads(json.dumps(work.system)))
        shapes, state = jax.eval_shape(
            model.init, jax.random.key(0), {"x": jnp.zeros((work.rows, *spec.shape), jnp.uint8)}
        )
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == sizes[name]
        assert (core_suite.ROOT / "scripts" / "peers" / f"{work.peer}.py").is_file()
        (first, network), *others = energy_suite.PEERS[work.peer](work.system)
        assert first == "torch"
        for _, other in others:
            changed = [
                key for key in network if json.loads(json.dumps(other))[key] != json.loads(json.dumps(network))[key]
            ]
            assert len(changed) == 1
    with pytest.raises(UserError, match="parts x: expected some of rbm_epoch, igebm_small_train, igebm_train"):
        energy_suite.run(energy_suite.QUICK._replace(parts=("x",)), "")


def test_an_epoch_takes_every_example_once_with_plain_gradient_descent():
    work = energy_suite.TINY["rbm_epoch"]
    program = energies.epoch(json.loads(json.dumps(work.system)), work.rows, work.examples, 0.5)
    batch, feed, count = program._rest
    np.testing.assert_array_equal(np.sort(feed["row"].ravel()), np.arange(12))
    assert count == 3
    before = jax.tree.map(np.array, program._state.params["model"])
    program.compile()
    program()
    after = jax.tree.map(np.array, program._state.params["model"])
    assert int(program._state.step) == 3
    steps = (after["visible_bias"] - before["visible_bias"]) * work.rows / 0.5  # differences of counts of ones
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert np.abs(steps).max() >= 1
