"""The worked examples of CONTRIBUTING.md and docs/first-model.md, executed as they stand."""

import re

import jax
import numpy as np
import pytest
import test_bijectors
import test_models

from genflow import bijectors, cli, experiment, models
from genflow.step import make_step


def python_blocks(title):
    """The Python code of one section of CONTRIBUTING.md, by the file that its first line names."""
    text = (cli.ROOT / "CONTRIBUTING.md").read_text("utf-8")
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE).group(1)
    blocks = re.findall(r"^```python\n# ([^\s,]+)[^\n]*\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return dict(blocks)


def defined(code, name):
    """What a block calls `name`."""
    namespace = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), namespace)
    return namespace[name]


def test_the_bijector_has_the_properties_of_the_table(monkeypatch):
    blocks = python_blocks("Add a bijector")
    build = defined(blocks["genflow/bijectors/elementwise.py"], "leaky")
    monkeypatch.setattr(bijectors, "leaky", build, raising=False)
    row = eval("{" + blocks["tests/test_bijectors.py"] + "}", vars(test_bijectors))
    monkeypatch.setattr(test_bijectors, "TABLE", row)
    test_bijectors.test_properties_in_float64("leaky")
    test_bijectors.test_properties_in_float32("leaky")
    test_bijectors.test_jit_changes_nothing("leaky")


@pytest.fixture
def model_blocks(monkeypatch):
    blocks = python_blocks("Add a model")
    monkeypatch.setitem(models.MODELS, "independent", defined(blocks["genflow/models/independent.py"], "independent"))
    return blocks


def test_the_model_has_the_properties_of_the_table(model_blocks, monkeypatch):
    row = eval("{" + model_blocks["tests/test_models.py"] + "}", vars(test_models))
    monkeypatch.setattr(test_models, "TABLE", row)
    test_models.test_every_loss_is_finite_and_reaches_every_parameter_of_its_group("independent")
    test_models.test_samples_have_the_shape_and_range_of_the_data_and_follow_the_key("independent")


def test_the_model_and_its_experiment_take_a_step(model_blocks, tmp_path):
    (path := tmp_path / "independent_digits.py").write_text(model_blocks["configs/independent_digits.py"])
    config = cli.load_config(f"{path}:debug")
    assert config.expect.startswith("2.43 bits/dim")
    assembled = experiment.assemble(config)
    first, _ = experiment.initializer(assembled)
    before = first()
    batch = experiment.place_batch(assembled)(assembled.train, np.arange(config.data.batch_size))
    after, metrics = jax.jit(make_step(assembled.model, assembled.optimizers, config.seed))(before, batch)
    np.testing.assert_allclose(metrics["nll"], 64 * np.log(17), rtol=1e-6)
    learned = assembled.model.log_prob(after.params, after.state, None, batch)
    assert -learned.mean() < metrics["nll"] - 1
    mode = assembled.model.sample(after.params, after.state, jax.random.key(0), 1, temperature=0.0)
    assert assembled.model.log_prob(after.params, after.state, None, {"x": mode}) >= learned.max()


def test_the_first_model_of_the_documentation_scores_and_draws():
    text = (cli.ROOT / "docs" / "first-model.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    namespace = {}
    exec(compile(code, "first-model.md", "exec"), namespace)
    assert (np.asarray(namespace["log_p"]) < -64).all()
    drawn = np.asarray(namespace["drawn"])
    assert drawn.shape == (4, 8, 8, 1)
    assert set(np.unique(drawn)) <= set(range(17))


def test_the_first_model_names_experiments_that_exist():
    text = (cli.ROOT / "docs" / "first-model.md").read_text("utf-8")
    named = re.findall(r"`([a-z]+_[a-z0-9_]+)`(?=[,| ])", text.partition("## What the others change")[2])
    files = {path.stem for path in cli.config_files()}
    rows = [name for name in named if name not in ("log_prob", "log_prob_of_part", "top_k", "top_p")]
    assert set(rows) <= files
    assert len(rows) >= 6
