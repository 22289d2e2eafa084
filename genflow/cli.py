"""The command line: flags, configuration files and overrides, checked before JAX is imported."""

import ast
import difflib
import importlib.util
import math
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence

from absl import flags
from ml_collections import ConfigDict

from genflow.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEFAULT_CONFIG = "configs/glow_digits.py"
FLAGS = flags.FLAGS
flags.DEFINE_string("config", DEFAULT_CONFIG, "FILE.py or FILE.py:debug; --config.SECTION.KEY=VALUE overrides a value")
flags.DEFINE_enum("mode", "train", ("train", "eval", "sample"), "train a run, or score or sample one from its folder")
flags.DEFINE_string("workdir", "", "the run folder; training without it writes under runs/")
flags.DEFINE_integer("num", 64, "sample: how many", lower_bound=1)
flags.DEFINE_float("temperature", 1.0, "sample: scale of the latent noise", lower_bound=0.0)
flags.DEFINE_integer("seed", 0, "eval, sample: of the noise that this call draws", lower_bound=0)
flags.DEFINE_bool("list_configs", False, "print a table of the experiments and exit")
OURS = ("config", "mode", "workdir", "num", "temperature", "seed", "list_configs")


def parse(argv: Sequence[str]) -> ConfigDict | None:
    """Parses the command line into FLAGS; returns the configuration, or None where the run folder holds it.

    Raises:
      UserError: an unknown flag or field, a value of the wrong type or range, a stray word.
    """
    overrides, rest = split_overrides(argv)
    try:
        stray = FLAGS([rest[0], *rest[1:]])[1:]
    except flags.Error as error:
        raise UserError(str(error).replace("\n", " ")) from error
    if stray:
        raise UserError(f"stray argument {stray[0]!r}; flags start with --, as in --config.train.num_steps=1000")
    if FLAGS.mode == "train" or FLAGS.list_configs:
        return None if FLAGS.list_configs else load_config(FLAGS.config, overrides)
    if overrides or FLAGS["config"].present:
        raise UserError(f"--mode={FLAGS.mode} reads the configuration from --workdir; leave --config out")
    if not FLAGS.workdir:
        raise UserError(f"--mode={FLAGS.mode} needs --workdir=RUN, the folder of a trained run")
    return None


