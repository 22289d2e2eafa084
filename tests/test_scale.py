"""Collectives read off compiled programs and off written HLO; the parts of the suite of scale at tiny sizes."""

import functools
import json
import runpy
import subprocess
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from genflow import cli
from genflow.benchmark import core_suite, feeding, scale_suite, startup, wire
from genflow.benchmark.turns import Score
from genflow.collectives import KINDS, Collective, collectives, open_loops, sent_bytes, wire_bytes
from genflow.errors import UserError
from genflow.evaluate import compiled_sample
from genflow.experiment import assemble, initializer
from genflow.rows import rows_beside
from genflow.sharding import AXES

ROWS = 16  # of the array of every program below, [ROWS, 8] float32 on each device


def swapped(x, axis, n):
    return jax.lax.all_to_all(x.reshape(n, -1, 8), axis, 0, 0, tiled=True).reshape(x.shape)


# Body on one device of a group -> its collective, from the bytes of x on one device and the devices in a group.
BODIES = {
    "psum": (lambda x, axis, n: jax.lax.psum(x, axis), lambda b, n: ("all-reduce", b, n)),
    "all_gather": (
        lambda x, axis, n: x + jax.lax.all_gather(x, axis, tiled=True).sum(),
        lambda b, n: ("all-gather", b * n, n),
    ),
    "psum_scatter": (
        lambda x, axis, n: x + jax.lax.psum_scatter(x, axis, tiled=True).sum(),
        lambda b, n: ("reduce-scatter", b, n),
    ),
    "ppermute": (
        lambda x, axis, n: jax.lax.ppermute(x, axis, [(i, (i + 1) % n) for i in range(n)]),
        lambda b, n: ("collective-permute", b, 8),
    ),
    "all_to_all": (swapped, lambda b, n: ("all-to-all", b, n)),
}
MESHES = {"all": ((8,), ("d",)), "pairs": ((4, 2), ("e", "d")), "strided": ((2, 4), ("d", "e"))}


