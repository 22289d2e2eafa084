"""The reader of torch files on files made here without torch, and the network that the published weights are for.

`scripts/peers/torch_inception.py` compares both with PyTorch's own.
"""

import functools
import hashlib
import io
import pickle
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow import use
from genflow.analysis import features
from genflow.analysis.judge import inception_weights
from genflow.analysis.torch_file import MAGIC, PROTOCOL, read_torch_file
from genflow.core import Network, Spec
from genflow.errors import UserError
from genflow.networks import inception as networks

GENERATOR = np.random.default_rng(2)
# Of the state_dict of torchvision's inception_v3 with 1,008 outputs, but for fc.bias and the counters of batches:
# how many arrays, and the digest of the sorted lines 'NAME SHAPE'.
NUM_ARRAYS, DIGEST = 471, "daae579cdd09a2a9f7879bfda2fd721ab671ec5272e50a092fa9a5ea48c25f0a"
KINDS = {np.dtype(np.float32): "Float", np.dtype(np.int64): "Long", np.dtype(np.float16): "Half"}


def literal(value):
    """The opcodes that push a constant."""
    return pickle.dumps(value, 2)[2:-1]


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def tensor(key, kind, num, offset, size, stride, legacy):
    storage = b"(" + literal("storage") + name("torch", f"{kind}Storage") + literal(key) + literal("cpu") + literal(num)
    storage += (literal(None) if legacy else b"") + b"tQ"
    rest = (
        literal(offset) + literal(size) + literal(stride) + literal(False) + name("collections", "OrderedDict") + b")R"
    )
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + rest + b"tR"


def dictionary(items):
    """A pickle of an OrderedDict, and what torch hangs on one."""
    pairs = b"".join(literal(key) + value for key, value in items.items())
    metadata = b"}" + literal("_metadata") + literal({"": {"version": 1}}) + b"sb"
    return b"\x80\x02" + name("collections", "OrderedDict") + b")R(" + pairs + b"u" + metadata + b"."


