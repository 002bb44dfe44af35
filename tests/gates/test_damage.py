"""The meter of local damage, against the second path written out by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from secateur.gates import Ablation, Damage, DamageMeter
from secateur.structure import Decision, Structure, trace
from secateur.surgery import cut_
from tests.structures import Built, convnet, mlp, residual


def random_masks(structure: Structure, rows: int, variants: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(variants, rows, structure.num_units, generator=generator) > 0.5


def sampled(*families: int, off: torch.Tensor) -> Ablation:
    return Ablation(off_VRU=off, sampled=frozenset(families))


def measure(model: nn.Module, structure: Structure, ablation: Ablation, x: torch.Tensor) -> Damage:
    meter = DamageMeter(model, structure, structure.everything())
    return meter.measure(ablation, lambda: model(x), len(x))


def traced(model: nn.Module, *shape: int) -> tuple[nn.Module, Structure, torch.Tensor]:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    model = model.double()
    return model, trace(model, x[:1]), x


def total(change: torch.Tensor) -> torch.Tensor:
    return change.square().flatten(1).sum(dim=1)


def same_damage(damage: Damage, family: int, change: torch.Tensor, energy: torch.Tensor) -> None:
    assert_close(damage.change_VRF[0, :, family], change)
    assert_close(damage.energy_RF[:, family], energy.sum().expand(len(change)) / len(change))


def test_each_sample_has_its_mask_and_the_norm_keeps_the_statistics_of_the_base_path():
    model, structure, x = convnet()
    model, x = model.double(), x.double()
    off = random_masks(structure, len(x))
    inner = torch.relu(model.bn1(model.conv1(x)))
    base = model.conv2(inner)
    ablated = model.conv2(inner * (~off[0, :, :4])[:, :, None, None])
    mean = base.mean(dim=(0, 2, 3)).detach()
    variance = base.var(dim=(0, 2, 3), correction=0).detach()

    def block(z: torch.Tensor) -> torch.Tensor:
        bn = model.bn2
        return torch.relu(F.batch_norm(z, mean, variance, bn.weight, bn.bias, False, 0.0, bn.eps))

    damage = measure(model, structure, sampled(0, off=off), x)
    change = total(block(base) - block(ablated)).detach()
    assert bool((change > 0).any())
    same_damage(damage, 0, change, total(block(base)).detach())


def test_in_evaluation_the_norm_keeps_its_running_statistics():
    model, structure, x = convnet()
    model, x = model.double().eval(), x.double()
    off = random_masks(structure, len(x))
    inner = torch.relu(model.bn1(model.conv1(x)))
    keep = (~off[0, :, :4])[:, :, None, None]
    base = torch.relu(model.bn2(model.conv2(inner)))
    ablated = torch.relu(model.bn2(model.conv2(inner * keep)))
    damage = measure(model, structure, sampled(0, off=off), x)
    same_damage(damage, 0, total(base - ablated).detach(), total(base).detach())


def test_a_stream_is_measured_at_all_its_consumers_and_only_there():
    model, structure, x = residual()
    model, x = model.double().eval(), x.double()
    off = random_masks(structure, len(x))
    keep = (~off[0, :, :4])[:, :, None, None]
    stem = torch.relu(model.bn0(model.conv0(x)))
    middle = model.block1(stem)
    change = energy = 0.0
    for block, stream in ((model.block1, stem), (model.block2, middle)):
        base = torch.relu(block.bn1(block.conv1(stream)))
        ablated = torch.relu(block.bn1(block.conv1(stream * keep)))
        change, energy = change + total(base - ablated), energy + total(base)
    pooled = model.block2(middle).mean(dim=(2, 3))
    change = change + total(model.fc(pooled) - model.fc(pooled * keep[..., 0, 0]))
    energy = energy + total(model.fc(pooled))
    damage = measure(model, structure, sampled(0, off=off), x)
    same_damage(damage, 0, change.detach(), energy.detach())


def test_an_output_is_taken_before_it_is_added_to_the_stream():
    model, structure, x = residual()
    model, x = model.double().eval(), x.double()
    off = random_masks(structure, len(x))
    block, stem = model.block1, torch.relu(model.bn0(model.conv0(x)))
    inner = torch.relu(block.bn1(block.conv1(stem)))
    keep = (~off[0, :, 4:7])[:, :, None, None]
    base, ablated = block.bn2(block.conv2(inner)), block.bn2(block.conv2(inner * keep))
    damage = measure(model, structure, sampled(1, off=off), x)
    same_damage(damage, 1, total(base - ablated).detach(), total(base).detach())


@pytest.mark.parametrize("build", [mlp, convnet, residual])
def test_masks_of_other_families_make_no_difference(build):
    model, structure, x = build()
    off = random_masks(structure, len(x))
    families = range(len(structure.families))
    together = measure(model.eval(), structure, sampled(*families, off=off), x)
    for family in families:
        alone = torch.zeros_like(off)
        start, stop = structure.offsets[family : family + 2]
        alone[..., start:stop] = off[..., start:stop]
        damage = measure(model, structure, sampled(family, off=alone), x)
        assert torch.equal(damage.change_VRF[..., family], together.change_VRF[..., family])
        assert torch.equal(damage.energy_RF[:, family], together.energy_RF[:, family])


@pytest.mark.parametrize("build", [mlp, convnet, residual])
def test_the_base_path_computes_what_it_computes_without_the_meter(build):
    model, structure, x = build()
    expected = model.eval()(x)
    outputs = []
    meter = DamageMeter(model, structure, structure.everything())
    ablation = sampled(*range(len(structure.families)), off=random_masks(structure, len(x)))
    meter.measure(ablation, lambda: outputs.append(model(x)), len(x))
    assert torch.equal(outputs[0], expected)


def test_an_activation_in_place_changes_no_figure():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3)]
    out = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    inplace = nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Flatten(), out[6])
    out, structure, x = traced(out, 3, 2, 6, 6)
    off = random_masks(structure, 3)
    expected = measure(out, structure, sampled(0, 1, off=off), x)
    found = measure(inplace.double(), structure, sampled(0, 1, off=off), x)
    assert torch.equal(found.change_VRF, expected.change_VRF)
    assert torch.equal(found.energy_RF, expected.energy_RF)


def test_two_evaluations_of_each_sample_are_two_measurements():
    model, structure, x = convnet()
    off = random_masks(structure, len(x), variants=2)
    both = measure(model.eval(), structure, sampled(0, 1, off=off), x)
    for variant in range(2):
        one = measure(model, structure, sampled(0, 1, off=off[variant, None]), x)
        assert torch.equal(both.change_VRF[variant], one.change_VRF[0])
        assert torch.equal(both.energy_RF, one.energy_RF)


def test_fewer_masks_than_samples_share_the_batch_in_equal_parts():
    model, structure, _ = mlp()
    x = torch.randn(6, 6)
    off = random_masks(structure, 3)
    parts = measure(model, structure, sampled(0, 1, off=off), x)
    every = measure(model, structure, sampled(0, 1, off=off.repeat_interleave(2, dim=1)), x)
    assert_close(parts.change_VRF, every.change_VRF.unflatten(1, (3, 2)).sum(dim=2))
    assert_close(parts.energy_RF, every.energy_RF.unflatten(0, (3, 2)).sum(dim=1))


def test_masks_beyond_the_samples_stay_unmeasured():
    model, structure, _ = mlp()
    damage = measure(model, structure, sampled(0, off=random_masks(structure, 5)), torch.ones(3, 6))
    assert (damage.energy_RF[:, 0] > 0).tolist() == [True] * 3 + [False] * 2
    assert not damage.energy_RF[:, 1].any()


def ends() -> list[tuple[str, nn.Module, tuple[int, ...], int]]:
    """Networks one family of which ends without an activation."""
    torch.manual_seed(7)
    return [
        ("linear", nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), (4, 5), 0),
        (
            "tokens",
            nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 3, bias=False)),
            (4, 3, 5),
            0,
        ),
        (
            "strides",
            nn.Sequential(
                nn.Conv2d(2, 5, 3),
                nn.ReLU(),
                nn.Conv2d(5, 4, 3, stride=2, padding=1, dilation=2),
                nn.BatchNorm2d(4),
                nn.Flatten(),
                nn.Linear(36, 2),
            ),
            (4, 2, 9, 9),
            0,
        ),
        (
            "one dimension",
            nn.Sequential(
                nn.Conv1d(2, 5, 3), nn.ReLU(), nn.Conv1d(5, 4, 3, padding="same"), nn.Flatten(1)
            ),
            (4, 2, 9),
            0,
        ),
        (
            "several positions",
            nn.Sequential(
                nn.Conv2d(2, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(20, 3)
            ),
            (4, 2, 6, 6),
            0,
        ),
    ]


@pytest.mark.parametrize(("model", "shape", "family"), [e[1:] for e in ends()], ids=lambda v: "")
def test_inner_products_say_what_every_set_changes(model, shape, family):
    model, structure, x = traced(model, *shape)
    # One mask for the whole batch: its change is the whole sum.
    off = random_masks(structure, 1, variants=6)
    masks = measure(model, structure, sampled(family, off=off), x)
    assert family in masks.quadratic
    exact = measure(model, structure, Ablation(off_VRU=off, exact=frozenset({family})), x)
    start, stop = structure.offsets[family : family + 2]
    rows = off[:, 0, start:stop].double()
    found = torch.einsum("ri,ij,rj->r", rows, exact.grams[family], rows)
    assert_close(found, masks.change_VRF[:, 0, family], rtol=1e-6, atol=1e-9)
    assert_close(exact.gram_energy[family], masks.energy_RF[0, family])
    results = (masks.change_VRF, masks.energy_RF, exact.grams[family], exact.gram_energy[family])
    assert not any(result.requires_grad for result in results)


def test_there_are_no_inner_products_behind_an_activation():
    model, structure, x = convnet()
    off = random_masks(structure, 2)
    assert measure(model, structure, sampled(0, 1, off=off), x).quadratic == {1}
    asked = measure(model, structure, Ablation(off_VRU=off, exact=frozenset({0})), x)
    assert not asked.grams[0].any()
    assert not asked.gram_energy[0].any()


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(2, 4), nn.LayerNorm([4, 4, 4])], ids=["group", "layer"]
)
def test_other_norms_keep_their_statistics_too(norm):
    torch.manual_seed(2)
    first, second = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 4, 3)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    model, structure, x = traced(nn.Sequential(first, nn.ReLU(), second, norm), 3, 2, 8, 8)
    off = random_masks(structure, 3)
    inner = torch.relu(first(x))
    base = second(inner)
    ablated = second(inner * (~off[0, :, :5])[:, :, None, None])
    axes = (2, 3, 4) if isinstance(norm, nn.GroupNorm) else (1, 2, 3)
    seen = base.unflatten(1, (2, 2)) if isinstance(norm, nn.GroupNorm) else base
    scale = (seen.var(dim=axes, correction=0, keepdim=True) + norm.eps).rsqrt()
    scale = scale.expand_as(seen).reshape(base.shape)
    weight = norm.weight.view(1, 4, 1, 1) if isinstance(norm, nn.GroupNorm) else norm.weight
    damage = measure(model, structure, sampled(0, off=off), x)
    change = total((base - ablated) * scale * weight).detach()
    same_damage(damage, 0, change, total(norm(base)).detach())


def test_grouped_and_transposed_convolutions_are_consumers_like_others():
    torch.manual_seed(3)
    grouped = nn.Conv2d(8, 6, 3, groups=2)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), grouped, nn.ReLU())
    model.append(nn.ConvTranspose2d(6, 3, 3))
    model, structure, x = traced(model, 4, 2, 9, 9)
    assert [family.name for family in structure.families] == ["0", "2"]
    everything = frozenset({0, 1})
    off = random_masks(structure, 4)
    damage = measure(model, structure, Ablation(off_VRU=off, sampled=everything), x)
    for family, (start, stop) in enumerate(
        zip(structure.offsets, structure.offsets[1:], strict=False)
    ):
        # The same, one sample at a time, by surgery on a copy.
        for sample in range(4):
            gone = off[0, sample, start:stop].nonzero().flatten()
            if len(gone) == stop - start:
                continue
            expected = _by_surgery(model, structure, family, gone, x[sample, None])
            assert_close(damage.change_VRF[0, sample, family], expected)


def _by_surgery(model, structure, family, gone, x) -> torch.Tensor:
    import copy

    small = copy.deepcopy(model)
    cut_(small, structure, structure.everything(), Decision(units={family: gone}))
    # Up to the consumer's activation, which is the last module but those behind it.
    consumer = 2 if structure.families[family].name == "0" else 4
    end = consumer + 2 if consumer == 2 else consumer + 1
    return (model[:end](x) - small[:end](x)).square().sum().detach()


def test_a_family_is_not_judged_if_one_of_its_consumers_is_not_seen():
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.aside = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = torch.relu(self.up(x))
            return self.down(hidden) + torch.einsum("bi,oi->bo", hidden, self.aside.weight)

    model, structure, x = traced(Hidden(), 5, 4)
    assert any(m.tensor == "aside.weight" and m.consumes for m in structure.families[0].members)
    damage = measure(model, structure, sampled(0, off=random_masks(structure, 5)), x)
    assert not damage.energy_RF.any()


def test_an_output_that_is_zero_cannot_be_damaged():
    model, structure, x = mlp()
    with torch.no_grad():
        model[2].bias.fill_(-1e3)
    damage = measure(model, structure, sampled(0, off=random_masks(structure, len(x))), x)
    assert bool((damage.energy_RF[:, 0] > 0).all())
    assert not damage.change_VRF[..., 0].any()


def test_units_with_zero_outgoing_weights_do_no_damage_to_the_last_bit():
    model, structure, x = convnet()
    with torch.no_grad():
        model.conv2.weight[:, :2] = 0
    off = torch.zeros(1, len(x), structure.num_units, dtype=torch.bool)
    off[..., :2] = True
    damage = measure(model, structure, sampled(0, off=off), x)
    assert not damage.change_VRF.any()


def test_after_a_removal_masks_keep_the_numbers_of_the_traced_model():
    built: Built = convnet()
    model, structure, x = built
    model = model.double().eval()
    x = x.double()
    off = random_masks(structure, len(x))
    gone = torch.tensor([1, 2])
    with torch.no_grad():
        model.conv2.weight[:, gone] = 0
    expected = measure(model, structure, sampled(0, 1, off=off), x)
    live, _ = cut_(model, structure, structure.everything(), Decision(units={0: gone}), proof=False)
    meter = DamageMeter(model, structure, live)
    found = meter.measure(sampled(0, 1, off=off), lambda: model(x), len(x))
    assert_close(found.change_VRF, expected.change_VRF)