def hlo(body, mesh="all", loop=None):
    """Optimized text of a program that runs `body` on [ROWS, 8] of every device, in a loop if there is one."""
    shape, names = MESHES[mesh]
    mesh = jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names))
    body = functools.partial(body, axis="d", n=mesh.shape["d"])
    inner = body if loop is None else functools.partial(loop, body)
    spec = PartitionSpec(names)
    program = jax.jit(jax.shard_map(inner, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
    return program.lower(jnp.ones((8 * ROWS, 8))).compile().as_text()


def scanned(body, x):
    return jax.lax.scan(lambda c, _: (0.5 * body(c), None), x, None, length=5)[0]


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("name", BODIES)
def test_each_collective_of_a_compiled_program_is_found(name, mesh):
    body, expected = BODIES[name]
    size = dict(zip(*reversed(MESHES[mesh]), strict=True))["d"]
    assert collectives(hlo(body, mesh)) == [Collective(*expected(4 * 8 * ROWS, size), 1)]


def test_a_loop_multiplies_what_is_in_it():
    text = hlo(BODIES["psum"][0], loop=scanned)
    assert collectives(text) == [Collective("all-reduce", 4 * 8 * ROWS, 8, 5)]
    assert open_loops(text) == 0
    without = text.replace("known_trip_count", "unknown")  # its condition still says i < 5
    assert without != text
    assert collectives(without) == collectives(text)


def test_a_loop_whose_length_is_an_argument_counts_once():
    def until_small(body, x):
        return jax.lax.while_loop(lambda c: c.sum() > 1, lambda c: 0.5 * body(c), x)

    text = hlo(BODIES["psum"][0], loop=until_small)
    assert collectives(text) == [Collective("all-reduce", 4 * 8 * ROWS, 8, 1)]
    assert open_loops(text) == 1
    one = wire_bytes(Collective("all-reduce", 4 * 8 * ROWS, 8, 1))
    assert sent_bytes(text, 4) == one
    around = hlo(BODIES["psum"][0], loop=lambda body, x: until_small(body, body(x)))
    assert sent_bytes(around, 4) == one + one / 4


def test_of_a_conditional_the_dearest_branch_counts():
    def either(body, x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: body(x) + body(2 * x).sum(), lambda x: body(x[:1]) + x, x)

    # all the same whether XLA joins the two all-reduces into one or not
    assert sum(c.nbytes * c.count for c in collectives(hlo(BODIES["psum"][0], loop=either))) == 2 * 4 * 8 * ROWS


def test_the_parts_of_a_program_add_up():
    def both(x, axis, n):
        for body, _ in BODIES.values():
            x = 0.5 * body(x, axis, n)
        return x

    separate = sum((Counter(collectives(hlo(body))) for body, _ in BODIES.values()), Counter())
    assert Counter(collectives(hlo(both))) == separate
    assert {c.kind for c in separate} == set(KINDS.values())


ASYNC = """HloModule jit_step, is_scheduled=true, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %add.1 = f32[]{:T(128)} add(%x, %y)
}

%all-reduce-scatter.1 (p.1: bf16[32,128]) -> bf16[8,128] {
  %p.1 = bf16[32,128]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.5 = bf16[32,128]{1,0:T(8,128)(2,1)} all-reduce(%p.1), channel_id=7, \
replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %slice = bf16[8,128]{1,0:T(8,128)(2,1)} slice(%all-reduce.5), slice={[0:8], [0:128]}
}

%wrapped (p.2: f32[16,8]) -> f32[2,8] {
  %p.2 = f32[16,8]{1,0} parameter(0)
  ROOT %reduce-scatter = f32[2,8]{1,0} reduce-scatter(%p.2), replica_groups={}, dimensions={0}, to_apply=%add
}

%body (s: (s32[], f32[16,8])) -> (s32[], f32[16,8]) {
  %s = (s32[]{:T(128)}, f32[16,8]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%s), index=0
  %v = f32[16,8]{1,0:T(8,128)S(1)} get-tuple-element(%s), index=1
  %start = (f32[16,8]{1,0:T(8,128)}, f32[16,8]{1,0:T(8,128)}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%v), source_target_pairs={{0,1},{1,0},{2,3},{3,2}}
  %done = f32[16,8]{1,0:T(8,128)S(1)} collective-permute-done(%start)
  ROOT %t = (s32[]{:T(128)}, f32[16,8]{1,0:T(8,128)}) tuple(%i, %done)
}

%condition (s.1: (s32[], f32[16,8])) -> pred[] {
  %s.1 = (s32[]{:T(128)}, f32[16,8]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%s.1), index=0
  %limit = s32[]{:T(128)} constant(6)
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (a: f32[4,8], b: bf16[32,128]) -> f32[] {
  %a = f32[4,8]{1,0:T(4,128)} parameter(0)
  %b = bf16[32,128]{1,0:T(8,128)(2,1)} parameter(1)
  %gather = (f32[4,8]{1,0:T(4,128)}, f32[16,8]{1,0:T(8,128)S(1)}) all-gather-start(%a), channel_id=1, \
replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}, metadata={op_name="jit(step)/all_gather"}
  %fusion = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.1
  %g = f32[16,8]{1,0:T(8,128)S(1)} all-gather-done(%gather), metadata={op_name="jit(step)/all_gather"}
  %init = (s32[]{:T(128)}, f32[16,8]{1,0:T(8,128)}) tuple(%zero, %g)
  %loop = (s32[]{:T(128)}, f32[16,8]{1,0:T(8,128)}) while(%init), condition=%condition, body=%body
  %v.1 = f32[16,8]{1,0:T(8,128)} get-tuple-element(%loop), index=1
  %sum = (f32[16,8]{1,0:T(8,128)}, pred[3]{0}) all-reduce-start(%v.1, %p), replica_groups={{0,1},{2,3},{4,5},{6,7}}, \
to_apply=%add
  %sums = (f32[16,8]{1,0:T(8,128)}, pred[3]{0}) all-reduce-done(%sum)
  %rs = ((f32[16,8]{1,0}), f32[2,8]{1,0}, u32[]{:S(2)}) async-start(%v.1), calls=%wrapped
  ROOT %r = f32[2,8]{1,0} async-done(%rs), calls=%wrapped
}
"""
IN_IT = {
    Collective("all-gather", 4 * 16 * 8, 4, 1),
    Collective("reduce-scatter", 2 * 32 * 128, 4, 1),
    Collective("reduce-scatter", 4 * 16 * 8, 8, 1),
    Collective("collective-permute", 4 * 16 * 8, 4, 6),
    Collective("all-reduce", 4 * 16 * 8 + 3, 2, 1),
}


CARRIED = """HloModule jit_step, is_scheduled=true, num_partitions=8

%start (p.1: f32[2,16]) -> (f32[2,16], f32[16,16]) {
  %p.1 = f32[2,16]{1,0} parameter(0)
  %gather.1 = f32[16,16]{1,0} all-gather(%p.1), channel_id=5, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %begun = (f32[2,16]{1,0}, f32[16,16]{1,0}) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
}

%beside (p.2: f32[2,16], x: f32[4]) -> (f32[4], f32[16,16]) {
  %p.2 = f32[2,16]{1,0} parameter(0)
  %x = f32[4]{0} parameter(1)
  %gather.2 = f32[16,16]{1,0} all-gather(%p.2), channel_id=5, replica_groups=[1,8]<=[8], dimensions={0}
  %twice = f32[4]{0} add(%x, %x)
  ROOT %both = (f32[4]{0}, f32[16,16]{1,0}) tuple(%twice, %gather.2)
}

%end (p.3: f32[2,16]) -> f32[16,16] {
  %p.3 = f32[2,16]{1,0} parameter(0)
  %gather.3 = f32[16,16]{1,0} all-gather(%p.3), channel_id=5, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %ended = f32[16,16]{1,0} custom-call(%gather.3), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (a: f32[2,16], b: f32[4]) -> f32[16,16] {
  %a = f32[2,16]{1,0} parameter(0)
  %b = f32[4]{0} parameter(1)
  %first = (f32[2,16]{1,0}, f32[16,16]{1,0}) fusion(%a), kind=kCustom, calls=%start
  %second = (f32[4]{0}, f32[16,16]{1,0}) fusion(%a, %b), kind=kOutput, calls=%beside
  %other = f32[16,16]{1,0} all-gather(%a), channel_id=6, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %third = f32[16,16]{1,0} fusion(%a), kind=kCustom, calls=%end
}
"""


def test_what_a_tpu_carries_through_fusions_counts_once():
    assert collectives(CARRIED) == [Collective("all-gather", 4 * 16 * 16, 8, 2)]
    assert sent_bytes(CARRIED) == 2 * wire_bytes(Collective("all-gather", 4 * 16 * 16, 8, 1))


def test_async_pairs_fusions_and_tuples_as_a_tpu_writes_them():
    assert set(collectives(ASYNC)) == IN_IT
    assert open_loops(ASYNC) == 0


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1},{2,3}}", 2),
        ("{{0,1,2},{3}}", 3),
        ("[4,2]<=[8]", 2),
        ("[1,8]<=[2,4]T(1,0)", 8),
        ("{}", 8),
        ("mesh['x'=2,'y'=4] {'y'}", 4),
        ("mesh['x'=2,'y'=4] {'y','x'}", 8),
        ("mesh['x'=2,'y'=4], device_ids=([8]) {'y':(2)2}", 2),
    ],
)
def test_every_notation_of_groups_is_read(groups, size):
    text = ASYNC.replace("{{0,1},{2,3},{4,5},{6,7}}", groups)
    assert {c.group for c in collectives(text) if c.kind == "all-reduce"} == {size}


