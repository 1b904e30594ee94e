"""Random draws, one for each sample of a batch, from the generator given.

Draws are float32 whatever the images' or torch's default dtype, so that a seed means the same transformation in every
precision.
"""

from __future__ import annotations

from cnnbench.lazy import torch


def uniform(images: torch.Tensor, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """A number in [low, high) for each sample, float32 [N]."""
    draws = torch.rand(len(images), generator=generator, device=images.device, dtype=torch.float32)
    return low + (high - low) * draws


def integers(images: torch.Tensor, low: int, high: int, generator: torch.Generator) -> torch.Tensor:
    """An integer in low..high, both included, for each sample, int64 [N]."""
    return torch.randint(low, high + 1, (len(images),), generator=generator, device=images.device)


def beta(images: torch.Tensor, alpha: float, generator: torch.Generator) -> torch.Tensor:
    """A draw from Beta(alpha, alpha) for each sample, float32 [N].

    G1 / (G1 + G2) with independent gamma variables of shape alpha, each as Gamma(alpha + 1) x U^(1/alpha) and kept as
    a logarithm: for a small alpha the gammas themselves underflow to 0 / 0.
    """
    shape = torch.full((2, len(images)), alpha + 1, device=images.device, dtype=torch.float32)
    # What torch.distributions draws gammas with; there the generator can't be named.
    gamma = torch._standard_gamma(shape, generator=generator)  # noqa: SLF001
    uniforms = 1 - torch.rand(shape.shape, generator=generator, device=images.device, dtype=torch.float32)
    logs = gamma.log() + uniforms.log() / alpha
    return torch.sigmoid(logs[0] - logs[1])


def per_sample(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Values [N] as [N, 1, 1, 1] in the images' dtype."""
    return values.to(images.dtype).view(-1, 1, 1, 1)
