"""The command line: what is wrong is told in a line that names the field and the remedy, before anything is done."""

import importlib.machinery
import pathlib
import random
import re
import resource
import string
import subprocess
import sys
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import common
from genflow import cli, schema
from genflow.errors import UserError

VAE = "--config=configs/vae_digits.py"
RULES = (("kernel", ("", "model")),)


def parse(*words):
    return cli.parse(["main.py", *words])


def refusal(*words) -> str:
    with pytest.raises(UserError) as caught:
        parse(*words)
    text = str(caught.value)
    assert len(text.splitlines()) <= 3
    assert len(text) < 500
    return text


def outcome(*words):
    try:
        return parse(*words), ""
    except UserError as error:
        return None, str(error)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


KEYS = {
    "--config.train.num_stpes=3": "--config.train.num_stpes: no such field; did you mean --config.train.num_steps?",
    "--config.model.dept=3": "--config.model.dept: no such field; did you mean --config.model.depth?",
    "--config.modle.depth=3": "--config.modle.depth: no such field; did you mean --config.model.depth?",
    "--config.learning_rate=3": "--config.learning_rate: no such field; did you mean --config.optimizer.learning_rate?",
    "--config.lr=3": "--config.lr: no such field; did you mean --config.optimizer.learning_rate?",
    "--config.train.optimizer.seed=3": "did you mean --config.seed?",
    "--config.model.colour=red": "--config.model.colour: no such field; config.model has conditional, coupling, depth,",
    "--config.zzz=3": "--config.zzz: no such field; see --help",
    "--config.=3": "--config.: no such field",
    "--config.seed.x=3": "--config.seed.x: no such field",
    "--config.train=3": "--config.train: no such field; it is a section, set --config.train.",
    "--config.optimizer.groups=3": "it is filled in the experiment's file",
    "--config.name=x": "--config.name comes from the experiment's file; --workdir=DIR names a run",
    "--config.paper=x": "--config.paper comes from the experiment's file",
    "--config.seed": "--config.seed needs a value: --config.seed=VALUE",
    "--config.a\nb\nc\nd=3": "--config.a b c d: no such field",
    "--config.\x1b[31mseed=3": "--config.?[31mseed: no such field",
}
VALUES = {
    "--config.train.num_steps=abc": "--config.train.num_steps=abc: expected an integer such as ",
    "--config.train.num_steps=1.5": "expected an integer",
    "--config.train.num_steps=1e4": "expected an integer",
    "--config.train.num_steps=": "expected an integer",
    "--config.train.num_steps=1\n2\n3\n4": "--config.train.num_steps=1 2 3 4: expected an integer",
    "--config.train.num_steps=" + 999 * "1x": "...: expected an integer",
    "--config.optimizer.learning_rate=fast": "--config.optimizer.learning_rate=fast: expected a number such as 0.",
    "--config.eval.baselines=maybe": "--config.eval.baselines=maybe: expected true or false",
    "--config.optimizer.learning_rate=nan": "--config.optimizer.learning_rate=nan: must be finite",
    "--config.optimizer.learning_rate=inf": "must be finite",
    "--config.optimizer.clip_norm=-inf": "must be finite",
    "--config.optimizer.clip_norm=1e999": "must be finite",
    "--config.optimizer.clip_norm=-1": "--config.optimizer.clip_norm=-1.0: must not be negative",
    "--config.seed=-1": "--config.seed=-1: must not be negative",
    "--config.model.width=-3": "--config.model.width=-3: must not be negative",
    "--config.seed=4294967296": "--config.seed=4294967296: must be at most 2147483647",
    "--config.data.batch_size=0": "--config.data.batch_size=0: must be above zero",
    "--config.optimizer.learning_rate=0": "--config.optimizer.learning_rate=0.0: must be above zero",
    "--config.optimizer.b2=1.5": "--config.optimizer.b2=1.5: must be below one",
    "--config.eval.num_repeats=0": "--config.eval.num_repeats=0: must be above zero",
    "--config.optimizer.schedule=cosin": "expected one of constant, cosine, linear; did you mean cosine?",
    "--config.data.augment=none,flip": "--config.data.augment=none,flip: expected one of none, flip, shift, shift_flip",
    "--config.model.memory=": "--config.model.memory=: expected one of store, remat, invert",
    "--config.optimizer.decay_pattern=(": "--config.optimizer.decay_pattern=(: not a regular expression",
}
TUPLES = {
    "--config.sample.temperatures=1": "expected a tuple such as (0.0, 0.5, 0.7, 0.85, 1.0)",
    "--config.sample.temperatures=1,a": "expected a tuple",
    "--config.sample.temperatures=1,'a'": "expected a tuple",
    "--config.sample.temperatures=1,True": "expected a tuple",
    "--config.sample.temperatures=1,-1": "--config.sample.temperatures=(1.0, -1.0): must not be negative",
    "--config.sample.temperatures=1,1e999": "must be finite",
    "--config.sample.temperatures={1,2}": "expected a tuple",
    "--config.sample.temperatures=__import__('os')": "expected a tuple",
    "--config.sample.temperatures=" + 4000 * "(": "...: expected a tuple",
    "--config.sample.temperatures=" + 4000 * "-" + "1": "...: expected a tuple",
    "--config.sample.temperatures=" + 99999 * "-" + "1": "...: expected a tuple",
    "--config.sample.temperatures= ": "--config.sample.temperatures=: expected a tuple",
    "--config.data.crop=1,2": "--config.data.crop=1,2: expected a tuple such as (40, 15, 148, 148)",
    "--config.data.crop=1,2,3,4,5": "expected a tuple",
    "--config.data.crop=1,2,3,4.5": "expected a tuple",
    "--config.data.crop=1,2,3,'a'": "expected a tuple",
    "--config.data.crop=7": "expected a tuple",
    "--config.sharding.rules=(('a', 'b'),)": f"expected a tuple such as {RULES}",
    "--config.sharding.rules=('a', ('b',))": "expected a tuple",
    "--config.sharding.rules=(('a', (1,)),)": "expected a tuple",
    "--config.sharding.rules=(('a(', ('',)),)": "not a regular expression",
    "--config.sharding.rules=(('a', ('modle',)),)": "no mesh axis 'modle'; the axes are data, model",
    "--config.sharding.rules=(('a', ('', 'largest')),)": "no mesh axis 'largest'; the axes are data, model, or",
    "--config.sharding.rules=(('a', ('model', 'model')),)": "the mesh axis 'model' is named twice",
}
FLAGS = {
    "--confg.lr=3": "unknown flag --confg.lr; did you mean --config.optimizer.learning_rate?",
    "--confg.train.num_step=3": "unknown flag --confg.train.num_step; did you mean --config.train.num_steps?",
    "--confg.model.width=3": "unknown flag --confg.model.width; did you mean --config.model.width?",
    "--cnofig.q=3": "unknown flag --cnofig.q; did you mean --config.SECTION.KEY?",
    "--optimizer.b1=3": "unknown flag --optimizer.b1; did you mean --config.optimizer.b1?",
    "--num_steps=3": "unknown flag --num_steps; did you mean --config.train.num_steps?",
    "--workdr=x": "unknown flag --workdr; did you mean --workdir?",
    "--zzz": "unknown flag --zzz; see --help",
    "--workdir": "workdir",
    "--mode=evl": "flag --mode=evl: value should be one of <train|eval|sample>",
    "--list_configs=maybe": "--list_configs=maybe",
    "config.lr=3": "stray argument 'config.lr=3'; flags start with --",
    "train": "stray argument 'train'",
    "--seed=3": "--seed is for --mode=eval and sample; for training set --config.seed",
    "--num=3": "for training set --config.sample.num",
    "--temperature=0": "for training set --config.sample.temperatures",
    "--label=3": "--label is for --mode=sample; train with --config.model.conditional=True first",
    "--top_k=3": "--top_k is for --mode=sample",
    "--guidance=3": "--guidance is for --mode=sample",
    "--given=2": "--given=2",
    "--coordinator=there": "--num_processes=N",
    "--coordinator=auto": "--coordinator needs --workdir=DIR, a folder that all hosts see",
    "--num_processes=2": "--num_processes needs --coordinator=HOST:PORT",
    "--process_id=0": "--process_id needs --coordinator=HOST:PORT",
    "--heartbeat=60": "--heartbeat needs --coordinator=HOST:PORT",
    "--heartbeat=1": "--heartbeat=1",
    "--config=configs/glow_digit.py": "--config=configs/glow_digit.py: no such file; did you mean configs/glow_digits",
    "--config=glow_digits": "did you mean configs/glow_digits.py",
    "--config=configs/glow_digits:debug": "did you mean configs/glow_digits.py",
    "--config=configs": "--config=configs: no such file",
    "--config=": "--config=: no such file",
    "--config=~nobody_here/x.py": "--config=~nobody_here/x.py: no such file",
    "--config=" + 5000 * "x": "...: no such file",
    "--config=configs/common.py": "common.py: no function get_config(arg)",
    "--config=configs/glow_digits.py:debgu": "unknown config argument 'debgu'; write FILE.py or FILE.py:debug",
}


