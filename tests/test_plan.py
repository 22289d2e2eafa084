"""Preflight plans: counts against closed forms, abstract programs against real ones, the record against its page."""

import json
import math
import os
import signal
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from genflow import cli, data, experiment
from genflow.data import published
from genflow.data.densities import DENSITIES
from genflow.data.sources import EMBEDDED
from genflow.errors import UserError
from genflow.plan import every, flops, page, preflight, topology, traffic
from genflow.plan.abstract import abstract, make_mesh
from genflow.plan.chips import CHIPS, chip, roofline
from genflow.plan.search import largest_batch

FAMILIES = ("maf_toy", "ffjord_toy", "made_digits", "vae_digits", "flow_matching_toy", "gan_toy1d", "rbm_digits")


def load(name, **values):
    return cli.load_config(f"configs/{name}.py:debug", {k.replace("__", "."): v for k, v in values.items()})


# Operations


def work(function, *shapes):
    return flops.count(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)))


@given(st.tuples(*[st.integers(1, 7)] * 4))
@settings(max_examples=10, deadline=None)
def test_a_matrix_product_has_two_operations_for_each_multiplication(sizes):
    b, n, k, m = sizes
    assert work(jnp.matmul, (b, n, k), (b, k, m)).matrix.total() == 2 * b * n * k * m


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_a_convolution_multiplies_what_is_there_and_no_padding(stride, x_dilation, dilation, groups, padding):
    convolve = partial(
        jax.lax.conv_general_dilated,
        window_strides=(stride, 1),
        padding=((padding, 1), (0, padding)),
        lhs_dilation=(x_dilation, 2),
        rhs_dilation=(dilation, 1),
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x, kernel = jnp.ones((2, 7, 5, 2)), jnp.ones((3, 2, 2 // groups, 4))
    assert work(convolve, x.shape, kernel.shape).matrix.total() == 2 * float(convolve(x, kernel).sum())


def test_each_gradient_of_a_convolution_costs_as_much_as_the_convolution():
    def loss(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1))).sum()

    forward = work(loss, (2, 3, 9, 9), (5, 3, 3, 3)).matrix.total()
    both = work(jax.value_and_grad(loss, (0, 1)), (2, 3, 9, 9), (5, 3, 3, 3)).matrix.total()
    assert both == 3 * forward


def chain(num, x, w, unrolled):
    if unrolled:
        for i in range(num):
            x = jnp.tanh(x @ w[i])
        return x.sum()
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0].sum()


@pytest.mark.parametrize("memory", ["store", "remat"])
def test_a_loop_counts_as_often_as_it_runs(memory):
    def counted(unrolled):
        function = partial(chain, 6, unrolled=unrolled)
        function = jax.checkpoint(function) if memory == "remat" else function
        return work(jax.value_and_grad(function, 1), (4, 8), (6, 8, 8))

    scanned, unrolled = counted(False), counted(True)
    one = 2 * 4 * 8 * 8
    assert scanned.matrix.total() == (3 + (memory == "remat")) * 6 * one
    assert scanned.matrix.total() - unrolled.matrix.total() in (0, one)  # no gradient of the first x is wanted
    loops = [work(partial(chain, 6, unrolled=unrolled), (4, 8), (6, 8, 8)).elementwise for unrolled in (False, True)]
    assert loops[0] == loops[1] >= 6 * 4 * 8


def test_of_a_conditional_the_dearest_branch_counts_and_of_an_open_loop_one_turn():
    def function(x):
        x = jax.lax.cond(x[0, 0] > 0, lambda x: x, lambda x: x @ x, x)
        return jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x @ x, x)

    found = work(function, (4, 4))
    assert (found.matrix.total(), found.open_loops) == (3 * 2 * 4**3, 1)


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32", "bfloat16"])
def test_precision_of_the_factors_is_told_apart(precision):
    with jax.default_matmul_precision(precision):
        found = work(jnp.matmul, (2, 2), (2, 2))
    wanted = {"bfloat16": "default"}.get(precision, precision)  # one pass is what DEFAULT means
    assert set(found.matrix) == {wanted}
    half = flops.count(jax.make_jaxpr(jnp.matmul)(*[jnp.zeros((2, 2), jnp.bfloat16)] * 2))
    assert set(half.matrix) == {"bfloat16"}


