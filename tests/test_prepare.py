"""Preparing public data sets: small original files of each format, and the faults of a download."""

import gzip
import hashlib
import http.server
import io
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from configs.common import base
from genflow.data import load
from genflow.data.catalog import CATALOG
from genflow.data.download import Resource, ensure, resources
from genflow.data.prepare import prepare
from genflow.data.raw import PARSERS
from genflow.errors import UserError

RNG = np.random.default_rng(0)
CONTENT = gzip.compress(b"a data file" * 1000)


def resource_of(content, filename, url="http://localhost:9/none"):
    return Resource(url, len(content), hashlib.sha256(content).hexdigest(), filename)


def idx(a):
    return gzip.compress(struct.pack(">HBB", 0, 8, a.ndim) + struct.pack(f">{a.ndim}I", *a.shape) + a.tobytes())


def png(image):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "png")
    return out.getvalue()


def archive(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, content in files.items():
            z.writestr(name, content)
    return out.getvalue()


def mat(x, y):
    out = io.BytesIO()
    savemat(out, {"X": x.transpose(1, 2, 3, 0), "y": np.where(y == 0, 10, y)[:, None]})
    return out.getvalue()


def cifar_tar(x, y):
    """Five training batches, the test batch, and members that must not be touched."""
    out = io.BytesIO()
    table = np.concatenate([y[:, None].astype(np.uint8), x.transpose(0, 3, 1, 2).reshape(len(x), -1)], axis=1)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        hostile = tarfile.TarInfo("../escaped.bin")
        hostile.size = 4
        tar.addfile(hostile, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("cifar-10-batches-bin/readme.html")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name, part in zip(names, np.split(table, 6), strict=True):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = part.nbytes
            tar.addfile(info, io.BytesIO(part.tobytes()))
    return out.getvalue()


def images(num, *shape):
    return RNG.integers(0, 256, (num, *shape), dtype=np.uint8)


def mnist_files():
    x, y = images(30, 28, 28), RNG.integers(0, 10, 30, dtype=np.uint8)
    contents = [idx(x[:20]), idx(y[:20]), idx(x[20:]), idx(y[20:])]
    return dict(zip(CATALOG["mnist"].files, contents, strict=True)), x[..., None], y


def binarized_files():
    x = images(30, 784) % 2
    parts = [b"".join(b" ".join(b"%d" % p for p in row) + b" \n"[1:] for row in part) for part in np.split(x, 3)]
    return dict(zip(CATALOG["binarized_mnist"].files, parts, strict=True)), x.reshape(-1, 28, 28, 1), None


def cifar_files():
    x, y = images(30, 32, 32, 3), RNG.integers(0, 10, 30)
    return {"cifar-10-binary.tar.gz": cifar_tar(x, y)}, x, y


def svhn_files():
    x, y = images(30, 32, 32, 3), np.arange(30) % 10
    contents = [mat(x[:20], y[:20]), mat(x[20:], y[20:])]
    return dict(zip(CATALOG["svhn_cropped"].files, contents, strict=True)), x, y


def celeb_files():
    """Images whose window [40:188, 15:163] is one colour, so that resizing it must keep that colour."""
    colors = images(30, 1, 1, 3)
    x = np.zeros((30, 218, 178, 3), np.uint8)
    x[:, 40:188, 15:163] = colors
    lines = "\n".join(f"{i:06}.jpg {i * 3 // 30}" for i in range(30))
    content = archive({f"img_align_celeba/{i:06}.jpg": png(image) for i, image in enumerate(x)})
    files = {"list_eval_partition.txt": lines.encode(), "img_align_celeba.zip": content}
    return files, np.broadcast_to(colors, (30, 64, 64, 3)), None


def omniglot_files():
    ink = images(30, 105, 105) % 2
    names = [f"Alphabet_{i // 10}/character0{i // 5 % 2}/{i:04}.png" for i in range(30)]
    pairs = [(name, png(255 * (1 - image))) for name, image in zip(names, ink, strict=True)]
    contents = [archive({f"images_background/{n}": c for n, c in pairs[:20]})]
    contents += [archive({f"images_evaluation/{n}": c for n, c in pairs[20:]})]
    return dict(zip(CATALOG["omniglot"].files, contents, strict=True)), ink[..., None], np.arange(30) // 5


FILES = {
    "mnist": mnist_files,
    "binarized_mnist": binarized_files,
    "cifar10": cifar_files,
    "svhn_cropped": svhn_files,
    "celeb_a": celeb_files,
    "omniglot": omniglot_files,
}


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [resource_of(content, name) for name, content in files.items()]


@pytest.mark.parametrize("name", list(FILES))
def test_original_files_become_a_set_that_load_reads(tmp_path, name):
    files, x, y = FILES[name]()
    table = write(tmp_path / "raw", files)
    assert prepare(name, tmp_path / "data", tmp_path / "raw", table) == tmp_path / "data" / f"{name}.npz"
    config = base().data
    config.name, config.data_dir, config.validation, config.batch_size = name, str(tmp_path / "data"), 0.0, 4
    spec, train, evaluation = load(config, 0)
    parts = [train, *(evaluation[part] for part in ("validation", "test") if part in evaluation)]
    np.testing.assert_array_equal(np.concatenate([d.arrays["x"] for d in parts]), x)
    if y is not None:
        np.testing.assert_array_equal(np.concatenate([d.arrays["label"] for d in parts]), y)
    assert (spec.bins, spec.source) == (CATALOG[name].bins, CATALOG[name].homepage)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [f"{name}.npz"]
    assert not (tmp_path / "escaped.bin").exists()


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("mnist", "train-images-idx3-ubyte.gz", gzip.compress(struct.pack(">HBBI", 0, 8, 1, 100) + bytes(20))),
        ("mnist", "train-images-idx3-ubyte.gz", gzip.compress(struct.pack(">HBBII", 0, 8, 2, 2**31, 2**31))),
        ("mnist", "train-labels-idx1-ubyte.gz", gzip.compress(b"\x00\x00\x0d\x01")),
        ("mnist", "train-labels-idx1-ubyte.gz", gzip.compress(bytes(100))[:-9]),
        ("binarized_mnist", "binarized_mnist_test.amat", b"0 1 " * 100),
        ("binarized_mnist", "binarized_mnist_test.amat", b"0 2 " * 392),
        ("cifar10", "cifar-10-binary.tar.gz", gzip.compress(b"not a tar")),
        ("celeb_a", "img_align_celeba.zip", archive({"img_align_celeba/other.jpg": b""})),
    ],
)
def test_files_of_another_content_are_refused_and_nothing_is_written(tmp_path, name, file, content):
    table = write(tmp_path / "raw", FILES[name]()[0] | {file: content})
    with pytest.raises(UserError, match="could not be parsed"):
        prepare(name, tmp_path / "data", tmp_path / "raw", table)
    assert not list(tmp_path.glob("data/*"))