@pytest.mark.parametrize(("word", "message"), (KEYS | VALUES | TUPLES | FLAGS).items(), ids=lambda w: w[:40])
def test_refused_word(word, message, empty_folder):
    assert message in refusal(word)
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    {
        ("--mode=eval",): "--mode=eval needs --workdir=RUN",
        ("--coordinator=auto", "--mode=eval", "--workdir=x"): "--coordinator is for --mode=train",
        ("--coordinator=h:65536", "--process_id=1", "--num_processes=2", "--workdir=x"): "expected HOST:PORT",
        ("--coordinator=auto", "--process_id=1"): "--process_id: --coordinator=auto finds it out",
        ("--coordinator=h:1", "--process_id=1"): "--coordinator=h:1 needs --num_processes=N and --process_id=I",
        ("--coordinator=h", "--process_id=1", "--num_processes=2", "--workdir=x"): "expected HOST:PORT of process 0",
        ("--coordinator=h:1", "--process_id=2", "--num_processes=2", "--workdir=x"): (
            "--process_id=2 must be below --num_processes=2"
        ),
        ("--mode=sample", "--workdir=runs/x"): "--workdir=runs/x: no run there (no config.json); --mode=train",
        ("--mode=eval", "--workdir=x", VAE): "--mode=eval reads the configuration from --workdir; leave --config out",
        ("--mode=sample", "--workdir=x", "--config.seed=1"): "leave --config out",
        ("--mode=sample", "--workdir=x", "--num=0"): "flag --num=0: 0 is not an integer in the range [1,",
        ("--mode=eval", "--workdir=x", "--given=0.5"): "--given is for --mode=sample",
        ("--mode=sample", "--workdir=x", "--top_p=0"): "flag --top_p=0: must be above zero",
        (
            "--mode=sample",
            "--workdir=x",
            "--sampler=huen",
        ): "flag --sampler=huen: expected one of ancestral, ",
        ("--mode=sample", "--workdir=x", "--sampler=dim"): "reverse_sde; did you mean ddim?",
        ("--mode=sample", "--workdir=x", "--sampler="): "flag --sampler=: expected one of",
        ("--mode=sample", "--workdir=x", "--spacing=karas"): "log_snr, karras; did you mean karras?",
        (
            "--mode=sample",
            "--workdir=x",
            "--sampler_steps=1",
        ): "flag --sampler_steps=1: 1 is not an integer",
        ("--mode=sample", "--workdir=x", "--guidance=nan"): "flag --guidance=nan: must be finite",
        ("--mode=sample", "--workdir=x", "--guidance=-2"): "flag --guidance=-2",
        ("--mode=eval", "--workdir=x", "--wandb=offline"): "--wandb is for --mode=train",
        ("--mode=sample", "--workdir=x", "--wandb=off"): "--wandb is for --mode=train",
        ("--wandb=on",): "flag --wandb=on: value should be one of <off|offline|online>",
        ("--mode=sample", "--workdir=x", "--resample=0"): "flag --resample=0: 0 is not an integer in the range [1,",
        ("--mode=eval", "--workdir=x", "--sampler=heun"): "--sampler is for --mode=sample",
        ("--mode=sample", "--workdir=x", "--seed=-1"): "flag --seed=-1: -1 is not an integer in the range [0,",
        ("--mode=sample", "--workdir=x", "--temperature=-1"): "flag --temperature=-1",
        ("--mode=sample", "--workdir=x", "--temperature=nan"): "flag --temperature=nan: must be finite",
        ("--mode=sample", "--workdir=x", "--temperature=1,hot"): "flag --temperature=1,hot: expected a number, or one",
        ("--mode=sample", "--workdir=x", "--temperature="): "flag --temperature=: expected a number, or one",
        ("--mode=sample", "--workdir=x", "--temperature=inf"): "flag --temperature=inf: must be finite",
        ("--config.eval.baselines", "--mode=eval"): "--config.eval.baselines needs a value",
        ("--config.seed=x", "--config.seed=y"): "--config.seed=y: expected an integer",
    }.items(),
    ids=str,
)
def test_refused_words(words, message, empty_folder):
    assert message in refusal(*words)
    assert list(empty_folder.iterdir()) == []