def test_solvers_count_what_is_solved():
    def solved(a, b):
        return jax.scipy.linalg.solve_triangular(a, b)

    def factored(a):
        return jnp.linalg.cholesky(a)

    def solve(a, b):
        return jax.lax.custom_linear_solve(lambda x: a @ x, b, lambda _, b: b / a[0, 0], lambda _, b: a @ b)

    assert work(solved, (6, 6), (6, 4)).matrix.total() == 6 * 6 * 4
    assert work(factored, (2, 6, 6)).matrix.total() == 2 * 6**3 // 3
    assert work(solve, (6, 6), (6,)).matrix.total() == 0
    assert work(jnp.linalg.solve, (6, 6), (6, 4)).matrix.total() == 2 * 6**3 // 3 + 2 * 6 * 6 * 4


# Traffic

HLO = """
%fused (p.0: f32[6,4,8], p.1: s32[], p.2: f32[4,8]) -> f32[4,8] {
  %p.0 = f32[6,4,8]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %cut = f32[1,4,8]{2,1,0} dynamic-slice(%p.0, %p.1, %zero, %zero), dynamic_slice_sizes={1,4,8}
  %view = f32[4,8]{1,0} bitcast(%cut)
  %p.2 = f32[4,8]{1,0} parameter(2)
  ROOT %sum = f32[4,8]{1,0} add(%view, %p.2)
}
%body (arg: (s32[], f32[6,4,8], f32[4,8])) -> (s32[], f32[6,4,8], f32[4,8]) {
  %arg = (s32[], f32[6,4,8]{2,1,0}, f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %all = f32[6,4,8]{2,1,0} get-tuple-element(%arg), index=1
  %x = f32[4,8]{1,0} get-tuple-element(%arg), index=2
  %f = f32[4,8]{1,0} fusion(%all, %i, %x), kind=kLoop, calls=%fused
  ROOT %out = (s32[], f32[6,4,8]{2,1,0}, f32[4,8]{1,0}) tuple(%i, %all, %f)
}
%condition (arg: (s32[], f32[6,4,8], f32[4,8])) -> pred[] {
  %arg = (s32[], f32[6,4,8]{2,1,0}, f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %end = s32[] constant(6)
  ROOT %less = pred[] compare(%i, %end), direction=LT
}
ENTRY %main (p: (s32[], f32[6,4,8], f32[4,8])) -> (s32[], f32[6,4,8], f32[4,8]) {
  %p = (s32[], f32[6,4,8]{2,1,0}, f32[4,8]{1,0}) parameter(0)
  ROOT %loop = (s32[], f32[6,4,8]{2,1,0}, f32[4,8]{1,0}) while(%p), condition=%condition, body=%body
}
"""


def test_a_fusion_reads_the_slice_and_a_loop_turns_as_often_as_its_condition_says():
    each = 4 * (32 + 32 + 32) + 4  # the slice, the sum's other term, the sum, the index
    assert traffic.memory_bytes(HLO) == 6 * each
    assert traffic.memory_bytes(HLO.replace("%end = s32[] constant(6)", "%end = s32[] parameter(1)")) == each
    on_chip = HLO.replace("f32[4,8]{1,0} fusion", "f32[4,8]{1,0:T(8,128)S(1)} fusion")
    on_chip = on_chip.replace("ROOT %sum = f32[4,8]{1,0}", "ROOT %sum = f32[4,8]{1,0:T(8,128)S(1)}")
    assert traffic.memory_bytes(on_chip) == 6 * (each - 4 * 32)


def test_tiles_are_padded_and_on_chip_arrays_are_free():
    assert traffic.nbytes("f32[3,5]{1,0}") == 60
    assert traffic.nbytes("f32[3,5]{1,0:T(8,128)}") == 4 * 8 * 128
    assert traffic.nbytes("f32[3,5]{0,1:T(4,128)}") == 4 * 8 * 128  # five rows of three
    assert traffic.nbytes("bf16[16,128]{1,0:T(8,128)(2,1)}") == 2 * 16 * 128
    assert traffic.nbytes("(f32[2]{0}, pred[3]{0:T(128)S(1)}, u8[])") == 9


