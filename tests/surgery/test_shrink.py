import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.surgery._journal import Journal
from secateur.surgery._shrink import selected, shrink_


def positions(*numbers):
    return torch.tensor(numbers)


def test_both_axes_lose_positions_in_data_and_gradient_and_the_object_stays():
    parameter = nn.Parameter(torch.arange(6.0).reshape(2, 3))
    parameter.grad = 10 * torch.arange(6.0).reshape(2, 3)
    with Journal() as journal:
        shrink_(parameter, {0: positions(1), 1: positions(0, 2)}, journal)
    assert_close(parameter.detach(), torch.tensor([[3.0, 5.0]]))
    assert_close(parameter.grad, torch.tensor([[30.0, 50.0]]))
    assert isinstance(parameter, nn.Parameter)
    assert parameter.requires_grad


def test_backward_works_at_the_new_size_while_somebody_holds_the_gradient_accumulator():
    """Autograd compares gradients with the shape from when the accumulator was made."""
    parameter = nn.Parameter(torch.ones(4, 3))
    accumulator = parameter.expand_as(parameter).grad_fn.next_functions[0][0]
    old_graph = (parameter * 2).sum()
    seen = []
    parameter.register_hook(lambda grad: seen.append(("gradient", tuple(grad.shape))))
    parameter.register_post_accumulate_grad_hook(
        lambda held: seen.append(("accumulated", tuple(held.grad.shape)))
    )
    with Journal() as journal:
        shrink_(parameter, {0: positions(0, 1)}, journal)
    (parameter * 3).sum().backward()
    assert_close(parameter.grad, torch.full((2, 3), 3.0))
    assert seen == [("gradient", (2, 3)), ("accumulated", (2, 3))]
    del accumulator, old_graph


def test_a_failure_puts_back_the_very_same_data_and_gradient():
    parameter = nn.Parameter(torch.randn(4, 3), requires_grad=True)
    parameter.grad = grad = torch.randn(4, 3)
    pointer, values = parameter.data_ptr(), parameter.detach().clone()
    with pytest.raises(RuntimeError, match=r"^no$"), Journal() as journal:  # noqa: PT012
        shrink_(parameter, {0: positions(1)}, journal)
        raise RuntimeError("no")
    assert parameter.data_ptr() == pointer
    assert parameter.grad is grad
    assert_close(parameter.detach(), values)
    (parameter * 2).sum().backward()
    assert parameter.grad.shape == (4, 3)


@pytest.mark.parametrize("kernel", [1, 3])
def test_channels_last_stays_channels_last(kernel):
    weight = torch.randn(8, 6, kernel, kernel).to(memory_format=torch.channels_last)
    result = selected(weight, {0: positions(0, 3, 7), 1: positions(1, 2)})
    assert_close(result, weight[[0, 3, 7]][:, [1, 2]])
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.stride() == result.to(memory_format=torch.channels_last).stride()


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 3), (7, 5, 2, 2)])
@pytest.mark.parametrize("block", [1, 20, 64, 10**6])
def test_large_tensors_are_picked_from_in_blocks_of_rows(shape, block, monkeypatch):
    monkeypatch.setattr("secateur.surgery._shrink._BLOCK", block)
    weight = torch.randn(shape)
    axes = {1: positions(0, 2, 4), 0: positions(0, 1, 3, 4, 6)}
    expected = weight[[0, 1, 3, 4, 6]][:, [0, 2, 4]]
    assert torch.equal(selected(weight, axes), expected)
    if weight.dim() == 4:
        weight = weight.to(memory_format=torch.channels_last)
        result = selected(weight, axes)
        assert torch.equal(result, expected)
        assert result.is_contiguous(memory_format=torch.channels_last)


def test_contiguous_stays_contiguous():
    assert selected(torch.randn(8, 6, 1, 1), {1: positions(1, 2)}).stride() == (2, 1, 1, 1)
    assert selected(torch.randn(8, 6), {1: positions(1, 2)}).is_contiguous()


def test_a_sparse_gradient_follows():
    embedding = nn.Embedding(5, 4, sparse=True)
    embedding(torch.tensor([1, 1, 3])).sum().backward()
    with Journal() as journal:
        shrink_(embedding.weight, {1: positions(0, 3)}, journal)
    expected = torch.zeros(5, 2)
    expected[1], expected[3] = 2.0, 1.0
    assert_close(embedding.weight.grad.to_dense(), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_every_dtype_stays_what_it_was(dtype):
    parameter = nn.Parameter(torch.ones(4, dtype=dtype))
    with Journal() as journal:
        shrink_(parameter, {0: positions(0, 1)}, journal)
    assert parameter.dtype == dtype
    assert parameter.shape == (2,)
