"""The command line: flags, configuration files and overrides, checked before JAX is imported."""

import difflib
import importlib.util
import math
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from absl import flags
from ml_collections import ConfigDict

from genflow.errors import UserError
from genflow.schema import LARGEST, check_fields, fields, nearest, override, shown, validate
from genflow.workdir import CONFIG_FILE

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEFAULT_CONFIG = "configs/glow_digits.py"
FLAGS = flags.FLAGS
flags.DEFINE_string("config", DEFAULT_CONFIG, "FILE.py or FILE.py:debug; --config.SECTION.KEY=VALUE overrides a value")
flags.DEFINE_enum("mode", "train", ("train", "eval", "sample"), "train a run, or score or sample one from its folder")
flags.DEFINE_string("workdir", "", "the run folder; training without it writes under runs/")
flags.DEFINE_integer(
    "num", 64, "sample, eval: how many samples; eval without it: as many as there are test examples", 1, LARGEST
)
flags.DEFINE_string("features", "", "eval: inception:FILE compares samples by FID, KID, IS; see docs/sample-metrics.md")
flags.DEFINE_bool("parzen", False, "eval: the Parzen window estimate of samples too")
flags.DEFINE_string(
    "temperature", "1.0", "sample: scale of the latent noise; 0.7,0.8,1 for a flow of 3 levels, the coarsest first"
)
flags.DEFINE_integer("label", None, "sample: the class, of a model with conditional=True; every class in turn without")
flags.DEFINE_string("prompt", "", "sample: how every sample begins, of an autoregressive model of text")
flags.DEFINE_float("given", 0.0, "sample: complete test examples of which this fraction is kept", 0.0, 1.0)
flags.DEFINE_integer("top_k", 0, "sample: draw from so many of the likeliest values only; 0: all", lower_bound=0)
flags.DEFINE_float("top_p", 1.0, "sample: draw from the likeliest values that reach this probability", 0.0, 1.0)
flags.DEFINE_string("sampler", "", "sample: of a diffusion model, such as heun; the run's own without")
flags.DEFINE_integer("sampler_steps", None, "sample: how many times a diffusion model's sampler visits", 2, LARGEST)
flags.DEFINE_float("guidance", None, "sample: w of (1 + w) conditional - w unconditional, of a diffusion model", -1.0)
flags.DEFINE_string("spacing", "", "sample: of a diffusion model's times: linear, quadratic, log_snr or karras")
flags.DEFINE_integer("resample", None, "sample --given: how often a diffusion model takes each step", 1, LARGEST)
flags.DEFINE_integer("seed", 0, "eval, sample: of the noise that this call draws", lower_bound=0, upper_bound=LARGEST)
flags.DEFINE_enum("wandb", "off", ("off", "offline", "online"), "train: Weights & Biases; see docs/watching.md")
flags.DEFINE_string("coordinator", "", "several hosts: HOST:PORT of process 0, or auto on Cloud TPU, SLURM, Open MPI 4")
flags.DEFINE_integer("num_processes", 1, "several hosts: how many, unless auto", lower_bound=1)
flags.DEFINE_integer("process_id", 0, "several hosts: which one this is, unless auto", lower_bound=0)
flags.DEFINE_integer("heartbeat", 30, "several hosts: s without a word of one after which the others end", 5, LARGEST)
flags.DEFINE_bool("list_configs", False, "print a table of the experiments and exit")
DIFFUSION = ("sampler", "sampler_steps", "guidance", "spacing", "resample")
OURS = (
    *("config", "mode", "workdir", "num", "temperature", "label", "prompt", "given", "top_k", "top_p", "seed"),
    *DIFFUSION,
    *("features", "parzen", "wandb"),
    *("coordinator", "num_processes", "process_id", "heartbeat", "list_configs"),
)
EVALUATION = ("features", "parzen")
SAMPLING = ("label", "prompt", "given", "top_k", "top_p", *DIFFUSION)
TRAINING = {"num": "sample.num", "temperature": "sample.temperatures", "seed": "seed"}  # what training reads instead


