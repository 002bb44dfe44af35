"""The network of a run comes back from its folder alone."""

import json

import pytest
import torch

from secateur.errors import StorageError, UsageError
from secateur.training.trainer import create_run, load_network
from tests.training.trainer.tiny_runs import finished_run, tiny_config, weights


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return finished_run(tiny_config(), tmp_path_factory.mktemp("runs") / "run")


def test_it_has_the_weights_of_the_run_and_takes_its_images(outcome):
    model, images = load_network(outcome.run)
    assert not model.training
    assert model(images).shape == (2, 10)
    stored = weights(outcome.run)
    assert all(torch.equal(stored[name], value) for name, value in model.state_dict().items())
    assert sum(p.numel() for p in model.parameters()) == outcome.params < outcome.params_before


def test_an_unfinished_run_has_none(tmp_path):
    run = create_run(tiny_config(), tmp_path / "run")
    with pytest.raises(UsageError, match=f"is not finished, .* secateur train --resume {run}"):
        load_network(run)


@pytest.mark.parametrize(
    "shape", [None, {}, {"num_classes": 10}, {"width": 1, "more": 2}, [3], "many"]
)
def test_damaged_events_are_said(outcome, tmp_path, shape):
    run = create_run(tiny_config(), tmp_path / "run")
    lines = [{"event": "start", "shape": shape}, {"event": "end"}]
    (run / "events.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(StorageError, match="does not say what the network takes"):
        load_network(run)