def test_near_run_folder(empty_folder):
    (empty_folder / "runs" / "glow_digits").mkdir(parents=True)
    (empty_folder / "runs" / "glow_digits" / "config.json").write_text("{}")
    assert "did you mean runs/glow_digits?" in refusal("--mode=eval", "--workdir=runs/glow_digit")
    assert parse("--mode=eval", "--workdir=runs/glow_digits") is None


BASE = "from configs import common\n"
FILES = {
    "": "no function get_config(arg) that returns a ConfigDict",
    "def get_config(arg=''):\n    return {'seed': 1}\n": "no function get_config(arg) that returns a ConfigDict",
    "x = 1\nraise RuntimeError('no luck')\n": "experiment.py, line 2: RuntimeError: no luck",
    "x = 1\n\nx = = 2\n": "experiment.py, line 3: SyntaxError: invalid syntax",
    "import sys\nsys.exit('bye')\n": "experiment.py, line 2: SystemExit: bye",
    "import not_a_module_of_ours\n": "experiment.py, line 1: ModuleNotFoundError",
    "raise ValueError('1\\n2\\n3\\n4')\n": "experiment.py, line 1: ValueError: 1 2 3 4",
    "def get_config(arg=''):\n    return {}['model']\n": "experiment.py, line 2: KeyError: 'model'",
    "def f():\n    1 / 0\ndef get_config(arg=''):\n    f()\n": "experiment.py, line 2: ZeroDivisionError",
    "def get_config():\n    return 1\n": "experiment.py: TypeError: get_config() takes 0 positional arguments",
    BASE + "def get_config(arg=''):\n    common.debug(None)\n": "experiment.py, line 3: AttributeError",
    BASE + "def get_config(arg=''):\n    return common.ConfigDict()\n": "is missing; get_config starts from",
}
BODIES = {
    "c.train.num_stpes = 3": "config.train.num_stpes: no such field; did you mean config.train.num_steps?",
    "c.data.crop = (1, 2)": "--config.data.crop=(1, 2): expected a tuple such as (40, 15, 148, 148)",
    "c.data.batch_size = 1.5": "line 4: TypeError",
    "c.data.batch_size = '128'": "line 4: TypeError",
    "c.data.batch_size = True": "config.data.batch_size=True: expected an integer, not bool",
    "c.data.batch_size = None": "config.data.batch_size=None: expected an integer, not NoneType",
    "c.data.batch_size = 0": "--config.data.batch_size=0: must be above zero",
    "c.train = common.ConfigDict()": "config.train.ema_decay is missing; get_config starts from configs.common.base()",
    "c.sample.temperatures = ('hot',)": "--config.sample.temperatures=('hot',): expected a tuple such as (0.0, 0.5,",
    "c.model.width = None": "config.model.width=None: expected true or false, an integer, a number, text, a tuple; not",
    "c.model.widths = [8]": "config.model.widths=[8]: expected true or false",
    "c.model.scale = float('nan')": "--config.model.scale=nan: must be finite",
    "c.optimizer.groups.critic = dict(b3=0.5)": "config.optimizer.groups.critic.b3: no such field; did you mean",
    "c.optimizer.groups.critic = dict(b1='x')": "config.optimizer.groups.critic.b1='x': expected a number, not str",
    "c.optimizer.groups.critic = dict(name='adm')": "--config.optimizer.groups.critic.name=adm: expected one of adam",
    "c.optimizer.groups.critic = dict(learning_rate=0.0)": "learning_rate=0.0: must be above zero",
    "c.optimizer.groups.critic = 3": "config.optimizer.groups.critic: no such field",
}