def test_a_longer_loop_moves_as_many_bytes_more_for_each_turn():
    def moved(num):
        program = jax.jit(partial(chain, num, unrolled=False)).lower(jnp.zeros((8, 64)), jnp.zeros((num, 64, 64)))
        return traffic.memory_bytes(program.compile().as_text())

    three, six, nine = moved(3), moved(6), moved(9)
    assert nine - six == six - three >= 3 * 4 * 64 * 64


# Chips


def test_a_tpu_makes_a_float32_product_of_six_passes():
    v5e = chip("TPU v5 lite")
    assert v5e.flops["bfloat16"] == 6 * v5e.flops["float32"] == 3 * v5e.flops["tensorfloat32"] == 197e12
    assert chip("TPU v5").name == "TPU v5p"
    assert chip("cpu") is chip("NVIDIA H100 PCIe") is None
    assert chip("NVIDIA A100-SXM4-40GB").bandwidth == 1.555e12
    assert all(min(c.memory, c.bandwidth, c.interconnect, *c.flops.values()) > 1e10 for c in CHIPS.values())


def test_the_roofline_is_the_slowest_of_three():
    one = CHIPS["TPU v5 lite"]
    found = roofline(one, {"bfloat16": 197e12, "float32": 197e12}, 819e9 / 2, 200e9 / 4)
    assert found == pytest.approx({"compute": 7, "memory": 0.5, "collectives": 0.25, "step": 7})


# Largest batch