def parse(argv: Sequence[str]) -> ConfigDict | None:
    """Parses the command line into FLAGS; returns the configuration, or None where the run folder holds it.

    Raises:
      UserError: an unknown flag or field, a value of the wrong type or range, a stray word.
    """
    overrides, rest = split_overrides(argv)
    if stray := _parse_flags(rest):
        raise UserError(f"stray argument {shown(stray[0])!r}; flags start with --, as in --config.train.num_steps=1000")
    if FLAGS.list_configs:
        return None
    if FLAGS.mode == "train":
        if name := next((n for n in TRAINING if FLAGS[n].present), ""):
            raise UserError(f"--{name} is for --mode=eval and sample; for training set --config.{TRAINING[name]}")
        if name := next((n for n in EVALUATION if FLAGS[n].present), ""):
            hint = "; for training set --config.eval.parzen" * (name == "parzen")
            raise UserError(f"--{name} is for --mode=eval{hint}")
        if name := next((n for n in SAMPLING if FLAGS[n].present), ""):
            hint = "; train with --config.model.conditional=True first" * (name == "label")
            raise UserError(f"--{name} is for --mode=sample{hint}")
        _check_tracking()
        return load_config(FLAGS.config, overrides)
    if FLAGS["wandb"].present:
        raise UserError("--wandb is for --mode=train")
    _check_features()
    if overrides or FLAGS["config"].present:
        raise UserError(f"--mode={FLAGS.mode} reads the configuration from --workdir; leave --config out")
    if FLAGS.mode == "eval" and (name := next((n for n in SAMPLING if FLAGS[n].present), "")):
        raise UserError(f"--{name} is for --mode=sample")
    if FLAGS.top_p == 0:
        raise UserError("flag --top_p=0: must be above zero")
    _check_diffusion()
    _check_run_folder(FLAGS.mode, FLAGS.workdir)
    return None


def _check_tracking():
    if FLAGS.wandb != "off" and importlib.util.find_spec("wandb") is None:
        raise UserError(f"--wandb={FLAGS.wandb} needs the package wandb: pip install -e '.[log]'")


def _parse_flags(words):
    for name in OURS:
        FLAGS[name].unparse()  # a second call in one process starts from the defaults
    try:
        stray = FLAGS(words)[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"unknown flag --{shown(error.flagname)}; {_flag_hint(error.flagname)}") from error
    except flags.Error as error:
        raise UserError(shown(error, 200)) from error
    temperature()
    _check_hosts()
    return stray


def _check_hosts():
    """One of several processes knows where the first is and which one it is itself."""
    address, who = FLAGS.coordinator, [n for n in ("num_processes", "process_id") if FLAGS[n].present]
    if not address and (names := [*who, *(["heartbeat"] if FLAGS["heartbeat"].present else [])]):
        raise UserError(f"--{names[0]} needs --coordinator=HOST:PORT, the address of process 0, or auto")
    if address == "auto" and who:
        raise UserError(f"--{who[0]}: --coordinator=auto finds it out; leave it out or write --coordinator=HOST:PORT")
    if address and address != "auto" and len(who) < 2:
        raise UserError(f"--coordinator={shown(address)} needs --num_processes=N and --process_id=I of 0 .. N - 1")
    if address and FLAGS.mode != "train":
        raise UserError(f"--coordinator is for --mode=train: {FLAGS.mode} a run on one host")
    if address and not FLAGS.workdir:
        raise UserError("--coordinator needs --workdir=DIR, a folder that all hosts see")
    if (
        address
        and address != "auto"
        and not (re.fullmatch(r".+:\d{1,5}", address) and int(address.split(":")[-1]) < 2**16)
    ):
        raise UserError(f"flag --coordinator={shown(address)}: expected HOST:PORT of process 0, or auto")
    if FLAGS.process_id >= FLAGS.num_processes:
        raise UserError(
            f"--process_id={FLAGS.process_id} must be below --num_processes={FLAGS.num_processes}; the first one is 0"
        )


def temperature() -> float | tuple[float, ...]:
    """The flag's value: one number, or one for each latent level.

    Raises:
      UserError: not numbers, or not finite, or negative.
    """
    text = FLAGS.temperature
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise UserError(f"flag --temperature={shown(text)}: expected a number, or one for each level: 0.7,1") from error
    if not all(map(math.isfinite, values)):
        raise UserError(f"flag --temperature={shown(text)}: must be finite")
    if min(values) < 0:
        raise UserError(f"flag --temperature={shown(text)}: must not be negative")
    return values if len(values) > 1 else values[0]