def experiment(folder: pathlib.Path, body: str) -> pathlib.Path:
    path = folder / "experiment.py"
    path.write_text(BASE + f"def get_config(arg=''):\n    c = common.base()\n    {body}\n    return c\n")
    return path


@pytest.mark.parametrize(("text", "message"), FILES.items(), ids=range(len(FILES)))
def test_refused_file(text, message, empty_folder):
    (empty_folder / "experiment.py").write_text(text)
    assert message in refusal("--config=experiment.py")
    assert [p.name for p in empty_folder.iterdir()] == ["experiment.py"]


@pytest.mark.parametrize(("body", "message"), BODIES.items(), ids=BODIES)
def test_refused_assignment(body, message, empty_folder):
    experiment(empty_folder, body)
    assert message in refusal("--config=experiment.py")


ACCEPTED = {
    ("--config.train.num_steps=50",): ("train.num_steps", 50),
    ("--config.train.num_steps=1_000",): ("train.num_steps", 1000),
    ("--config.train.num_steps", "50"): ("train.num_steps", 50),
    ("-config.train.num_steps=50",): ("train.num_steps", 50),
    ("--config.seed=1", "--config.seed=2"): ("seed", 2),
    ("--config.sharding.data=-1",): ("sharding.data", -1),
    ("--config.sharding.data", "-1"): ("sharding.data", -1),
    ("--config.optimizer.learning_rate=3e-4",): ("optimizer.learning_rate", 3e-4),
    ("--config.optimizer.learning_rate=1",): ("optimizer.learning_rate", 1.0),
    ("--config.eval.baselines=FALSE",): ("eval.baselines", False),
    ("--config.eval.baselines=1",): ("eval.baselines", True),
    ("--config.data.name=array:a=b, c.npz",): ("data.name", "array:a=b, c.npz"),
    ("--config.data.data_dir=",): ("data.data_dir", ""),
    ("--config.data.data_dir=3",): ("data.data_dir", "3"),
    ("--config.optimizer.schedule=linear",): ("optimizer.schedule", "linear"),
    ("--config.sample.temperatures=0,1",): ("sample.temperatures", (0.0, 1.0)),
    ("--config.sample.temperatures=[0.5]",): ("sample.temperatures", (0.5,)),
    ("--config.sample.temperatures=0.5,",): ("sample.temperatures", (0.5,)),
    ("--config.sample.temperatures=",): ("sample.temperatures", ()),
    ("--config.data.crop= 1,2,3,4",): ("data.crop", (1, 2, 3, 4)),
    ("--config.data.crop=()",): ("data.crop", ()),
    (f"--config.sharding.rules={RULES}",): ("sharding.rules", RULES),
    ("--config.sharding.rules=[['kernel', ['', 'model']]]",): ("sharding.rules", RULES),
    (VAE, "--config.model.widths=64,32"): ("model.widths", (64, 32)),
    (VAE, "--config.model.min_log_scale=-3"): ("model.min_log_scale", -3.0),
    (VAE,): ("name", "vae_digits"),
    (VAE + ":debug",): ("name", "vae_digits-debug"),
}