@given(st.integers(1, 50), st.integers(0, 10**6), st.integers(1, 10**4), st.floats(0, 0.3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_largest_batch_fits_and_one_a_little_larger_does_not(unit, fixed, slope, bend, silent):
    most, limit, probes = 400 * unit, 10**6, {}

    def peak(size):
        used = int(fixed + slope * size + bend * slope * (size % 7))  # not quite linear
        probes[size] = used <= limit
        return None if silent and used > limit else used

    found = largest_batch(peak, unit, limit, most)
    assert len(probes) <= 4 + math.ceil(math.log2(400))
    assert found % unit == 0
    assert found == 0 or probes[found]
    larger = [size for size, fits in probes.items() if not fits]
    assert min(larger, default=most + unit) <= found + max(unit, 0.05 * found)


def test_a_line_needs_few_probes():
    probes = []
    found = largest_batch(lambda n: probes.append(n) or 1000 + 10 * n, 8, 10_000, 10**6, known={64: 1640})
    assert 0.95 * 900 <= found <= 900
    assert len(probes) <= 4


def test_where_every_example_fits_the_largest_batch_is_all_of_them():
    probes = []
    assert largest_batch(lambda n: probes.append(n) or 1000 + 10 * n, 8, 10**9, 50_003, known={1_024: 11_240}) == 50_000
    assert len(probes) <= 3
    known = {128: 228}  # more than there are examples
    assert largest_batch(lambda n: 100 + n, 4, 500, 100, known) == 100


# Data by their description


DESCRIBED = {
    "digits": published.Facts((8, 8, 1), {"train": 1437, "test": 360}, 17, 10),
    "synthetic:12x9x3": published.Facts((12, 9, 3), {"train": 512, "validation": 64, "test": 64}, 256, 10),
    "moons": published.Facts((2,), {"train": 100_000, "validation": 10_000, "test": 10_000}, None),
    "tones": published.Facts((4096,), {"train": 512, "validation": 64, "test": 64}, 256, 10, 2, 8000),
}
SECTIONS = {
    "digits": ({}, {"validation": 0.0}, {"num_examples": 100}, {"binarize": "threshold"}, {"binarize": "stochastic"}),
    "synthetic:12x9x3": ({"bits": 5}, {"image_size": 4}, {"crop": (1, 2, 8, 6)}, {"augment": "flip"}),
    "moons": ({},),
    "tones": ({},),
}


def known(spec, train, arrays):
    shapes = {name: (a.shape, a.dtype) for name, a in arrays.items()}
    fields = ("name", "shape", "bins", "num_classes", "cond_dims", "sample_rate")
    return [getattr(spec, field) for field in fields], shapes


@pytest.mark.parametrize(("name", "changes"), [(name, c) for name, cs in SECTIONS.items() for c in cs])
def test_a_description_gives_the_spec_that_the_data_give(name, changes, monkeypatch):
    section = load("glow_digits").copy_and_resolve_references().data
    section.update({"name": name, "num_examples": 0} | changes)
    spec, real, _ = data.load(section, 0)
    monkeypatch.setitem(published.PUBLISHED, name, DESCRIBED[name])
    described = published.described(section, name)
    assert known(*described) == known(spec, real, real.arrays)
    assert described[1].num == real.num


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
def test_a_description_of_a_text_gives_its_windows(tokens, tmp_path, monkeypatch):
    text = np.frombuffer(published.SHAKESPEARE * 20, np.uint8)
    np.savez(tmp_path / "tiny_shakespeare.npz", x_train=text, x_valid=text[:200], x_test=text[:200])
    section = load("gpt_shakespeare").copy_and_resolve_references().data
    section.update(name="tiny_shakespeare", num_examples=0, window=16, tokens=tokens, data_dir=str(tmp_path))
    spec, real, _ = data.load(section, 0)
    monkeypatch.setitem(published.PUBLISHED, "tiny_shakespeare", published.Text(published.SHAKESPEARE, len(text)))
    described = published.described(section, "tiny_shakespeare")
    assert known(*described) == known(spec, real, real.arrays)
    assert (described[0].symbols, described[1].num) == (spec.symbols, real.num)


def test_every_experiment_can_be_planned_without_data():
    here, drawn = (*EMBEDDED, *DENSITIES), ("target:", "trajectories:", "synthetic:")
    names = {cli.load_config(str(path)).data.name for path in cli.config_files()}
    unknown = [name for name in names if name not in here and not name.startswith(drawn)]
    assert unknown
    assert [name for name in unknown if not published.is_published(name)] == []


# The abstract program is the real one


def placed(tree):
    return jax.tree.map(lambda a: (a.shape, str(a.dtype), a.sharding), tree)


@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize("name", ["glow_digits", "rbm_digits", "gpt_shakespeare"])
def test_the_abstract_call_is_the_one_that_a_run_compiles(name, placement):
    precision = "bfloat16" if (placement, name) == ("host", "glow_digits") else "float32"
    config = load(name, data__placement=placement, compute__network_precision=precision)
    real = experiment.assemble(config)
    first, target = experiment.initializer(real)
    feed = experiment.make_feed(real)
    made = abstract(config, jax.devices(), None)
    assert placed(made.state) == placed(target)
    assert placed(made.data) == placed(feed.data)
    entries = feed.entries(0, 1)
    assert placed(made.entries) == placed(entries)
    traced = experiment.trace_call(real, feed, target, entries)
    assert str(made.traced.jaxpr) == str(traced.jaxpr)


def test_the_mesh_is_that_of_a_run():
    config = load("glow_digits", sharding__model="2")
    assert make_mesh(config.sharding, jax.devices()) == experiment.make_mesh(-1, 2)
    with pytest.raises(UserError, match="data=2 x model=3 is not 8"):
        make_mesh(load("glow_digits", sharding__model="3").sharding, jax.devices())


def test_a_device_holds_its_part_of_what_is_cut():
    mesh = make_mesh(load("glow_digits", sharding__model="2").sharding, jax.devices())
    whole, cut = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (None, "model")))
    tree = [jax.ShapeDtypeStruct((4, 6), np.float32, sharding=s) for s in (whole, cut)]
    assert preflight.shard_bytes(tree) == 4 * (24 + 12)


# Plans


def run_script(*words, **environment):
    script = [sys.executable, str(cli.ROOT / "scripts" / "plan.py"), *words]
    variables = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "NPROC", "JAX_PLATFORMS")}
    path = {"PYTHONPATH": str(cli.ROOT)}
    return subprocess.run(script, capture_output=True, text=True, env=variables | path | environment)