def sampling() -> dict:
    """The flags of --mode=sample, as the arguments of `use.sample_run`."""
    return {name: FLAGS[name].value for name in ("num", "seed", *SAMPLING)} | {"temperature": temperature()}


def evaluation() -> dict:
    """The flags of --mode=eval, as the arguments of `use.evaluate_run`."""
    num = FLAGS.num if FLAGS["num"].present else 0
    return {"seed": FLAGS.seed, "num": num, "features": FLAGS.features, "parzen": FLAGS.parzen}


def _check_features():
    if FLAGS.mode == "sample" and (name := next((n for n in EVALUATION if FLAGS[n].present), "")):
        raise UserError(f"--{name} is for --mode=eval")
    kind, _, file = FLAGS.features.partition(":")
    if FLAGS.features and (kind != "inception" or not file):
        raise UserError(f"flag --features={shown(FLAGS.features)}: expected inception:FILE; see docs/sample-metrics.md")
    if file and not os.path.isfile(os.path.expanduser(file)):
        raise UserError(f"flag --features=inception:{shown(file)}: no such file; see docs/sample-metrics.md")


def _check_diffusion():
    for name in ("sampler", "spacing"):
        known, value = _common().CHOICES[f"model.{name}"], FLAGS[name].value
        if FLAGS[name].present and value not in known:
            near = difflib.get_close_matches(value, known, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"flag --{name}={shown(value)}: expected one of {', '.join(known)}{hint}")
    if FLAGS.guidance is not None and not math.isfinite(FLAGS.guidance):
        raise UserError(f"flag --guidance={FLAGS.guidance}: must be finite")


def _flag_hint(word):
    known = [field for field, _ in fields(_common().base())]
    first, _, rest = word.partition(".")
    is_config = rest and difflib.SequenceMatcher(None, first, "config").ratio() > 0.7  # --confg.SECTION.KEY
    path = rest if is_config else word
    if field := path if path.startswith("model.") else nearest(path, known):
        return f"did you mean --config.{field}?"
    flag = difflib.get_close_matches(word, OURS, 1, 0.7)
    return "did you mean --config.SECTION.KEY?" if is_config else f"did you mean --{flag[0]}?" if flag else "see --help"


def _check_run_folder(mode, workdir):
    if not workdir:
        raise UserError(f"--mode={mode} needs --workdir=RUN, the folder of a trained run")
    path = pathlib.Path(os.path.expanduser(workdir))
    if not os.path.isfile(path / CONFIG_FILE):
        runs = [p.parent.name for p in path.parent.glob(f"*/{CONFIG_FILE}")]
        near = difflib.get_close_matches(path.name, runs, 1, 0.5)
        hint = f"did you mean {path.parent / near[0]}?" if near else "--mode=train makes one and prints its folder"
        raise UserError(f"--workdir={shown(workdir)}: no run there (no {CONFIG_FILE}); {hint}")