def split_overrides(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Takes --config.PATH=VALUE (or --config.PATH VALUE) out of argv; the last of several wins."""
    overrides, rest, words = {}, [], iter(argv)
    for word in words:
        if match := re.match(r"--?config\.([^=]*)(=?)(.*)", word, re.DOTALL):
            path, equals, value = match.groups()
            value = value if equals else next(words, None)
            if value is None:
                raise UserError(f"--config.{path} needs a value: --config.{path}=VALUE")
            overrides[path] = value
        else:
            rest.append(word)
    return overrides, rest


def load_config(name: str, overrides: Mapping[str, str] = {}) -> ConfigDict:
    """Reads FILE.py[:arg], applies textual overrides, locks and validates the result."""
    path, arg = find_config(name)
    module = _execute(path)
    if not hasattr(module, "get_config"):
        raise UserError(f"{path}: no function get_config(arg) in it; see configs/glow_digits.py for the form")
    try:
        config = module.get_config(arg)
    except ValueError as error:
        raise UserError(f"--config={name}: {error}") from error
    doc = module.__doc__ or ""
    config.update(name=path.stem + f"-{arg}" * bool(arg), paper=entry(doc, "Paper"), expect=entry(doc, "Expect"))
    for field, text in overrides.items():
        override(config, field, text)
    validate(config)
    return config.lock()


def find_config(name: str) -> tuple[pathlib.Path, str]:
    """The file and the argument of FILE.py[:arg]; relative names are tried here, then beside main.py."""
    text, _, arg = name.partition(".py:")
    text = text if text.endswith(".py") else f"{text}.py"
    for path in (pathlib.Path(text).expanduser(), ROOT / text):
        if path.is_file():
            return path, arg
    near = difflib.get_close_matches(pathlib.Path(text).stem, [p.stem for p in config_files()], 3, 0.4)
    hint = f"; did you mean configs/{near[0]}.py?" if near else ""
    raise UserError(f"--config={name}: no such file{hint} (--list_configs shows all)")


def config_files() -> list[pathlib.Path]:
    """The experiments of configs/, sorted."""
    return sorted(p for p in (ROOT / "configs").glob("*.py") if p.stem not in ("__init__", "common"))


def _execute(path):
    if str(ROOT) not in sys.path:  # configs import configs.common
        sys.path.insert(0, str(ROOT))
    spec = importlib.util.spec_from_file_location(f"genflow_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a configuration is a program: whatever it raises is the user's to see
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = lines[-1] if lines else getattr(error, "lineno", "?")
        raise UserError(f"{path}, line {line}: {type(error).__name__}: {error}") from error
    return module


def fields(config: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted path, value) of every leaf of a configuration."""
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from fields(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def override(config: ConfigDict, field: str, text: str) -> None:
    """Sets one field from the command line, converted to the type that it has."""
    known = dict(fields(config))
    if field not in known:
        near = difflib.get_close_matches(field, known, 1, 0.5)
        sections = [p for p in known if p.startswith(f"{field}.")]
        hint = (
            f"it is a section, set --config.{sections[0]}"
            if sections
            else (f"did you mean --config.{near[0]}?" if near else "see --help for the fields")
        )
        raise UserError(f"--config.{field}: no such field; {hint}")
    *parents, leaf = field.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    section[leaf] = convert(field, text, known[field])


def convert(field: str, text: str, current: object) -> object:
    """Text to the type of the current value: bool, int, float, str or tuple."""
    kind = type(current)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is tuple:
            return _convert_tuple(text, current)
        return kind(text)
    except (ValueError, KeyError, SyntaxError, TypeError) as error:
        expected = {bool: "true or false", int: "an integer", float: "a number", tuple: "a tuple"}[kind]
        example = f" such as {current!r}" if current != () else ""
        raise UserError(f"--config.{field}={text}: expected {expected}{example}") from error


def _convert_tuple(text, current):
    value = ast.literal_eval(text if text.strip() else "()")
    value = tuple(value) if isinstance(value, list | tuple) else (value,) if text.rstrip().endswith(",") else value
    if not isinstance(value, tuple):
        raise TypeError("not a tuple")
    if not current or isinstance(current[0], tuple):
        return value
    kind = type(current[0])
    if any(
        isinstance(v, bool) != (kind is bool) or not isinstance(v, kind | int if kind is float else kind) for v in value
    ):
        raise TypeError("element type")
    return tuple(kind(v) for v in value)


def validate(config: ConfigDict) -> None:
    """Raises UserError for a number that is NaN, infinite, negative or zero where it may not be, or an unknown choice."""
    from configs import common

    for field, value in fields(config):
        numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, int | float)]
        for number in numbers:
            if not math.isfinite(number):
                raise UserError(f"--config.{field}={value}: must be finite")
            if number < 0 and field not in common.SIGNED and not field.startswith("model."):
                raise UserError(f"--config.{field}={value}: must not be negative")
            if number <= 0 and field in common.POSITIVE:
                raise UserError(f"--config.{field}={value}: must be above zero")
            if number < 0 and isinstance(number, int) and field.startswith("model."):
                raise UserError(f"--config.{field}={value}: must not be negative")
        if value not in common.CHOICES.get(field, (value,)):
            near = difflib.get_close_matches(str(value), common.CHOICES[field], 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"--config.{field}={value}: expected one of {', '.join(common.CHOICES[field])}{hint}")


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
    for line in (ROOT / "configs" / "common.py").read_text().splitlines():
        if match := re.match(r"    c\.([\w.]+) = (.*?)  # (.*)", line):
            path, default, comment = match.groups()
            yield f"  {path:<28}{default:<32}{comment}"


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