def saved(arrays, legacy, views=None):
    """The bytes of a torch file with these arrays, of which `views` says (offset, size, stride) in their storage."""
    views = {key: (0, a.shape, tuple(s // a.itemsize for s in a.strides)) for key, a in arrays.items()} | (views or {})
    items = {
        key: tensor(str(i), KINDS[a.dtype], a.size, *views[key], legacy) for i, (key, a) in enumerate(arrays.items())
    }
    return packed(dictionary(items), [a.tobytes() for a in arrays.values()], [a.size for a in arrays.values()], legacy)


def packed(program, contents, sizes, legacy, order="little"):
    if legacy:
        system = {"protocol_version": PROTOCOL, "little_endian": order == "little", "type_sizes": {"int": 4}}
        parts = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, system)] + [program]
        parts.append(pickle.dumps([str(i) for i in range(len(contents))], 2))
        return b"".join([*parts, *(struct.pack("<q", n) + c for n, c in zip(sizes, contents, strict=True))])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", program)
        archive.writestr("net/byteorder", order)
        for i, content in enumerate(contents):
            archive.writestr(f"net/data/{i}", content)
    return file.getvalue()


@pytest.fixture(params=[False, True], ids=["zip", "legacy"])
def legacy(request):
    return request.param


@pytest.fixture
def file(tmp_path):
    return tmp_path / "net.pth"


def refusal(file, content):
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_torch_file(file)
    assert str(caught.value).startswith(f"{file} is not a state_dict that torch.save wrote")
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def test_arrays_come_back_with_their_names_types_and_shapes(file, legacy):
    arrays = {
        "conv.weight": GENERATOR.standard_normal((3, 2, 1, 1)).astype(np.float32),
        "count": np.array(7),
        "half": np.array([0.5, -2], np.float16),
        "empty": np.zeros((0, 3), np.float32),
    }
    file.write_bytes(saved(arrays, legacy))
    found = read_torch_file(file)
    assert list(found) == list(arrays)
    for key, expected in arrays.items():
        np.testing.assert_array_equal(found[key], expected, strict=True)
        assert found[key].flags.writeable


def test_a_view_is_read_from_its_place_in_the_storage(file, legacy):
    numbers = np.arange(12, dtype=np.float32)
    file.write_bytes(saved({"w": numbers}, legacy, {"w": (2, (3, 2), (1, 5))}))
    np.testing.assert_array_equal(read_torch_file(file)["w"], [[2, 7], [3, 8], [4, 9]])


@pytest.mark.parametrize(
    "view", [(11, (2,), (1,)), (0, (2, 2), (1, 11)), (0, (3,), (-1,)), (-1, (2,), (1,)), (0, (2,), ())]
)
def test_a_view_outside_its_storage_is_refused(file, legacy, view):
    assert "ValueError: a tensor of size" in refusal(file, saved({"w": np.zeros(12, np.float32)}, legacy, {"w": view}))


@pytest.mark.parametrize(
    ("module", "attribute", "argument"),
    [
        ("os", "mkdir", None),
        ("builtins", "exec", "raise SystemExit"),
        ("torch", "load", "x"),
        ("torch._utils", "x", "x"),
    ],
)
def test_a_pickle_that_names_anything_else_is_refused_and_not_run(file, tmp_path, legacy, module, attribute, argument):
    made = tmp_path / "made"
    call = name(module, attribute) + literal((argument or str(made),)) + b"R"
    message = refusal(file, packed(dictionary({"w": call}), [], [], legacy))
    assert f"it names {module}.{attribute}, which no dictionary of tensors needs" in message
    assert not made.exists()


def test_what_is_no_dictionary_of_tensors_is_refused(file, legacy):
    good = saved({"w": np.ones(40, np.float32)}, legacy)
    assert "a int where a tensor was expected" in refusal(file, packed(dictionary({"w": literal(3)}), [], [], legacy))
    assert refusal(file, good[: len(good) // 2])
    assert refusal(file, good[:-4])
    assert refusal(file, b"weights")
    assert refusal(file, b"")
    with pytest.raises(UserError, match="cannot read .*: No such file"):
        read_torch_file(file.with_name("absent.pth"))


def test_a_file_of_the_other_byte_order_is_refused(file, legacy):
    assert "little-endian" in refusal(file, packed(dictionary({}), [], [], legacy, "big"))
    file.write_bytes(packed(dictionary({}), [], [], legacy))
    assert read_torch_file(file) == {}


# Weights


@functools.cache
def shapes_of_parameters():
    return jax.eval_shape(networks.inception().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def state_dict():
    """Names and shapes of what the network reads, from its own parameters: convolution, then normalization."""
    shapes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes_of_parameters()):
        *names, part = [entry.key for entry in path]
        unit = ".".join(n for n in names if n != "stem" and not n.startswith("branch_") or n == "branch_pool")
        if unit == "fc":
            shapes["fc.weight"] = leaf.shape[::-1]
        elif part == "kernel":
            shapes[f"{unit}.conv.weight"] = tuple(leaf.shape[i] for i in (3, 2, 0, 1))
            shapes |= {f"{unit}.bn.{n}": leaf.shape[3:] for n in ("weight", "bias", "running_mean", "running_var")}
    return shapes


def test_the_network_reads_the_parameters_of_the_published_one():
    rows = sorted(f"{name} {shape}" for name, shape in state_dict().items())
    digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    assert (len(rows), digest) == (NUM_ARRAYS, DIGEST)


def test_parameters_of_a_state_dict_are_those_of_the_network():
    arrays = {key: np.broadcast_to(np.float32(1), shape) for key, shape in state_dict().items()}
    unit = "Conv2d_3b_1x1"
    own = {f"bn.{part}": GENERATOR.random(80).astype(np.float32) + 0.5 for part in ("weight", "bias", "running_var")}
    own |= {"bn.running_mean": GENERATOR.random(80), "conv.weight": GENERATOR.standard_normal((80, 64, 1, 1))}
    params = networks.inception_params(arrays | {f"{unit}.{part}": a for part, a in own.items()})
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes_of_parameters())
    x = GENERATOR.standard_normal(64)
    normalized = (own["conv.weight"][..., 0, 0] @ x - own["bn.running_mean"]) / np.sqrt(own["bn.running_var"] + 1e-3)
    found = x @ params["stem"][unit]["kernel"][0, 0] + params["stem"][unit]["bias"]
    np.testing.assert_allclose(found, normalized * own["bn.weight"] + own["bn.bias"], rtol=1e-5, atol=1e-5)
    for changes in ({"fc.weight": np.zeros((1000, 2048))}, {"Mixed_7c.branch3x3_2a.bn.bias": np.zeros(3)}):
        with pytest.raises(ValueError, match=f"{next(iter(changes))} has shape .*: these are not the weights"):
            networks.inception_params(arrays | changes)


def test_features_and_logits_have_their_published_sizes():
    found = jax.eval_shape(networks.inception().apply, shapes_of_parameters(), jnp.zeros((2, 32, 40, 3)))
    assert [a.shape for a in found] == [(2, 2048), (2, 1008)]


def test_pools_do_not_count_padding():
    x = jnp.ones((1, 5, 5, 1))
    np.testing.assert_allclose(networks.POOLS["average"](x), x, rtol=1e-6)
    np.testing.assert_array_equal(networks.POOLS["max_same"](-x), -x)
    assert networks.POOLS["max"](x).shape == (1, 2, 2, 1)


def test_another_file_than_the_published_one_is_refused_by_its_digest(file):
    file.write_bytes(saved({"fc.weight": np.ones((2, 2), np.float32)}, True))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(UserError) as caught:
        use.evaluate_run("nowhere", features=f"inception:{file}")
    assert f"its sha256 begins with {digest[:8]}, that of the published weights with 6726825d" in str(caught.value)
    with pytest.raises(UserError, match="has shape .*: these are not the weights of this network"):
        inception_weights(str(file), digest[:8])
    with pytest.raises(UserError, match="No such file"):
        inception_weights(str(file) + ".absent")


# Images to features


@pytest.fixture
def pixels(monkeypatch):
    """The network that shows what it is given."""

    def apply(params, x):
        assert x.shape[-1] == 3
        flat = x.reshape(len(x), -1)
        return flat, jnp.log(jnp.broadcast_to(params["p"], (len(x), 2)))

    monkeypatch.setattr(features, "inception", lambda: Network(None, apply))
    monkeypatch.setattr(features, "INCEPTION_BATCH", 4)
    return {"p": jnp.array([0.25, 0.75])}


@pytest.mark.parametrize(("channels", "bins"), [(1, 256), (3, 256), (1, 17), (3, 2)])
def test_images_are_shown_between_minus_one_and_one_with_three_channels(pixels, channels, bins):
    extractor = features.inception_extractor(pixels, Spec("images", (2, 3, channels), bins))
    x = GENERATOR.integers(0, bins, (10, 2, 3, channels))
    x[0, 0, 0], x[1, 0, 0] = 0, bins - 1
    found, probabilities = extractor.describe(x)
    expected = np.broadcast_to(2 * x / (bins - 1) - 1, (10, 2, 3, 3)).reshape(10, -1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert (found.min(), found.max()) == (-1, 1)
    np.testing.assert_allclose(probabilities, np.broadcast_to([0.25, 0.75], (10, 2)), rtol=1e-6)
    np.testing.assert_array_equal(extractor.describe(x[:3]).features, found[:3])


@pytest.mark.parametrize(
    "spec", [Spec("x", (2,), None), Spec("x", (2, 2, 1), None), Spec("x", (2, 2, 2), 8), Spec("x", (9,), 8)]
)
def test_inception_features_are_of_images(spec):
    with pytest.raises(ValueError, match="Inception features are of images with 1 or 3 channels; x has shape"):
        features.inception_extractor({}, spec)
