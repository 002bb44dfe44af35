from __future__ import annotations

import json
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from secateur.errors import StorageError, UsageError
from secateur.storage import load, save
from secateur.surgery import Edit
from tests.storage.saves import all_tensors, assert_same_bits, saved, small, small_cut

EVERY_DTYPE = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.uint32,
    torch.int32,
    torch.uint64,
    torch.int64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
]


class Tied(nn.Module):
    """An embedding whose weight is the output's too, and a block that stands in two places."""

    def __init__(self, *, tie: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.output = nn.Linear(4, 7, bias=False)
        if tie:
            self.output.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.again(self.first(self.embedding(x))))


class Buffers(nn.Module):
    """Buffers of every dtype, a scalar, an empty one, a strided one and a hidden one."""

    def __init__(self) -> None:
        super().__init__()
        for dtype in EVERY_DTYPE:
            bits = torch.randint(0, 2, (2, 16), dtype=torch.uint8)
            self.register_buffer(f"as_{str(dtype)[6:]}", bits.view(dtype))
        self.register_buffer("scalar", torch.tensor(torch.randn(()).item()))
        self.register_buffer("empty", torch.empty(0, 3))
        self.register_buffer("strided", torch.randn(4, 3).t())
        self.register_buffer("expanded", torch.arange(3).expand(2, 3))
        self.register_buffer("hidden", torch.randn(3), persistent=False)
        self.register_buffer("nothing", None)


class Remembers(nn.Module):
    """Keeps a tensor that is neither parameter nor buffer, where `place` says."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        table = torch.arange(4.0)
        holder = type("Holder", (), {})()
        holder.inside = {"deep": [table]}
        self.kept: object = {
            "attribute": table,
            "container": [{"deep": (table,)}],
            "object": holder,
            "closure": lambda: table,
        }[place]

    def table(self) -> Tensor:
        kept = self.kept
        if isinstance(kept, Tensor):
            return kept
        if isinstance(kept, list):
            return kept[0]["deep"][0]
        return kept() if callable(kept) else kept.inside["deep"][0]


class NeedsValues(nn.Module):
    """Cannot be built on the meta device: its constructor reads a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = torch.linspace(0, 1, 3).tolist()
        self.linear = nn.Linear(2, 2)


class Level(IntEnum):
    """Equal to a number and yet none."""

    ONE = 1


class Counter(nn.Module):
    """Has an extra state."""

    def __init__(self, state: object = None) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.state = state

    def get_extra_state(self) -> object:
        return self.state

    def set_extra_state(self, state: object) -> None:
        self.state = state


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "linear": small,
    "batch norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    "tied": Tied,
    "buffers": Buffers,
    "bfloat16": lambda: small().bfloat16(),
    "float16": lambda: small().half(),
    "float64": lambda: small().double(),
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2),
    "attention": lambda: nn.MultiheadAttention(8, 2),
    "weight norm": lambda: weight_norm(nn.Linear(3, 2)),
    "no tensors": nn.ReLU,
    "needs values": NeedsValues,
    "parameter list": lambda: nn.ParameterList([torch.zeros(2), torch.zeros(3)]),
}