@pytest.mark.parametrize(("words", "expected"), ACCEPTED.items(), ids=str)
def test_accepted(words, expected):
    field, value = expected
    found = dict(schema.fields(parse(*words)))[field]
    assert found == value
    assert repr(found) == repr(value)


def test_config_is_locked():
    with pytest.raises(AttributeError):
        parse().train.num_stpes = 3


def test_override_reaches_groups_and_derived_values(empty_folder):
    path = experiment(empty_folder, "c.optimizer.warmup_steps = c.train.get_ref('num_steps') // 10")
    overrides = {"train.num_steps": "50"}
    assert cli.load_config(str(path), overrides).optimizer.warmup_steps == 5
    assert cli.load_config(str(path), overrides | {"optimizer.warmup_steps": "7"}).optimizer.warmup_steps == 7
    path = experiment(empty_folder, "c.optimizer.groups.critic = dict(learning_rate=1e-4)")
    config = cli.load_config(str(path), {"optimizer.groups.critic.learning_rate": "2e-4"})
    assert config.optimizer.groups.critic.learning_rate == 2e-4


def test_empty_tuple_argument_of_a_model(empty_folder):
    path = str(experiment(empty_folder, "c.model.widths = ()"))
    assert cli.load_config(path, {"model.widths": "64, [1.5, 'x']"}).model.widths == (64, (1.5, "x"))
    for text in ("64, {1}", "64, (1, None)"):
        with pytest.raises(UserError, match="expected a tuple"):
            cli.load_config(path, {"model.widths": text})


