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


def noise_levels(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One of the 256 levels k / 255 for every value, of the images' shape and dtype.

    Eight levels from each 64 random bits: several times as fast as drawing them one by one.
    """
    words = torch.empty(-(-images.numel() // 8), dtype=torch.int64, device=images.device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.uint8)[: images.numel()].view(images.shape).to(images.dtype).div_(255)


def dirichlet(images: torch.Tensor, alpha: float, count: int, generator: torch.Generator) -> torch.Tensor:
    """Shares that sum to 1, drawn from the symmetric Dirichlet(alpha) for each sample, float32 [count, N].

    Independent gamma variables of shape alpha over their sum, each as Gamma(alpha + 1) x U^(1/alpha) and kept as a
    logarithm: for a small alpha the gammas themselves underflow to 0 / 0.
    """
    shape = torch.full((count, len(images)), alpha + 1, device=images.device, dtype=torch.float32)
    # What torch.distributions draws gammas with; there the generator can't be named.
    gamma = torch._standard_gamma(shape, generator=generator)  # noqa: SLF001
    uniforms = 1 - torch.rand(shape.shape, generator=generator, device=images.device, dtype=torch.float32)
    return torch.softmax(gamma.log() + uniforms.log() / alpha, 0)


def beta(images: torch.Tensor, alpha: float, generator: torch.Generator) -> torch.Tensor:
    """A draw from Beta(alpha, alpha) for each sample, float32 [N]: the first share of two."""
    return dirichlet(images, alpha, 2, generator)[0]


def per_sample(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Values [N] as [N, 1, 1, 1] in the images' dtype."""
    return values.to(images.dtype).view(-1, 1, 1, 1)


def select(chosen: torch.Tensor, yes: torch.Tensor, no: torch.Tensor) -> torch.Tensor:
    """``torch.where`` of finite values, several times as fast on a CPU: a blend at exactly 1 or 0.

    Args:
        chosen: bool, [N], or of any shape that broadcasts with the values.
        yes: where chosen, [N, C, H, W].
        no: elsewhere, likewise.
    """
    weights = chosen.to(no.dtype)
    return torch.lerp(no, yes, weights.view(-1, 1, 1, 1) if chosen.ndim == 1 else weights)
