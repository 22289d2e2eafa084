"""The rules of the house that can be read off the source: who imports whom, what is never written, what is short.

Every rule is a function from (module name, source) to the list of its violations; the table BROKEN shows each of them
a source that breaks it.
"""

import ast
import pathlib
import re
import statistics
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Imports go down this list only: a room may use the rooms of earlier lines, and itself.
LAYERS = (
    ("core", "errors", "hlo", "rules"),
    (
        "collectives",
        "distributions",
        "failpoints",
        "networks",
        "ode",
        "provenance",
        "rows",
        "schema",
        "supervisor",
        "targets",
        "workdir",
    ),
    ("bijectors", "dequantize", "goodput", "hosts", "leaves"),
    ("diffusion",),
    ("samplers",),
    ("models",),
    ("checkpoint", "data", "evaluate", "metrics", "optimizers", "report"),
    ("sharding",),
    ("step",),
    ("experiment",),
    ("analysis", "trained"),
    ("pictures",),
    ("summary",),
    ("bounds", "detect", "estimate", "quality", "train", "use"),
    ("classify", "cli", "ledger_tables"),
    ("benchmark", "ledger"),
    ("plan", "sweep"),
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
CONFIGURED = ("cli", "experiment", "ledger", "schema", "sweep", "train", "workdir")
# Package -> the only modules that may import it; modules are named by prefix.
OWNERS = {
    "blackjax": ("genflow.analysis.evidence", "genflow.analysis.posterior"),
    "diffrax": ("genflow.ode",),
    "flax": ("genflow.networks",),
    "absl": ("main", "genflow.cli"),
    "ml_collections": ("configs", *(f"genflow.{module}" for module in CONFIGURED)),
    "tensorflow_datasets": ("genflow.data",),
    "orbax": ("genflow.checkpoint",),
    "tensorboardX": ("genflow.metrics",),
    "matplotlib": ("genflow.report",),
    "optax": ("genflow.diffusion.interpolants", "genflow.optimizers", "genflow.step", "scripts.peers"),
    "configs": ("main", "configs", "genflow.cli"),
    # Rivals of the benchmark, each in an environment of its own.
    **dict.fromkeys(("equinox", "flowjax", "nflows", "normflows", "torch", "zuko"), ("scripts.peers",)),
    **dict.fromkeys(("optuna", "ray", "submitit"), ("genflow.sweep",)),
    "wandb": ("genflow.metrics",),
    "pickle": ("genflow.analysis.torch_file",),  # a reader that refuses every name but those of tensors
    **dict.fromkeys(("tensorflow", "cloudpickle", "dill", "joblib", "shelve", "marshal", "yaml")),
}
NEVER = {
    "allow_pickle=True": r"allow_pickle\s*=\s*(?!False)",
    "pmap": r"\bpmap\b",
    "PRNGKey": r"\bPRNGKey\b",
    "jax._src": r"\bjax\._src\b",
    "bare except": r"\bexcept\s*:",
    "config.get(": r"\b(config|section)\.get\(",
    "os.system": r"\bos\.system\b",
    "shell=True": r"shell\s*=\s*True",
    "extractall": r"\.extractall\(",
    "eval": r"(?<![\w.])eval\(",
}
LOOPS = ("genflow.train._loop",)  # may reach 100 lines


def code(module, source):
    """The syntax tree, and the source without comments and strings."""
    return ast.parse(source, module), ast.unparse(Unquoted().visit(ast.parse(source)))


class Unquoted(ast.NodeTransformer):
    def visit_Constant(self, node):
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node):
        return ast.Constant("")


def imported(source):
    """Full names of what a source imports, anywhere in it; relative imports keep their dots."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room(name):
    return name.split(".")[1] if name.startswith("genflow.") else None


def arrows_back(module, source):
    here, found = room(module), []
    for name in imported(source):
        there = room(name)
        if name.startswith("."):
            found.append(f"{module}: relative import {name}")
        elif here and there and there != here and not RANK.get(there, 99) < RANK.get(here, -1):
            found.append(f"{module} imports {name}, which is not below it in LAYERS")
        elif here and name.split(".")[0] in ("main", "scripts", "tests"):
            found.append(f"{module} imports {name}")
    return found


def foreign_packages(module, source):
    packages = {name.split(".")[0] for name in imported(source)}
    return [
        f"{module} imports {package}; only {', '.join(OWNERS[package] or ['nobody'])} may"
        for package in sorted(packages & set(OWNERS))
        if not any(f"{module}.".startswith(f"{owner}.") for owner in OWNERS[package] or ())
    ]


def never_written(module, source):
    text = code(module, source)[1]
    return [f"{module}: {name}" for name, pattern in NEVER.items() if re.search(pattern, text)]


def nan_blind(module, source):
    """On a CPU, the maximum of 4,096 numbers or more passes over NaN: errors go to NumPy first."""
    text = code(module, source)[1]
    return [f"{module}: {m}" for m in re.findall(r"jnp\.max\(jnp\.abs|jnp\.abs\(.*\)\.max\(\)", text)]


def definitions(tree, prefix=""):
    """(dotted name, node, whether its class inherits) of the functions, classes and methods at the top of a tree."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield f"{prefix}{node.name}", node, bool(prefix) and bool(tree.bases)
        if isinstance(node, ast.ClassDef):
            yield from definitions(node, f"{prefix}{node.name}.")