def test_home_folder(empty_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(empty_folder))
    experiment(empty_folder, "c.seed = 5")
    assert parse("--config=~/experiment.py").seed == 5


def test_docstring_fills_name_paper_and_expectation(empty_folder):
    path = empty_folder / "mine.py"
    doc = '"""Title.\n\nPaper: A (2020),\n  table 1\nExpect: 1\n\nMore."""\n'
    path.write_text(f"{doc}{BASE}get_config = lambda arg: common.base()\n")
    config = parse("--config=mine.py:big")
    assert (config.name, config.paper, config.expect) == ("mine-big", "A (2020), table 1", "1")


def test_parsing_again_starts_from_the_defaults(empty_folder):
    (empty_folder / "config.json").write_text("{}")
    assert parse("--mode=sample", "--workdir=.", "--num=3", "--temperature=0.5", "--seed=4") is None
    assert (cli.FLAGS.mode, cli.FLAGS.num, cli.temperature(), cli.FLAGS.seed) == ("sample", 3, 0.5, 4)
    refusal("--mode=sample", "--zzz")
    assert parse(VAE).model.name == "vae"
    assert parse().name == "glow_digits"
    assert (cli.FLAGS.mode, cli.FLAGS.num, cli.FLAGS.workdir) == ("train", 64, "")
    assert parse("--list_configs", "--mode=eval") is None


# Properties over every key and value

FIELDS = {
    name: {f: v for f, v in schema.fields(cli.load_config(name)) if f not in schema.FILLED}
    for name in ("configs/glow_digits.py", "configs/vae_digits.py")
}
PAIRS = st.sampled_from([(name, field) for name, known in FIELDS.items() for field in known])
EDITS = {
    "delete": lambda s, i, c: s[:i] + s[i + 1 :],
    "insert": lambda s, i, c: s[:i] + c + s[i:],
    "replace": lambda s, i, c: s[:i] + c + s[i + 1 :],
    "swap": lambda s, i, c: s[:i] + s[i + 1 : i + 2] + s[i] + s[i + 2 :],
}
LETTERS = string.ascii_lowercase + string.digits + "_."


def test_mutated_keys_are_guessed():
    rng, right, total = random.Random(0), 0, 0
    for name, known in FIELDS.items():
        for field in known:
            for edit in EDITS.values():
                mutated = edit(field, rng.randrange(len(field)), rng.choice(LETTERS))
                if mutated not in known:
                    right += f"did you mean --config.{field}?" in refusal(f"--config={name}", f"--config.{mutated}=1")
                    total += 1
    assert total > 350
    assert right / total > 0.93


@settings(max_examples=150, deadline=None, derandomize=True)
@given(PAIRS, st.sampled_from(list(EDITS.values())), st.integers(0, 99), st.characters(exclude_characters="="))
def test_mutated_key_is_named(pair, edit, at, letter):
    name, field = pair
    mutated = edit(field, at % len(field), letter)
    if mutated not in FIELDS[name]:
        assert refusal(f"--config={name}", f"--config.{mutated}=1").startswith(f"--config.{schema.shown(mutated)}")