def test_a_dearer_collective_comes_first_and_a_group_of_one_is_free():
    found = collectives(ASYNC)
    costs = [c.count * wire_bytes(c) for c in found]
    assert costs == sorted(costs, reverse=True)
    free = [wire_bytes(Collective(kind, 1000, 1, 1)) for kind in KINDS.values() if kind != "collective-permute"]
    assert set(free) == {0.0}


def test_a_ring_sends_what_scattering_and_gathering_do():
    for n in (2, 3, 8, 1024):
        reduce, gather, scatter = (
            wire_bytes(Collective(k, 960, n, 1)) for k in ("all-reduce", "all-gather", "reduce-scatter")
        )
        assert reduce == pytest.approx(gather + scatter)
        assert gather == pytest.approx(960 - 960 / n)


def test_a_text_without_collectives_has_none():
    assert collectives(jax.jit(jnp.sin).lower(1.0).compile().as_text()) == []
    assert collectives("") == []


LARGEST = {"sharding.model": "8", "sharding.rules": scale_suite.LARGEST}


def test_whole_parameters_cost_one_all_reduce_of_their_gradients_and_cut_ones_are_gathered():
    whole = wire.measure("configs/vae_digits.py:debug", 2, {})
    figures = scale_suite.wire_figures(whole)
    assert whole["devices"] == 8
    assert whole["parameter_bytes_held"] == whole["parameter_bytes"]
    assert 1 <= figures["/ ring"] < 1.02  # with the loss and its metrics
    assert figures["all-gather kB"] == figures["all-to-all kB"] == figures["permute kB"] == 0
    cut = wire.measure("configs/vae_digits.py:debug", 2, LARGEST)
    assert cut["parameter_bytes_held"] < whole["parameter_bytes"] / 4
    assert cut["state_bytes_held"] < whole["state_bytes_held"] / 4
    assert scale_suite.wire_figures(cut)["all-gather kB"] > 0


