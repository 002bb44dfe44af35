"""An independent count of multiply-accumulates: PyTorch's own, with the CPU attention kernel."""

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Heads of keys and values that several heads of queries share are multiplied for each."""
    shared = [(*query[:-2], *shape[-2:]) for shape in (key, value)]
    return sdpa_flop_count(query, *shared)


# Without it the counter misses attention on the CPU altogether.
_MAPPING = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


def counted_macs(model: nn.Module, *inputs: torch.Tensor) -> float:
    """Run a model once in evaluation mode and count; a MAC is two FLOPs.

    The fused kernel of `nn.MultiheadAttention` is one operation that the counter does not know.
    Gradients stay on: the counter fails on views of parameters that have no gradient function.
    """
    training, fast = model.training, torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False, custom_mapping=_MAPPING) as counter:
            model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        model.train(training)
    return counter.get_total_flops() / 2