VALUE = st.one_of(
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.lists(st.integers() | st.floats() | st.booleans() | st.text(max_size=3) | st.none(), max_size=5).map(repr),
    st.text("0123456789.,-+eE_'\"()[]{}: naifx\n", max_size=20),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(PAIRS, VALUE)
def test_any_value_is_refused_by_name_or_has_the_type_of_the_field(pair, text):
    name, field = pair
    config, message = outcome(f"--config={name}", f"--config.{field}={text}")
    if config is None:
        assert message.startswith(f"--config.{field}=")
        assert len(message.splitlines()) == 1
        return
    value, before = dict(schema.fields(config))[field], FIELDS[name][field]
    assert type(value) is type(before)
    if isinstance(before, tuple) and before:
        assert {type(v) for v in value} <= {type(v) for v in before}
    assert field not in common.CHOICES or value in common.CHOICES[field]
    assert not re.search(r"\b(nan|inf)\b", repr(value)) or isinstance(value, str)
    assert field not in common.POSITIVE or value > 0


def test_weights_and_biases_is_off_unless_asked_for_and_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    parse(VAE)
    parse("--wandb=off")
    assert "--wandb=offline needs the package wandb: pip install -e '.[log]'" in refusal("--wandb=offline")
    spec = importlib.machinery.ModuleSpec("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(__spec__=spec))
    parse("--wandb=offline")


# What a person reads


def test_help_has_every_flag_and_key_with_its_comment():
    text = cli.help_text()
    for name in cli.OURS:
        assert f"--{name} " in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ") and "  " in line.strip()}
    source = (cli.ROOT / "configs" / "common.py").read_text()
    keys = [field for field, _ in schema.fields(common.base())]
    assert len(keys) > 45
    for key in keys:
        comment = re.search(rf"^    c\.{re.escape(key)} =[^#]*# (.*)", source, re.MULTILINE)
        assert comment, f"{key} has no comment in configs/common.py"
        assert lines[key].endswith(f"  {comment.group(1)}")


def test_list_of_configs():
    table = cli.list_configs().splitlines()
    assert table[0].split() == ["config", "model", "data", "paper", "expected"]
    assert [row.split()[0] for row in table[1:]] == [path.name for path in cli.config_files()]
    for row, path in zip(table[1:], cli.config_files(), strict=True):
        config = cli.load_config(str(path))
        assert re.split(r"\s\s+", row) == [path.name, config.model.name, config.data.name, config.paper, config.expect]


# The real program, with a JAX that must not be imported


def run_main(folder, *words):
    trap = folder.parent / "trap"
    trap.mkdir(exist_ok=True)
    (trap / "jax.py").write_text("raise SystemExit('JAX was imported')")
    command = [sys.executable, str(cli.ROOT / "main.py"), *words]
    before = child_seconds()
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(trap)}, capture_output=True, text=True)
    assert child_seconds() - before < 2.0
    return done


def child_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    ("words", "message"),
    {
        ("--config.train.num_stpes=3",): "did you mean --config.train.num_steps?",
        ("stray",): "error: stray argument 'stray'",
        ("--mode=eval", "--workdir=nowhere"): "error: --workdir=nowhere: no run there",
    }.items(),
    ids=str,
)
def test_program_refuses(words, message, empty_folder):
    done = run_main(empty_folder, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    assert list(empty_folder.iterdir()) == []


def test_program_names_the_line_of_a_broken_file(empty_folder):
    (empty_folder / "mine.py").write_text("\n1 / 0\n")
    done = run_main(empty_folder, "--config=mine.py")
    assert (done.returncode, done.stderr) == (2, "error: mine.py, line 2: ZeroDivisionError: division by zero\n")
    assert [p.name for p in empty_folder.iterdir()] == ["mine.py"]


@pytest.mark.parametrize("word", ["--help", "--list_configs"])
def test_program_answers_without_jax(word, empty_folder):
    done = run_main(empty_folder, word)
    assert (done.returncode, done.stderr) == (0, "")
    assert "glow_digits" in done.stdout
    assert list(empty_folder.iterdir()) == []