def test_what_the_turns_of_a_recurrence_share_is_added_up_once():
    figures = scale_suite.wire_figures(wire.measure("configs/pixelrnn_mnist.py:debug", 2, {}))
    assert 1 <= figures["/ ring"] < 1.02


def test_figures_are_of_what_leaves_the_device():
    found = [
        Collective("all-reduce", 4000, 4, 1),
        Collective("all-gather", 800, 2, 3),
        Collective("all-to-all", 9, 1, 1),
    ]
    facts = {"devices": 4, "parameter_bytes": 4000, "parameter_bytes_held": 1000, "flops": 5e6}
    row = scale_suite.wire_figures(facts | {"collectives": [c._asdict() for c in found]})
    assert (row["held kB"], row["MFLOP"], row["ops"]) == (1.0, 5.0, 4)
    assert (row["all-reduce kB"], row["all-gather kB"], row["all-to-all kB"]) == (6.0, 1.2, 0.0)
    assert row["/ ring"] == pytest.approx(1.2)
    assert scale_suite.wire_figures(facts | {"devices": 1, "collectives": []})["/ ring"] is None


def test_every_feed_gives_the_batches_of_its_steps_in_order():
    batches = {}
    for placement in scale_suite.PLACEMENTS:
        program = feeding.Feeding("configs/vae_digits.py", placement, 2, dict(scale_suite.TINY))
        program()
        entries = program.entries()
        assert program.step == 3 * program.size
        rows = program.experiment.train.arrays["x"][np.asarray(entries)] if placement == "device" else entries["x"]
        batches[placement] = np.asarray(rows)
    np.testing.assert_array_equal(batches["host"], batches["device"])
    np.testing.assert_array_equal(batches["stream"], batches["device"])


def test_the_loop_takes_all_steps_of_its_calls():
    program = feeding.Training(
        "configs/vae_digits.py", "host", 2, dict(scale_suite.TINY) | {"train.steps_per_call": "3"}
    )
    program()
    assert int(program.train_state.step) == program.step == 6


def test_figures_of_a_feed_are_per_batch():
    device, training, feeding_ = (
        Score(name, {"steps": 40}, [[wall, wall]], [[cpu, cpu]], 0)
        for name, wall, cpu in (("device", 0.2, 0.4), ("train", 0.4, 0.5), ("feed", 0.1, 0.08))
    )
    row = scale_suite.feed_figures(training, feeding_, device)
    expected = {"steps / s": 100, "ms": 10, "CPU ms": 12.5, "/ device": 2}
    expected |= {"feed ms": 2.5, "feed CPU ms": 2, "batches / s": 400, "/ goal": 0.5}
    assert row == pytest.approx(expected)


