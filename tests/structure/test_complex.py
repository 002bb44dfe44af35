"""Complex numbers and Fourier transforms."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur import trace, verify


class Complex(nn.Module):
    """A complex linear layer made of two real ones."""

    def __init__(self, inner, outer):
        super().__init__()
        self.real, self.imag = nn.Linear(inner, outer), nn.Linear(inner, outer)

    def forward(self, z):
        real = self.real(z.real) - self.imag(z.imag)
        return torch.complex(real, self.real(z.imag) + self.imag(z.real))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = Complex(3, 6), Complex(6, 2)

    def forward(self, x):
        z = self.first(torch.complex(x, torch.zeros_like(x)))
        return self.last(torch.complex(F.relu(z.real), F.relu(z.imag))).abs()


class Spectral(nn.Module):
    """Multiplies the spectrum over time by a learned filter, for every channel."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)
        self.filter = nn.Parameter(torch.randn(6, 5, 2))

    def forward(self, x):
        x = self.first(x).transpose(1, 2)
        spectrum = torch.fft.rfft(x, dim=-1) * torch.view_as_complex(self.filter)
        return self.last(torch.fft.irfft(spectrum, n=x.shape[-1], dim=-1).transpose(1, 2))


class Mixing(nn.Module):
    """Mixes the channels of a spectrum with complex weights, as neural operators do."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(4, 2)
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 2))

    def forward(self, x):
        spectrum = torch.fft.fft2(self.first(x), dim=(1, 2))[:, :3]
        weight = torch.view_as_complex(self.weight)
        mixed = torch.einsum("bkwi,iok->bkwo", spectrum, weight)
        return self.last(torch.fft.ifft2(mixed, dim=(1, 2)).real)


@pytest.mark.parametrize(
    ("build", "shape", "sizes"),
    [(Network, (4, 3), [6]), (Spectral, (2, 8, 3), [6]), (Mixing, (2, 5, 4, 3), [6, 4])],
)
def test_removal_from_complex_numbers_and_spectra_is_exact(build, shape, sizes):
    x = torch.randn(shape)
    assert [family.num_units for family in trace(build(), x).families] == sizes
    assert verify(build(), x).num_units == sum(sizes) // 2


def test_units_along_a_transform_stay():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.last(torch.fft.fft(self.first(x), dim=-1).real)

    structure = trace(Net(), torch.randn(4, 3))
    assert not structure.families
    assert "is an axis of a Fourier transform" in str(structure.explain("first.weight"))