def test_the_script_plans_for_eight_devices_of_a_cpu(tmp_path):
    file = tmp_path / "plan.json"
    done = run_script("--config=configs/made_digits.py:debug", "--topology=cpu:8", f"--json={file}")
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(file.read_text())
    assert (plan["chips"], plan["mesh"], plan["batch_size"]) == (8, {"data": 8, "model": 1}, 8)
    check_memory(plan)
    assert plan["seconds"] is None
    kinds = {c["kind"] for c in plan["collectives"]}
    assert "all-reduce" in kinds
    assert plan["sent_bytes"] > plan["memory"]["parameters"]
    assert f"{plan['num_parameters']:,} parameters" in done.stdout
    assert "No rates are known" in done.stdout


def check_memory(plan):
    memory = plan["memory"]
    assert 4 * plan["num_parameters"] == memory["parameters"]
    assert 2 * memory["parameters"] <= memory["optimizer"] + 64 <= 2 * memory["parameters"] + 256  # Adam's two moments
    assert plan["peak_bytes"] >= sum(memory.values()) - memory["padding"]
    assert plan["fits"]


@pytest.fixture
def quiet_libtpu(monkeypatch):
    pytest.importorskip("libtpu", reason="the compiler for TPUs, libtpu, is not installed: pip install -e '.[tpu]'")
    for name, value in topology.WITHOUT_TPU.items():
        monkeypatch.setenv(name, value)


@pytest.mark.extras
@pytest.mark.parametrize("name", FAMILIES)
def test_the_debug_step_of_each_family_compiles_for_a_slice_that_is_not_there(name, quiet_libtpu):
    plan = preflight.plan(load(name), "v5e:2x2")
    assert (plan["device"], plan["chips"], plan["memory_bytes"]) == ("TPU v5 lite", 4, 63 * 2**28)
    assert plan["fits"]
    assert plan["hbm_bytes"] > 0
    assert plan["seconds"]["step"] == max(plan["seconds"].values())
    assert any(c["kind"] == "all-reduce" and c["group"] == 4 for c in plan["collectives"])
    assert plan["images_per_second"] == pytest.approx(8 / plan["seconds"]["step"])
    assert f"{plan['num_parameters']:,} parameters" in page.report(plan)


@pytest.mark.extras
def test_cut_parameters_cost_a_tpu_no_more_traffic_than_whole_ones(quiet_libtpu):
    cut = {"sharding.model": "4", "sharding.rules": "(('.', ('largest',)),)"}
    config = cli.load_config("configs/vae_mnist.py", cut)
    plan = preflight.plan(config, "v5e:2x2")
    assert plan["memory"]["parameters"] < 1.01 * plan["num_parameters"]  # a quarter of 4 bytes each
    assert "reduce-scatter" in {c["kind"] for c in plan["collectives"]}
    ring = 2 * 3 / 4 * 4 * plan["num_parameters"]
    assert ring < plan["sent_bytes"] < 1.1 * ring


def test_a_batch_that_the_chips_do_not_divide_is_rounded_up_and_told():
    config, note = preflight._divided(load("glow_digits"), 3)
    assert (config.data.batch_size, config.eval.batch_size) == (9, 9)
    assert "--config.data.batch_size=9 --config.eval.batch_size=9" in note
    config, note = preflight._divided(load("glow_digits"), 8)
    assert (config.data.batch_size, note) == (8, "")


def test_what_the_compiler_says_it_needs_is_read():
    message = "RESOURCE_EXHAUSTED: ... Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm."
    assert preflight._needed(message, 7) == int(20.5 * 2**30)
    message = (
        "RESOURCE_EXHAUSTED: ... total memory required for HLO temporaries (64.00M) exceeds available HBM (15.75G)."
    )
    assert preflight._needed(message, 7) == 64 * 2**20 + 7
    assert preflight._needed("RESOURCE_EXHAUSTED", 7) is None


def test_a_batch_that_the_compiler_refuses_just_below_the_limit_does_not_fit():
    assert preflight._peak({"fits": True, "peak_bytes": 90}, 100) == 90
    assert preflight._peak({"fits": False, "peak_bytes": 99}, 100) == 101
    assert preflight._peak({"fits": False, "peak_bytes": None}, 100) is None