def test_every_name_has_a_parser_and_pinned_files():
    assert set(PARSERS) == set(CATALOG)
    for name, entry in CATALOG.items():
        for resource in resources(name, entry.files):
            assert len(resource.sha256) == 64
            assert resource.size > 1000
            assert resource.url.startswith("http")


# Downloads


@pytest.fixture
def server():
    """Serves each path's bytes; returns (contents, url of a path)."""
    contents = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body, declared = contents.get(self.path, (404, b"", 0))
            self.send_response(status)
            self.send_header("Content-Length", str(declared))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield contents, lambda path: f"http://127.0.0.1:{running.server_port}{path}"
        running.shutdown()


def test_a_good_file_is_downloaded_once(server, tmp_path):
    contents, url = server
    contents["/a"] = (200, CONTENT, len(CONTENT))
    resource = resource_of(CONTENT, "a.gz", url("/a"))
    assert ensure(resource, tmp_path, "").read_bytes() == CONTENT
    contents.clear()
    assert ensure(resource, tmp_path, "") == tmp_path / "a.gz"


PAGE = b"<!DOCTYPE html><title>Quota exceeded</title>"
FLIPPED = CONTENT[:50] + bytes([CONTENT[50] ^ 1]) + CONTENT[51:]
FAULTS = {
    "not found": ((404, b"", 0), "was not downloaded .HTTP Error 404"),
    "web page": ((200, PAGE, len(PAGE)), "is a web page"),
    "flipped bit": ((200, FLIPPED, len(FLIPPED)), "has sha256"),
    "other format": ((200, b"PK" + CONTENT[2:], len(CONTENT)), "starts with b'PK"),
    "too long": ((200, CONTENT + b"more", len(CONTENT) + 4), "bytes, wanted"),
    "too short": ((200, CONTENT[:-9], len(CONTENT) - 9), "bytes, wanted"),
    "cut off": ((200, CONTENT[:-9], len(CONTENT)), "bytes, wanted|IncompleteRead"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_bad_download_is_one_line_and_leaves_nothing(server, tmp_path, fault):
    contents, url = server
    contents["/a"], message = FAULTS[fault]
    with pytest.raises(UserError, match=message) as error:
        ensure(resource_of(CONTENT, "a.gz", url("/a")), tmp_path, "the remedy")
    assert url("/a") in str(error.value)
    assert str(error.value).endswith("the remedy")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_without_a_connection_the_remedy_names_file_and_command(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as error:
        prepare("mnist", tmp_path, None, [resource_of(CONTENT, "a.gz", "http://127.0.0.1:1/a")])
    assert f"{tmp_path}/downloads/mnist/a.gz" in str(error.value)
    assert "python scripts/prepare_data.py mnist" in str(error.value)
    with pytest.raises(UserError, match="Not a directory"):
        prepare("mnist", tmp_path, tmp_path / "file" / "raw", [resource_of(CONTENT, "a.gz")])


def test_a_wrong_file_of_the_user_is_named_and_kept(tmp_path):
    (tmp_path / "a.gz").write_bytes(FLIPPED)
    with pytest.raises(UserError, match="a.gz has sha256 .*delete it and the remedy"):
        ensure(resource_of(CONTENT, "a.gz"), tmp_path, "the remedy")
    assert (tmp_path / "a.gz").read_bytes() == FLIPPED


def test_the_script_refuses_an_unknown_name_in_one_line(tmp_path):
    command = [sys.executable, "scripts/prepare_data.py", "mnst", f"--data_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": "."}, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no recipe for 'mnst'; there are mnist, ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
