"""Numbers that standard modules store about the shapes of their tensors, one rule a module type.

A trace at another size and surgery both go by this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

AttributeValue = int | tuple[int, ...]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """A module whose own tensors change shape.

    Attributes:
        module: The module.
        traced: Shapes of its tensors in the traced model, by their names in the module.
        old: Their shapes now.
        new: Their shapes afterwards.
    """

    module: nn.Module
    traced: Shapes
    old: Shapes
    new: Shapes


def own_tensors(module_state: Mapping[str, Any]) -> dict[str, Tensor]:
    """List a module's own tensors, and under its usual name the one a weight is computed from.

    Args:
        module_state: The module's ``__dict__``.

    Returns:
        Name in the module to tensor.
    """
    found: dict[str, Tensor] = {
        name: tensor
        for kind in ("_parameters", "_buffers")
        for name, tensor in module_state[kind].items()
        if isinstance(tensor, Tensor)
    }
    sources = dict(found)
    computed = module_state["_modules"].get("parametrizations")
    for name, inner in computed._modules.items() if computed is not None else ():
        own = inner._parameters
        sources[f"{name}_orig"] = own.get("original", own.get("original1"))
    for name, tensor in sources.items():
        base, _, kind = name.rpartition("_")
        is_direction = kind == "v" and f"{base}_g" in found
        if base and tensor is not None and (kind == "orig" or is_direction):
            found.setdefault(base, tensor)
    return found


def shapes_of(module_state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """List the shapes of what `own_tensors` finds.

    Args:
        module_state: The module's ``__dict__``.

    Returns:
        Name in the module to shape.
    """
    return {name: tuple(tensor.shape) for name, tensor in own_tensors(module_state).items()}


def resized_attributes(resize: Resize) -> dict[str, AttributeValue]:
    """Work out which stored sizes change.

    Args:
        resize: The module and the shapes of its tensors.

    Returns:
        Attribute name to new value; empty for modules without a rule and without a change.
    """
    rule = next((_RULES[kind] for kind in type(resize.module).__mro__ if kind in _RULES), _custom)
    try:
        found = rule(resize)
    except KeyError:
        # The tensor is computed from others (weight norm, parametrizations): nothing to go by.
        return {}
    current = vars(resize.module)
    return {name: value for name, value in found.items() if current.get(name) not in {None, value}}


def _conv(resize: Resize) -> dict[str, AttributeValue]:
    """Grouped convolutions lose one position in every group, depthwise ones lose whole groups."""
    # A grouped convolution may be left with one channel a group and is not depthwise for that, so
    # the shape it was traced with decides.
    out, per_group = resize.new["weight"][:2]
    groups = int(vars(resize.module)["groups"])
    if groups > 1 and resize.traced["weight"][1] == 1:
        groups = groups * out // resize.old["weight"][0]
    return {"out_channels": out, "in_channels": per_group * groups, "groups": groups}


def _conv_transpose(resize: Resize) -> dict[str, AttributeValue]:
    """As `_conv`; the axes are (in, out in a group), and one input channel a group is depthwise."""
    channels, per_group = resize.new["weight"][:2]
    groups = int(vars(resize.module)["groups"])
    if 1 < groups == resize.old["weight"][0]:
        groups = channels
    return {"in_channels": channels, "out_channels": per_group * groups, "groups": groups}


def _linear(resize: Resize) -> dict[str, AttributeValue]:
    out, inner = resize.new["weight"]
    return {"out_features": out, "in_features": inner}


def _bilinear(resize: Resize) -> dict[str, AttributeValue]:
    out, first, second = resize.new["weight"]
    return {"out_features": out, "in1_features": first, "in2_features": second}


def _channel_norm(resize: Resize) -> dict[str, AttributeValue]:
    name = "weight" if "weight" in resize.new else "running_mean"
    return {"num_features": resize.new[name][0]}


def _group_norm(resize: Resize) -> dict[str, AttributeValue]:
    """Groups keep their number, unless a group is a single channel."""
    channels = resize.new["weight"][0]
    found: dict[str, AttributeValue] = {"num_channels": channels}
    if vars(resize.module)["num_groups"] == resize.old["weight"][0]:
        found["num_groups"] = channels
    return found


def _layer_norm(resize: Resize) -> dict[str, AttributeValue]:
    return {"normalized_shape": resize.new["weight"]}


def _embedding(resize: Resize) -> dict[str, AttributeValue]:
    return {"embedding_dim": resize.new["weight"][1]}


def _prelu(resize: Resize) -> dict[str, AttributeValue]:
    return {"num_parameters": resize.new["weight"][0]}


def _recurrent(resize: Resize) -> dict[str, AttributeValue]:
    """The rows of a gate are the hidden units; LSTM and GRU stack several gates."""
    stored = vars(resize.module)
    gates = resize.old["weight_ih_l0"][0] // int(stored["hidden_size"])
    rows, inputs = resize.new["weight_ih_l0"]
    found: dict[str, AttributeValue] = {"input_size": inputs, "hidden_size": rows // gates}
    if "weight_hr_l0" in resize.new:
        found["proj_size"] = resize.new["weight_hr_l0"][0]
    return found


def _recurrent_cell(resize: Resize) -> dict[str, AttributeValue]:
    return {"input_size": resize.new["weight_ih"][1], "hidden_size": resize.new["weight_hh"][1]}


def _custom(resize: Resize) -> dict[str, AttributeValue]:
    """Transformers' Conv1D is a linear layer with a transposed weight ``[nx, nf]``."""
    if not {"nx", "nf"} <= vars(resize.module).keys():
        return {}
    nx, nf = resize.new["weight"]
    return {"nx": nx, "nf": nf}


_RULES: Mapping[type, Callable[[Resize], dict[str, AttributeValue]]] = {
    _ConvTransposeNd: _conv_transpose,
    _ConvNd: _conv,
    _NormBase: _channel_norm,
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
    nn.PReLU: _prelu,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _recurrent_cell,
}