def randomised(model: nn.Module) -> nn.Module:
    for tensor in all_tensors(model).values():
        if tensor.is_floating_point() and tensor.dtype.itemsize > 1 and tensor._is_view() is False:
            tensor.data.normal_()
    return model


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS.keys())
def test_every_bit_comes_back(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = randomised(build())
    back = load(build, saved(model, tmp_path))
    assert type(back).__name__ == type(model).__name__  # parametrizations make classes
    assert_same_bits(back, model)
    assert not any(tensor.is_meta for tensor in all_tensors(back).values())


def test_a_cut_model_comes_back_cut_with_its_edit(tmp_path: Path) -> None:
    model = small_cut()
    back = load(small, saved(model, tmp_path))
    assert_same_bits(back, model)
    assert (back[0].out_features, back[2].in_features) == (2, 2)
    x = torch.randn(5, 3)
    assert torch.equal(back(x), model(x))
    again = load(small, saved(back, tmp_path / "again"))
    assert vars(again)["_secateur_edit"] == vars(model)["_secateur_edit"]
    assert_same_bits(again, model)


def test_a_tuple_of_sizes_comes_back_as_a_tuple(tmp_path: Path) -> None:
    model = nn.LayerNorm((2, 3))
    vars(model)["_secateur_edit"] = Edit(
        kept={"weight": {1: (0, 1, 4)}, "bias": {1: (0, 1, 4)}},
        attributes={"": {"normalized_shape": (2, 3)}},
    )
    back = load(lambda: nn.LayerNorm((2, 5)), saved(model, tmp_path))
    assert back.normalized_shape == (2, 3)
    assert_same_bits(back, model)


def test_a_loaded_model_trains_on(tmp_path: Path) -> None:
    back = load(small, saved(small_cut(), tmp_path))
    optimizer = torch.optim.SGD(back.parameters(), lr=0.1)
    before = back[0].weight.detach().clone()
    back(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(back[0].weight, before)


def test_loaded_tensors_do_not_hang_on_the_file(tmp_path: Path) -> None:
    model = small()
    back = load(small, saved(model, tmp_path))
    path = tmp_path / "model.safetensors"
    with path.open("r+b") as file:  # the same file, overwritten in place
        file.write(bytes(path.stat().st_size))
    assert_same_bits(back, model)


def test_ties_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    model = Tied()
    save(model, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert sorted(stored) == ["embedding.weight", "first.bias", "first.weight"]
    records = json.loads((tmp_path / "structure.json").read_text())["tensors"]
    assert records["embedding.weight"]["aliases"] == ["output.weight"]
    assert records["first.weight"]["aliases"] == ["again.weight"]
    back = load(Tied, tmp_path)
    assert back.output.weight is back.embedding.weight
    assert back.again is back.first


def test_a_tie_made_after_building_is_kept(tmp_path: Path) -> None:
    save(Tied(), tmp_path)
    back = load(lambda: Tied(tie=False), tmp_path)
    assert back.output.weight is back.embedding.weight


@pytest.mark.parametrize("place", ["meta", "values"])
def test_a_tie_cut_after_building_stays_cut(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "values":
        monkeypatch.setattr("secateur.storage._load.build_on_meta", lambda build: None)
    model = Tied(tie=False)
    back = load(Tied, saved(model, tmp_path))
    assert back.output.weight is not back.embedding.weight
    assert_same_bits(back, model)


def test_a_parameter_that_is_a_buffer_too_stays_both(tmp_path: Path) -> None:
    def build() -> nn.Module:
        model = nn.Linear(2, 2)
        model.register_buffer("shadow", model.weight)
        return model

    back = load(build, saved(build(), tmp_path))
    assert back._buffers["shadow"] is back._parameters["weight"]


def test_buffers_that_state_dict_leaves_out_are_stored(tmp_path: Path) -> None:
    model = Buffers()
    back = load(Buffers, saved(model, tmp_path))
    assert torch.equal(back.hidden, model.hidden)
    assert "hidden" not in back.state_dict()
    records = json.loads((tmp_path / "structure.json").read_text())["tensors"]
    assert [name for name in records if not records[name]["persistent"]] == ["hidden"]


@pytest.mark.parametrize("place", ["attribute", "container", "object", "closure"])
def test_tensors_outside_of_buffers_get_their_values_from_a_second_build(
    place: str, tmp_path: Path
) -> None:
    model = Remembers(place)
    back = load(lambda: Remembers(place), saved(model, tmp_path))
    assert torch.equal(back.table(), torch.arange(4.0))
    assert_same_bits(back, model)


def test_a_full_size_model_is_never_in_memory_where_meta_will_do(tmp_path: Path) -> None:
    places = []

    def build() -> nn.Module:
        model = small()
        places.append(model[0].weight.device.type)
        return model

    load(build, saved(small(), tmp_path))
    assert places == ["meta"]


def test_hooks_and_marks_on_parameters_survive(tmp_path: Path) -> None:
    def build() -> nn.Module:
        model = nn.Linear(2, 2)
        model.weight.no_decay = True
        model.bias.register_hook(lambda grad: grad * 0)
        return model

    model = build()
    back = load(build, saved(model, tmp_path))
    back(torch.ones(1, 2)).sum().backward()
    assert back.weight.no_decay is True
    assert torch.equal(back.bias.grad, torch.zeros(2))
    assert_same_bits(back, model)


def test_recurrent_layers_use_the_loaded_weights_without_a_second_build(tmp_path: Path) -> None:
    places = []

    def build() -> nn.Module:
        model = nn.LSTM(3, 4, num_layers=2)
        places.append(model.weight_ih_l0.device.type)
        return model

    model = build()
    back = load(build, saved(model, tmp_path))
    x = torch.randn(5, 2, 3)
    assert torch.equal(back(x)[0], model(x)[0])
    assert places == ["cpu", "meta"]


def test_frozen_parameters_and_modes_are_those_of_the_build(tmp_path: Path) -> None:
    def build() -> nn.Module:
        model = small().eval()
        model[0].weight.requires_grad_(False)
        return model

    save(small(), tmp_path)
    back = load(build, tmp_path)
    assert [p.requires_grad for p in back.parameters()] == [False, True, True, True]
    assert back.training is False
    assert load(small, tmp_path).training is True


def draws_a_number() -> nn.Module:
    torch.rand(1, device="cpu")
    return small()


@pytest.mark.parametrize("build", [draws_a_number, NeedsValues], ids=["meta", "values"])
def test_loading_leaves_the_random_state_alone(
    build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    save(build(), tmp_path)
    state = torch.get_rng_state()
    load(build, tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("build", [small, NeedsValues], ids=["meta", "values"])
def test_the_dtype_is_that_of_the_save(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = build().bfloat16()
    assert_same_bits(load(build, saved(model, tmp_path)), model)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = small_cut()
    save(model, tmp_path / "a")
    save(model, tmp_path / "b")
    for name in ("model.safetensors", "structure.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# torch.compile imports parts of torch that use what torch has deprecated.
@pytest.mark.filterwarnings(r"ignore:.torch\.jit:DeprecationWarning")
def test_wrappers_are_looked_through(tmp_path: Path) -> None:
    model = small_cut()
    save(nn.DataParallel(torch.compile(model)), tmp_path)
    assert_same_bits(load(small, tmp_path), model)
    wrapped = load(lambda: torch.compile(small()), tmp_path)
    assert_same_bits(wrapped._orig_mod, model)


def test_values_are_those_of_state_dict(tmp_path: Path) -> None:
    def put(module: nn.Module, state: dict[str, Tensor], prefix: str, _: object) -> None:
        state[prefix + "0.bias"] = torch.full((4,), 7.0)
        state[prefix + "2.bias"] = torch.full((5,), 7.0)  # no value of a bias of size 2

    model = small()
    model.register_state_dict_post_hook(put)
    save(model, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["0.bias"].tolist() == [7.0] * 4
    assert torch.equal(stored["2.bias"], model[2].bias)


@pytest.mark.parametrize("state", [None, 3, {"a": [1, 2.5, "x", True, None]}], ids=repr)
def test_extra_states_of_json_come_back(state: object, tmp_path: Path) -> None:
    back = load(Counter, saved(Counter(state), tmp_path))
    assert back.state == state


@pytest.mark.parametrize(
    "state",
    [torch.zeros(2), (1, 2), {1: 2}, {"a": float("nan")}, object(), [(1,)], Level.ONE],
    ids=["tensor", "tuple", "number as key", "nan", "object", "tuple inside", "enum"],
)
def test_extra_states_that_json_would_change_are_refused(state: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        save(nn.Sequential(Counter(state)), tmp_path)
    assert str(caught.value) == (
        f"The extra state of module '0' (Counter) is a {type(state).__name__} that JSON does not "
        "give back unchanged. Files of secateur hold no pickles: let get_extra_state return dicts "
        "with text keys, lists, text, numbers, booleans or None, and put tensors into buffers."
    )
    assert list(tmp_path.iterdir()) == []


def test_lazy_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        save(nn.LazyLinear(2), tmp_path)
    assert str(caught.value) == (
        "Tensor 'weight' has no shape yet, so it cannot be saved. Before secateur.save(): run the "
        "model once."
    )
    save(nn.Linear(2, 2), tmp_path)
    with pytest.raises(UsageError) as caught:
        load(lambda: nn.LazyLinear(2), tmp_path)
    assert str(caught.value) == (
        "build_model leaves tensor 'weight' without a shape. Let it run the model once before it "
        "returns it."
    )


def test_tensors_that_the_format_lacks_are_refused(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.eye(2).to_sparse())
    with pytest.raises(UsageError, match=r"Tensor 'mask' has layout torch.sparse_coo and dtype"):
        save(model, tmp_path)
    with pytest.raises(UsageError, match=r"Tensor 'weight' has layout torch.strided and dtype"):
        save(nn.Linear(2, 2, dtype=torch.complex128), tmp_path)
    with pytest.raises(UsageError, match=r"Tensor 'weight' is on the meta device"):
        save(nn.Linear(2, 2, device="meta"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_around_a_cut_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        save(nn.ModuleDict({"net": small_cut()}), tmp_path)
    assert str(caught.value) == (
        "Module 'net' of the model was made smaller on its own, so the model as a whole cannot be "
        "saved. Save and load that part: secateur.save(model.net, folder)."
    )


def test_a_model_instead_of_a_builder_is_refused(tmp_path: Path) -> None:
    save(small(), tmp_path)
    with pytest.raises(UsageError) as caught:
        load(small(), tmp_path)
    assert str(caught.value) == (
        "build_model is a Sequential, expected a function without arguments that builds the model "
        "at full size. Write: secateur.load(lambda: MyModel(...), folder)."
    )
    with pytest.raises(UsageError) as caught:
        load(lambda: "model", tmp_path)
    assert str(caught.value) == (
        "build_model returned a str, expected a torch.nn.Module. Let it return the model at full "
        "size."
    )


def test_errors_of_the_builder_are_the_builders(tmp_path: Path) -> None:
    def build() -> nn.Module:
        raise ValueError("the builder's own mistake")

    save(small(), tmp_path)
    with pytest.raises(ValueError, match=r"^the builder's own mistake$"):
        load(build, tmp_path)


ANOTHER = {
    "wider": (
        lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)),
        "tensor '0.weight' has shape [5, 3] in it, after the stored edit, and [4, 3] in the save",
    ),
    "shorter": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU()),
        "it lacks tensor '2.bias' [2], which the save holds",
    ),
    "longer": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Linear(2, 1)),
        "it has tensor '3.bias' [1], which the save does not hold",
    ),
    "without bias": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False)),
        "it lacks tensor '2.bias' [2], which the save holds",
    ),
}


@pytest.mark.parametrize(("build", "fact"), ANOTHER.values(), ids=ANOTHER.keys())
def test_another_model_is_noticed(
    build: Callable[[], nn.Module], fact: str, tmp_path: Path
) -> None:
    save(small(), tmp_path)
    with pytest.raises(StorageError) as caught:
        load(build, tmp_path)
    assert str(caught.value) == (
        f"build_model builds another model than the one saved in {tmp_path}: {fact}. Pass the "
        "function and the settings that the model was trained with."
    )


def test_kinds_of_tensors_and_states_have_to_agree(tmp_path: Path) -> None:
    class Either(nn.Module):
        def __init__(self, value: Tensor) -> None:
            super().__init__()
            if isinstance(value, nn.Parameter):
                self.x = value
            else:
                self.register_buffer("x", value)

    save(Either(torch.zeros(2)), tmp_path)
    with pytest.raises(StorageError, match=r"tensor 'x' is a parameter in it and a buffer in the"):
        load(lambda: Either(nn.Parameter(torch.zeros(2))), tmp_path)
    with pytest.raises(StorageError, match=r"tensor 'x' is torch.int64 in it and torch.float32 in"):
        load(lambda: Either(torch.zeros(2, dtype=torch.int64)), tmp_path)
    save(Counter(1), tmp_path)
    with pytest.raises(
        StorageError, match=r"module '' has none in it and has an extra state in the save\."
    ):
        load(lambda: nn.ModuleDict({"linear": nn.Linear(2, 2)}), tmp_path)


def test_a_tensor_that_stays_on_meta_is_refused(tmp_path: Path) -> None:
    def build() -> nn.Module:
        model = small()
        model.table = torch.zeros(2, device="meta")
        return model

    save(small(), tmp_path)
    with pytest.raises(UsageError) as caught:
        load(build, tmp_path)
    assert str(caught.value) == (
        "build_model leaves Sequential.table on the meta device, and it is neither a parameter nor "
        "a buffer, so no file holds its values. Build it with values or register it as a buffer."
    )


def test_both_files_can_be_read_by_whom_the_umask_lets(tmp_path):
    net = torch.nn.Linear(3, 2)
    save(net, tmp_path / "save")
    modes = {file.stat().st_mode for file in (tmp_path / "save").iterdir()}
    assert len(modes) == 1
