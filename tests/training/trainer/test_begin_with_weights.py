"""Runs that begin with a saved network, whole or cut."""

import re

import pytest
import torch

from secateur import data, models
from secateur.errors import StorageError
from secateur.storage import load
from secateur.structure import Decision, trace
from secateur.surgery import cut_
from secateur.training.trainer import load_network
from tests.training.trainer.tiny_runs import events, finished_run, tiny_config, weights


def begun_with(folder, **training):
    config = tiny_config(search=None, **training)
    model = config.model.model_copy(update={"weights": str(folder)})
    return config.model_copy(update={"model": model})


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return finished_run(tiny_config(), tmp_path_factory.mktemp("runs") / "first")


def test_a_run_goes_on_with_the_smaller_network_of_another(first, tmp_path):
    """With next to no learning rate the weights stay where the first run left them."""
    config = begun_with(first.run, epochs=1, lr=1e-30, warmup_epochs=0, weight_decay=0.0)
    second = finished_run(config, tmp_path / "second")
    assert (second.macs_before, second.macs) == (first.macs, first.macs)
    assert (second.params_before, second.params) == (first.params, first.params)
    assert second.macs < first.macs_before
    found, before = weights(second.run), weights(first.run)
    trained = [name for name in before if name.endswith(("weight", "bias"))]
    assert all(torch.equal(found[name], before[name]) for name in trained)


def test_its_training_is_billed_at_the_size_it_has(first, tmp_path):
    second = finished_run(begun_with(first.run, epochs=2), tmp_path / "second")
    assert second.training_macs == 3 * 320 * 2 * first.macs


def test_its_network_can_be_read_back_and_cut_further(first, tmp_path):
    second = finished_run(begun_with(first.run, epochs=1, warmup_epochs=0.5), tmp_path / "second")
    model, images = load_network(second.run)
    structure = trace(model, images[:1])
    cut_(model, structure, structure.everything(), Decision(units={0: torch.tensor([0])}))
    digits = data.load("digits", limit=320)
    assert model(digits.test.images[:2].float()).shape == (2, 10)


def test_a_search_can_follow_a_search(first, tmp_path):
    config = begun_with(first.run).model_copy(update={"search": tiny_config().search})
    second = finished_run(config, tmp_path / "second")
    assert second.macs < first.macs
    assert events(second.run)[0]["macs"] == first.macs

    def build():
        return models.build("digits-resnet", 10, 1, 8, width=0.25)

    found = load(build, second.run)
    assert sum(p.numel() for p in found.parameters()) == second.params


def test_weights_of_another_network_are_refused(first, tmp_path):
    config = begun_with(first.run)
    other = config.model_copy(update={"model": config.model.model_copy(update={"width": 0.5})})
    with pytest.raises(StorageError, match=r"builds another model than the one saved in"):
        finished_run(other, tmp_path / "other")
    nowhere = begun_with(tmp_path / "nowhere")
    message = f"{tmp_path / 'nowhere'} holds no model.safetensors."
    with pytest.raises(StorageError, match=re.escape(message)):
        finished_run(nowhere, tmp_path / "missing")