# Topologies


@pytest.mark.parametrize("name", ["v5e", "v5e:3x3", "v5p:4x4", "v9:2x2", "cpu", "cpu:0", "cpu:1000", "gpu:2", ""])
def test_an_unknown_topology_is_refused_with_the_known_ones(name):
    with pytest.raises(UserError, match="v5e:1x1, 2x2, .* v6e:.* v5p:2x2x1, .*cpu:N.* gpu"):
        topology.parse(name)


def test_topologies_have_as_many_chips_as_their_names_say():
    assert [topology.parse(n).chips for n in ("v5e:4x8", "v5p:2x2x4", "cpu:3", "gpu")] == [32, 16, 3, 0]
    assert "device_count=3" in topology.environment(topology.parse("cpu:3"))["XLA_FLAGS"]


def test_without_libtpu_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[tpu\]'"):
        topology.devices(topology.parse("v5e:2x2"))


def test_without_a_gpu_and_with_too_few_devices_the_plan_ends_before_it_compiles(monkeypatch):
    with pytest.raises(UserError, match="--topology=cpu:64: JAX shows 8 CPU devices"):
        topology.devices(topology.parse("cpu:64"))

    def none(platform):
        raise RuntimeError(f"no {platform}")

    monkeypatch.setattr(jax, "devices", none)
    with pytest.raises(UserError, match="--topology=gpu: JAX finds none"):
        topology.devices(topology.parse("gpu"))


def test_noise_of_libraries_is_kept_off_the_terminal(capfd):
    with topology.silenced() as written:
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == ""
    del written


# The record of all plans

PLAN = {
    "batch_size": 100,
    "note": "",
    "num_parameters": 12,
    "matrix_flops": {"float32": 2e9},
    "open_loops": 0,
    "peak_bytes": 2**30,
    "memory_bytes": None,
    "fits": True,
    "compile_seconds": 1.0,
    "hbm_bytes": 1e9,
    "sent_bytes": 1e6,
    "seconds": None,
    "quick": False,
}


REPORTED = PLAN | {
    "name": "a",
    "slice": "v5e:2x2",
    "chips": 4,
    "device": "TPU v5 lite",
    "mesh": {"data": 4, "model": 1},
    "num_examples": 10,
    "placement": "host",
    "num_steps": 10,
    "memory": {"parameters": 48},
    "elementwise_flops": 1e6,
    "collectives": [],
    "seconds": {"compute": 1e-3, "memory": 3e-3, "collectives": 2e-3, "step": 3e-3},
    "bound_by": "memory",
    "images_per_second": 5.0,
    "hours": 1.0,
    "chip_hours": 4.0,
}


def fake_root(path):
    for folder in ("docs", "results"):
        (path / folder).mkdir()
    (path / page.PAGE).write_text("before\n{}\n{}\nafter\n".format(*page.MARKERS))
    return path


def test_all_plans_resume_and_outlive_one_that_fails(tmp_path, monkeypatch):
    root, calls = fake_root(tmp_path), []

    def planned(root, name, where, cpu_minutes, quick):
        calls.append((name, where))
        return {"failed": "it | broke", "cpu_minutes": cpu_minutes} if "maf" in name else PLAN

    monkeypatch.setattr(every, "_planned", planned)
    names = ["configs/made_digits.py", "configs/maf_gas.py"]
    every.plan_all(root, names, "", 1.0, False)
    every.plan_all(root, names, "", 1.0, False)
    assert calls == [("configs/made_digits.py", "cpu:1"), ("configs/maf_gas.py", "v5e:2x2")]
    text = (root / page.PAGE).read_text()
    assert "`made_digits` | cpu:1" in text
    assert "`maf_gas` | v5e:2x2" in text
    assert "not compiled: it \\| broke" in text
    assert not page.is_stale(root)
    every.plan_all(root, names, "", 2.0, False)
    assert [name for name, _ in calls[2:]] == ["configs/maf_gas.py"]  # that failed with less time
    page.write_record(root, page.read(root) | {"gone": PLAN | {"name": "gone", "slice": "cpu:1"}})
    every.plan_all(root, names, "v5e:4x4", 1.0, False)
    assert len(calls) == 5
    assert "gone" not in page.read(root)
    page.write_record(root, {})
    assert page.is_stale(root)


