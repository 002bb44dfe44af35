"""States survive being taken apart, by way of JSON, to the last bit."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.errors import StorageError
from secateur.training.trainer._nested_state import flatten, unflatten

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
STATES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.integers() | st.text() | st.floats(allow_nan=False), inner)
    ),
)


def there_and_back(state):
    tree, tensors = flatten(state)
    return unflatten(json.loads(json.dumps(tree, allow_nan=False)), tensors)


@given(STATES)
def test_every_plain_state_comes_back_equal_and_of_the_same_types(state):
    assert repr(there_and_back(state)) == repr(state)


def test_not_a_number_comes_back():
    assert math.isnan(there_and_back([float("nan")])[0])


def test_the_state_of_an_optimizer_comes_back_to_the_bit():
    weight = torch.nn.Parameter(torch.randn(3, 2))
    optimizer = torch.optim.AdamW([weight], amsgrad=True)
    weight.grad = torch.randn(3, 2)
    optimizer.step()
    state = optimizer.state_dict()
    found = there_and_back(state)
    assert found["param_groups"] == state["param_groups"]
    assert found["state"].keys() == {0}
    for name, value in state["state"][0].items():
        assert torch.equal(found["state"][0][name], value), name
        assert found["state"][0][name].dtype == value.dtype, name


@pytest.mark.parametrize("shape", [(4, 3, 2, 5), (4, 3, 1, 1), (1, 3, 2, 2), (4, 1, 3, 3)])
def test_the_layout_in_memory_comes_back(shape):
    tensor = torch.randn(shape).to(memory_format=torch.channels_last)
    found = there_and_back(tensor)
    assert found.stride() == tensor.stride()
    assert torch.equal(found, tensor)


def test_a_tensor_is_a_copy():
    tensor = torch.zeros(2)
    tree, tensors = flatten(tensor)
    tensor += 1
    assert torch.equal(unflatten(tree, tensors), torch.zeros(2))


def test_what_a_checkpoint_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="A state holds a set, but a checkpoint can hold tensors"):
        flatten({"seen": {1, 2}})


@pytest.mark.parametrize(
    "tree",
    [
        [1],
        {},
        {"set": []},
        {"tensor": "9", "order": [0]},
        {"tensor": "0"},
        {"tensor": "0", "order": [0, 0]},
        {"tensor": "0", "order": [7, 1]},
        {"dict": [[1]]},
        {"dict": [[{"list": []}, 1]]},
        {"float": "many"},
        {"list": 3},
    ],
)
def test_a_damaged_tree_is_refused(tree):
    with pytest.raises(StorageError, match="A saved state is damaged"):
        unflatten(tree, {"0": torch.zeros(2, 3)})
