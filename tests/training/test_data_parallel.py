import json
import subprocess
import sys

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

import secateur
from secateur.errors import UsageError
from secateur.training import attach
from tests.clean_room import ROOT
from tests.structures import residual
from tests.training.data_parallel_process import images, loss_of, net


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found, one dictionary each."""
    folder = tmp_path_factory.mktemp("two")
    program = [sys.executable, "-m", "tests.training.data_parallel_process"]
    processes = [
        subprocess.Popen([*program, str(rank), str(folder)], cwd=ROOT) for rank in range(2)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def tensors(values):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


@pytest.mark.parametrize(
    ("way", "twin"),
    [
        ("plain", "twin"),
        ("unused", "twin"),
        ("static", "twin"),
        ("views", "twin"),
        ("buckets", "twin"),
        ("group", "twin"),
        ("hook", "twin"),
        ("bare", "twin"),
        ("resumed", "twin"),
        ("accumulated", "accumulated twin"),
    ],
)
def test_gradients_are_averaged_before_and_after_removals(found, way, twin):
    """The other side averages the gradients of a model without wrapper by hand."""
    for process in found:
        assert_close(tensors(process[way]), tensors(process[twin]))


def test_the_twins_were_made_smaller_and_a_layer_left(found):
    left = {name: len(values) for name, values in found[0]["twin"].items()}
    assert left["fc.weight"] == 3 * 3
    assert left["block1.bn1.weight"] == 2
    assert "block2.conv1.weight" not in left


def test_the_default_method_finds_the_same_network_from_batches_of_different_sizes(found):
    one, two = (tensors(process["searched"]) for process in found)
    assert_close(one, two)
    assert one["conv0.weight"].numel() < net().conv0.weight.numel()


def test_prune_removes_the_same_on_all_processes_by_the_mean_of_their_scores(found):
    one, two = (process["pruned"] for process in found)
    assert one["left"] == two["left"]
    assert_close(tensors(one["weights"]), tensors(two["weights"]))
    alone = [
        secateur.prune(
            net(),
            torch.zeros(2, 3, 6, 6, dtype=torch.float64),
            target_macs=0.5,
            data=[images(rank, 0)],
            loss=loss_of,
        ).scores
        for rank in range(2)
    ]
    assert not torch.allclose(alone[0], alone[1])
    expected = torch.stack(alone).mean(dim=0)
    assert_close(torch.tensor(one["scores"], dtype=torch.float64), expected)


@pytest.mark.usefixtures("one_process")
@pytest.mark.filterwarnings("ignore:You passed a gradient hook")
def test_a_wrapper_that_holds_back_gradients_is_refused_with_the_setting_to_leave_out():
    model = residual().model
    held = [("fc.weight", model.fc.weight)]
    wrapper = DistributedDataParallel(
        model, delay_all_reduce_named_params=held, param_to_hook_all_reduce=model.fc.bias
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(
        UsageError, match=r"delay_all_reduce_named_params=\.\.\.\), which keeps .* Leave it out"
    ):
        attach(wrapper, optimizer, torch.zeros(2, 3, 6, 6), price=0.1, total_steps=10)
