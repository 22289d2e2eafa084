"""The worked examples of CONTRIBUTING.md, executed as they stand."""

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
    batch = experiment.place_batch(assembled)(assembled.train.fetch(np.arange(config.data.batch_size)))
    after, metrics = jax.jit(make_step(assembled.model, assembled.optimizers, config.seed))(before, batch)
    np.testing.assert_allclose(metrics["nll"], 64 * np.log(17), rtol=1e-6)
    learned = assembled.model.log_prob(after.params, after.state, None, batch)
    assert -learned.mean() < metrics["nll"] - 1
    mode = assembled.model.sample(after.params, after.state, jax.random.key(0), 1, temperature=0.0)
    assert assembled.model.log_prob(after.params, after.state, None, {"x": mode}) >= learned.max()