MAIN = """
import json, pathlib, sys, time
run = pathlib.Path(next(w for w in sys.argv if w.startswith("--workdir=")).partition("=")[2])
if "fail" in sys.argv:
    sys.exit("error: no data")
run.mkdir()
row = {"step": 1, "split": "train", "time_utc": "2999-01-01T00:00:00+00:00"}
(run / "metrics.jsonl").write_text(json.dumps(row) + "\\n")
time.sleep(600)
"""


def test_a_start_ends_with_the_first_row(tmp_path, monkeypatch):
    (tmp_path / "main.py").write_text(MAIN)
    monkeypatch.setattr(startup, "ROOT", tmp_path)
    found = startup.first_step([], {})
    assert found["wall s"] > 900 * 365 * 86_400  # the row's own clock, not the time at which it was seen
    assert found["CPU s"] > 0
    with pytest.raises(UserError, match=r"no step \(status 1\): error: no data"):
        startup.first_step(["fail"], {})


def test_the_suite_prints_a_table_and_writes_every_figure(tmp_path, capsys):
    out = tmp_path / "figures.json"
    main = runpy.run_path(str(core_suite.ROOT / "scripts/benchmark.py"))["main"]
    main(["--suite=scale", "--quick", f"--json={out}"])
    printed = capsys.readouterr().out
    for text in ("vae_digits: 2 examples a device", "all-reduce kB", "/ ring", "jax ", f"written to {out}"):
        assert text in printed
    result = json.loads(out.read_text())
    (row,) = result["collectives"]
    assert (row["devices"], result["input"], result["startup"]) == (2, [], [])
    assert set(scale_suite.COLLECTIVES) < set(row)


def test_what_goes_wrong_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="parts x: expected some of collectives, input, startup"):
        scale_suite.run(scale_suite.QUICK._replace(parts=("x",)), "")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Traceback >&2\necho no mesh axis >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(UserError, match=r"vae_digits.py:debug on 2 devices stopped with status 3: no mesh axis"):
        scale_suite.collectives(scale_suite.QUICK)


def test_the_conductor_imports_no_jax():
    code = "import sys, genflow.benchmark.scale_suite; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("config", ["gan_toy1d", "bayesian_regression"])
def test_what_a_model_draws_itself_is_cut_as_a_batch_is(config):
    """The same rows on each of one and of eight devices: each computes as much, and sends nothing but its gradients."""
    flops = {}
    for num in (1, 8):
        sizes = dict.fromkeys(("data.batch_size", "eval.batch_size"), "8") | {"data.batch_size": str(8 * num)}
        experiment = assemble(cli.load_config(f"configs/{config}.py:debug", sizes))
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:num]).reshape(num, 1), AXES)
        experiment = experiment._replace(mesh=mesh)
        program = wire.compiled(experiment, initializer(experiment)[1])
        flops[num] = program.cost_analysis()["flops"]
        assert {c.kind for c in collectives(program.as_text())} <= {"all-reduce"}
    assert flops[8] < 1.2 * flops[1]


def test_each_device_draws_samples_of_its_own():
    experiment = assemble(cli.load_config("configs/vae_digits.py:debug", {}))
    state = initializer(experiment)[0]()
    drawn, flops = [], []
    for placed in (None, rows_beside(state.params, 16)):
        given = state.params, state.state, jax.random.key(0)
        program = compiled_sample(experiment.model.sample, placed).lower(*given, 16, None, 1.0).compile()
        drawn.append(program(*given, None, 1.0))
        flops.append(program.cost_analysis()["flops"])
        assert collectives(program.as_text()) == []
    assert drawn[1].sharding.shard_shape(drawn[1].shape)[0] == 2
    np.testing.assert_array_equal(*drawn)
    assert flops[1] < flops[0] / 7
    assert rows_beside(state.params, 12) is None
    assert rows_beside(jax.device_get(state.params), 16) is None