def undocumented(module, source):
    return [
        f"{module}.{name} has no docstring"
        for name, node, is_override in definitions(ast.parse(source))
        if not re.search(r"(^|\.)_", name) and not is_override and not ast.get_docstring(node)
    ] + [f"{module} has no docstring"] * (not ast.get_docstring(ast.parse(source)))


def lengths(module, source):
    """Lines of code of every function, inner ones too, without docstring and blank lines."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            doc = node.body[0] if ast.get_docstring(node) else None
            skipped = set(range(doc.lineno, doc.end_lineno + 1)) if doc else set()
            own = [n for n in range(node.lineno, node.end_lineno + 1) if n not in skipped and lines[n - 1].strip()]
            yield f"{module}.{node.name}", len(own)


def too_long(module, source):
    found = [f"{name}: {n} lines" for name, n in lengths(module, source) if n > (100 if name in LOOPS else 60)]
    num_lines = len(source.splitlines())
    return found + [f"{module}: {num_lines} lines"] * (num_lines > (69 if module == "main" else 350))


def asserts(node, functions, seen=()):
    """Whether a function asserts something, itself or in a function of the same file that it calls."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assert):
            return True
        if isinstance(inner, ast.Call):
            called = ast.unparse(inner.func)
            if re.fullmatch(r"pytest\.(raises|warns|fail)|.*\bassert_\w+|(\w+\.)?(check|test)_\w+", called):
                return True
            if called in functions and called not in seen and asserts(functions[called], functions, (*seen, called)):
                return True
    return False


def without_assertion(module, source):
    functions = {n.name: n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)}
    tests = {name: node for name, node in functions.items() if name.startswith("test_")}
    return [f"{module}.{name} asserts nothing" for name, node in tests.items() if not asserts(node, functions)]


def modules(*folders):
    for folder in folders:
        paths = [ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).rglob("*.py"))
        for path in paths:
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path.read_text("utf-8")


LIBRARY = list(modules("genflow"))
PROGRAMS = list(modules("main.py", "configs", "scripts"))
TESTS = list(modules("tests"))
RULES = {
    arrows_back: LIBRARY,
    foreign_packages: LIBRARY + PROGRAMS,
    never_written: LIBRARY + PROGRAMS,
    undocumented: LIBRARY,
    nan_blind: LIBRARY + TESTS,
    too_long: LIBRARY + [(module, source) for module, source in PROGRAMS if not module.startswith("configs")],
    without_assertion: TESTS,
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule):
    assert [violation for module, source in RULES[rule] for violation in rule(module, source)] == []


def test_every_room_has_a_layer():
    assert {room(module) for module, _ in LIBRARY} - {None} <= set(RANK)
    assert len(LIBRARY) > 40