def test_a_quick_plan_is_replaced_by_a_thorough_one_and_never_the_other_way_round(tmp_path, monkeypatch):
    root, calls, outcomes = fake_root(tmp_path), [], iter([{}, {"failed": "too long"}, {}])

    def planned(root, name, where, cpu_minutes, quick):
        calls.append(quick)
        return next(outcomes) or PLAN | {"quick": quick}

    monkeypatch.setattr(every, "_planned", planned)
    for quick, kept in ((True, True), (True, True), (False, True), (False, False), (True, False)):
        every.plan_all(root, ["configs/maf_gas.py"], "", 1.0, quick)
        assert page.read(root)["maf_gas"]["quick"] == kept
        assert ("quick" in (root / page.PAGE).read_text()) == kept
    assert calls == [True, False, False]


def test_a_quick_plan_says_nothing_of_memory_traffic():
    quick = {**REPORTED, "quick": True, "hbm_bytes": None}
    assert "GB to and from its memory" in page.report(REPORTED)
    assert "GB to and from its memory" not in page.report(quick)
    assert "memory 3.000 ms" in page.report(REPORTED)
    zero = quick | {"seconds": REPORTED["seconds"] | {"memory": 0.0}}
    assert "memory 3.000" not in page.report(zero)
    assert "–" in page.rows({"a": zero})[1]
    by = page.COLUMNS.index("bound by")
    assert (page.rows({"a": REPORTED})[1][by], page.rows({"a": quick})[1][by]) == (REPORTED["bound_by"], "–")
    assert "bound by" not in page.report(quick)


def test_a_plan_says_what_kind_of_bound_it_is_and_which_remedies_there_are():
    assert "hours or more" in page.report(REPORTED)
    rare = REPORTED | {"every": True}
    assert "hours or more" not in page.report(rare)
    assert "about" in page.rows({"a": rare})[1][-1]
    full = REPORTED | {"fits": False, "memory_bytes": 2**29}
    assert "remat" not in page.report(full)
    assert "model.memory=remat" in page.report(full | {"model_memory": "store"})
    assert "No program" not in page.report(full | {"seconds": None})


@pytest.mark.parametrize(("status", "words"), [(-signal.SIGKILL, "memory"), (-signal.SIGXCPU, "3 minutes of a CPU")])
def test_a_compiler_that_was_killed_is_told_from_one_that_took_too_long(status, words):
    assert words in every._reason(subprocess.CompletedProcess([], status, "", ""), 3.0)


def test_the_page_agrees_with_the_record():
    assert not page.is_stale(cli.ROOT)
    plans = page.read(cli.ROOT)
    assert all(plan["name"] == name for name, plan in plans.items())
    assert all(len(row) == len(page.COLUMNS) for row in page.rows(plans))


def test_every_experiment_fits_on_the_slice_that_it_names():
    paths, plans = {path.stem: path for path in cli.config_files()}, page.read(cli.ROOT)
    assert set(plans) <= set(paths)
    assert {name: plan["slice"] for name, plan in plans.items()} == {n: every.slice_of(paths[n]) for n in plans}
    assert [name for name, plan in plans.items() if not plan.get("fits")] == []


def test_the_script_refuses_what_it_cannot_do():
    done = run_script("--config=configs/maf_gas.py", "--topology=v5e:3x3")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --topology='v5e:3x3'")
    done = run_script("--all", "--topology=v5e:2x2")
    assert (done.returncode, "--topology is for one --config" in done.stderr) == (2, True)
    done = run_script("--config=configs/maf_gas.py", "--json=nowhere/plan.json")
    assert (done.returncode, "there is no folder" in done.stderr) == (2, True)
    done = run_script("--all", "--largest_batch")
    assert done.returncode == 2
    assert "are for one --config" in done.stderr