def split_overrides(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Takes --config.PATH=VALUE (or --config.PATH VALUE) out of argv; the last of several wins."""
    overrides, rest, words = {}, [], iter(argv)
    for word in words:
        if match := re.match(r"--?config\.([^=]*)(=?)(.*)", word, re.DOTALL):
            field, equals, value = match.groups()
            value = value if equals else next(words, "--")
            if value.startswith("--") and not equals:
                raise UserError(f"--config.{shown(field)} needs a value: --config.{shown(field)}=VALUE")
            overrides[field] = value
        else:
            rest.append(word)
    return overrides, rest


def load_config(name: str, overrides: Mapping[str, str] = MappingProxyType({})) -> ConfigDict:
    """Reads FILE.py[:arg], applies textual overrides, validates and locks the result.

    Raises:
      UserError: no such file, an error in it (with its line), an override or a value that is refused.
    """
    path, arg = find_config(name)
    config, doc = _execute(path, arg)
    config.update(name=path.stem + f"-{arg}" * bool(arg), paper=entry(doc, "Paper"), expect=entry(doc, "Expect"))
    check_fields(config, _common())
    for field, text in overrides.items():
        override(config, field, text)
    validate(config, _common())
    return config.lock()


def find_config(name: str) -> tuple[pathlib.Path, str]:
    """The file and the argument of FILE.py[:arg]; relative names are tried here, then beside main.py."""
    text, _, arg = name.partition(".py:")
    text = os.path.expanduser(text if text.endswith(".py") else f"{text}.py")
    for path in (pathlib.Path(text), ROOT / text):
        if os.path.isfile(path):
            return path, arg
    stem = pathlib.Path(text.partition(":")[0]).stem
    near = difflib.get_close_matches(stem, [p.stem for p in config_files()], 3, 0.4)
    hint = f"; did you mean {' or '.join(f'configs/{n}.py' for n in near)}?" if near else ""
    raise UserError(f"--config={shown(name)}: no such file{hint} (--list_configs shows all)")


def config_files() -> list[pathlib.Path]:
    """The experiments of configs/, sorted."""
    return sorted(p for p in (ROOT / "configs").glob("*.py") if p.stem not in ("__init__", "common", "uci"))


def defaults() -> ConfigDict:
    """What every experiment starts from: a run folder of an earlier revision lacks the fields that came later."""
    return _common().base()


def _common():
    if str(ROOT) not in sys.path:  # configs is no part of the package
        sys.path.insert(0, str(ROOT))
    from configs import common

    return common


def _execute(path, arg):
    """The configuration and the docstring of a file; it is not imported, which would leave __pycache__ beside it."""
    _common()
    names = {"__name__": f"config_{path.stem}", "__file__": str(path)}
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), names)
        config = names["get_config"](arg) if "get_config" in names else None
    except (Exception, SystemExit) as error:  # a configuration is a program: whatever it raises is the user's to see
        message = error.msg if isinstance(error, SyntaxError) else error
        what = shown(f"{type(error).__name__}: {message}", 200)
        raise UserError(f"{path}{_line(error, str(path))}: {what}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: no function get_config(arg) that returns a ConfigDict; see {DEFAULT_CONFIG}")
    return config, names.get("__doc__") or ""


def _line(error, file):
    """', line 7', the last line of the file that the error went through; '' if it never came into the file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    return f", line {lines[-1]}" if lines else ""


def help_text() -> str:
    """What --help prints: usage, flags, and every configuration key with its default and comment."""
    lines = [
        "Trains, scores and samples the generative models of configs/.",
        "",
        "  python main.py                                        train the default, " + DEFAULT_CONFIG,
        "  python main.py --config=configs/NAME.py[:debug]       train another (--list_configs shows all)",
        "  python main.py --config.optimizer.learning_rate=3e-4  with a value changed",
        "  python main.py --mode=eval --workdir=RUN              score a run on its test part",
        "  python main.py --mode=sample --workdir=RUN --num=64 --temperature=0.7",
        "  python main.py --mode=sample --workdir=RUN --given=0.5    complete test examples",
        "  python main.py --mode=sample --workdir=RUN --sampler=heun --sampler_steps=18 --spacing=karras",
        "",
        "Flags:",
        *(f"  --{name:<14}{FLAGS[name].help} (default: {FLAGS[name].default!r})" for name in OURS),
        "",
        "Configuration keys (--config.KEY=VALUE), with the defaults that an experiment starts from:",
        *config_help(),
        "",
        "The keys of config.model are the arguments of the model's builder; see the experiment's file.",
    ]
    return "\n".join(lines)


def config_help() -> Iterator[str]:
    """One line for each key of configs/common.py: path, default, comment."""
    source = (ROOT / "configs" / "common.py").read_text()
    for path, default, comment in re.findall(r"^    c\.([\w.]+) = (?:\(\n +)?(.*?)  # (.*)", source, re.MULTILINE):
        yield f"  {path:<34}{default.replace('ConfigDict()', '{}'):<32}{comment}"


def list_configs() -> str:
    """A table of the experiments: file, model, data, paper, expected figure."""
    rows = [("config", "model", "data", "paper", "expected")]
    for path in config_files():
        config = load_config(str(path))
        rows.append((path.name, config.model.name, config.data.name, config.paper, config.expect))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]]) for row in rows)


def entry(doc, word):
    """The paragraph after 'Word:' in a docstring, up to the next 'Word:' line, as one line."""
    match = re.search(rf"^{word}: (.*?)(?=\n\w+:|\n\n|\Z)", doc, re.DOTALL | re.MULTILINE)
    return " ".join(match.group(1).split()) if match else ""