def test_functions_are_short_on_the_whole():
    counts = sorted(n for module, source in LIBRARY for _, n in lengths(module, source))
    assert statistics.median(counts) <= 8
    assert counts[len(counts) * 9 // 10] <= 25


def test_the_command_line_needs_no_jax(tmp_path):
    (tmp_path / "jax.py").write_text("raise SystemExit('JAX was imported')")
    names = "genflow, genflow.cli, genflow.errors, genflow.failpoints, genflow.schema, genflow.workdir"
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", f"import {names}"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def long(name, num_lines):
    return f"def {name}():\n" + "    x = 1\n\n" * (num_lines - 1)


IN_CLASS = "class A:\n    '''D.'''\n    def f(self): pass"
BROKEN = {
    arrows_back: {
        "genflow.core": ["from genflow import step", "def f():\n    import genflow.train\n", "from .errors import x"],
        "genflow.models.flow": ["from genflow.data.images import crop", "from genflow import errors, cli as c"],
        "genflow.sharding": ["from genflow.step import make_step"],
        "genflow.use": ["import main", "from tests import x"],
    },
    foreign_packages: {
        "genflow.models.flow": ["import flax.linen as nn", "from flax import linen", "import optax"],
        "genflow.networks_extra": ["import flax"],
        "genflow.data.raw": ["import pickle", "def f():\n    import torch.nn\n", "from tensorflow import io"],
        "genflow.step": ["from ml_collections import x", "from absl import logging", "from configs import common"],
        "configs.x": ["from tensorflow_datasets import load", "import dill"],
    },
    never_written: {
        "genflow.data": ["np.load(f, allow_pickle=True)", "np.load(f, allow_pickle = flag)", "z.extractall(path)"],
        "genflow.step": ["jax.pmap(f)", "from jax import pmap", "k = jax.random.PRNGKey(0)", "import jax._src.core"],
        "genflow.use": ["try:\n    f()\nexcept:\n    pass", "os.system('x')", "run(c, shell=True)", "eval(text)"],
        "genflow.train": ["config.get('x', 3)", "run.config.get('x')"],
    },
    nan_blind: {"tests.x": ["assert jnp.abs(a - b).max() < 1", "x = jnp.max(jnp.abs(a))"]},
    undocumented: {
        "genflow.x": ["'''D.'''\ndef f(): pass", "'''D.'''\nclass A: pass", "def _f(): pass", "# D\nx = 1"],
        "genflow.y": [f"'''D.'''\n{IN_CLASS}"],
    },
    too_long: {
        "genflow.x": [long("f", 61), "class A:\n    x = 1\n    " + long("f", 61).replace("    x", " " * 8 + "x")],
        "genflow.y": [351 * "x = 1\n", "def f():\n    def g():\n" + 61 * "        x = 1\n"],
        "genflow.train": [long("_loop", 101)],
        "main": [70 * "x = 1\n"],
    },
    without_assertion: {
        "tests.x": ["def test_a():\n    run()", "def helper(): pass\ndef test_a():\n    helper()"],
        "tests.y": ["class T:\n    def test_b(self): pass"],
    },
}
ALLOWED = {
    arrows_back: {
        "genflow.models.flow": ["from genflow import bijectors as bj\nfrom genflow.models.vae import vae\nimport jax"],
        "genflow.use": ["from genflow.summary import finish\nfrom genflow import workdir as folders"],
    },
    foreign_packages: {
        "genflow.networks.mlp": ["import flax.linen as nn"],
        "genflow.data.tfds": ["import tensorflow_datasets as tfds"],
        "main": ["from absl import app\nfrom configs import common"],
    },
    never_written: {
        "genflow.x": ["# jax.pmap(f), PRNGKey(0)\n'''shell=True, except: eval(x)'''", "f(f'{jax} pmap')", "a.eval(x)"],
        "genflow.y": ["np.load(f, allow_pickle=False)", "try:\n    f()\nexcept ValueError:\n    metadata.get('x')"],
    },
    nan_blind: {"tests.x": ["assert np.abs(a - b).max() < 1", "jnp.max(x)", "jnp.isfinite(x).all()"]},
    undocumented: {
        "genflow.x": ["'''D.'''\ndef f():\n    '''D.'''\n    def g(): pass", "'''D.'''\ndef _h(): pass"],
        "genflow.y": ["'''D.'''\n" + IN_CLASS.replace("A", "A(Module)"), "'''D.'''\n" + IN_CLASS.replace("f(", "_f(")],
    },
    too_long: {
        "genflow.x": [long("f", 60), long("f", 60).replace(":\n", ":\n    '''D\n\n\n    '''\n") + 200 * "\n"],
        "genflow.train": [long("_loop", 100)],
    },
    without_assertion: {
        "tests.x": ["def a(): b()\ndef b():\n    a()\n    assert 1\ndef test_a(): a()"],
        "tests.y": ["def test_b():\n    with pytest.raises(E): f()", "def test_c(): np.testing.assert_allclose(1, 1)"],
    },
}


def cases(table):
    return [
        (rule, module, source)
        for rule, by_module in table.items()
        for module, sources in by_module.items()
        for source in sources
    ]


@pytest.mark.parametrize(("rule", "module", "source"), cases(BROKEN))
def test_a_rule_sees_what_breaks_it(rule, module, source):
    assert rule(module, source) != []


@pytest.mark.parametrize(("rule", "module", "source"), cases(ALLOWED))
def test_a_rule_allows_what_it_should(rule, module, source):
    assert rule(module, source) == []


def test_every_forbidden_word_is_seen():
    sources = [s for by_module in BROKEN[never_written].values() for s in by_module]
    seen = {name for source in sources for name in never_written("m", source)}
    assert seen == {f"m: {name}" for name in NEVER}
