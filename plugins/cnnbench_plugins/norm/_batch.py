"""Batch norms that take the batch's statistics otherwise in training; at inference they are batch norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class _FoldingBatchNorm(nn.BatchNorm2d):
    def folded(self) -> nn.BatchNorm2d:
        """The batch norm that this is at inference."""
        plain = nn.BatchNorm2d(self.num_features, eps=self.eps, momentum=self.momentum)
        state = self.state_dict()
        plain.load_state_dict({name: state[name] for name in plain.state_dict()}, assign=True)
        return plain


class GhostBatchNorm(_FoldingBatchNorm):
    """Batch norm over parts of the batch.

    Args:
        channels: C of [N, C, H, W].
        virtual_batch: images a part; where it does not divide N, the nearest number of (nearly) equal parts is taken.
        eps, momentum: as ``nn.BatchNorm2d``; the momentum is of one part.
    """

    def __init__(self, channels: int, virtual_batch: int, eps: float, momentum: float) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.virtual_batch = virtual_batch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape [N, C, H, W] in and out."""
        if not self.training:
            return super().forward(x)
        # Of two images at least: a single one has no statistics where its map is one pixel.
        parts = x.tensor_split(max(1, min(round(len(x) / self.virtual_batch), len(x) // 2)))
        return torch.cat([nn.BatchNorm2d.forward(self, part) for part in parts])


class BatchRenorm(_FoldingBatchNorm):
    """Batch norm corrected, within limits, to what the running statistics would give.

    Args:
        channels: C of [N, C, H, W].
        r_max: most by which the scale is corrected, up or down.
        d_max: most by which the mean is shifted, in standard deviations.
        hold: first steps without any correction.
        r_full: step from which ``r_max`` holds in full.
        d_full: step from which ``d_max`` holds in full.
        eps, momentum: as ``nn.BatchNorm2d``.
    """

    steps: torch.Tensor

    def __init__(
        self,
        channels: int,
        *,
        r_max: float,
        d_max: float,
        hold: int,
        r_full: int,
        d_full: int,
        eps: float,
        momentum: float,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.r_max, self.d_max = r_max, d_max
        self.hold, self.r_full, self.d_full = hold, r_full, d_full
        # Not num_batches_tracked, which starts anew when statistics are recalibrated.
        self.register_buffer("steps", torch.zeros(()))

    def limits(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Limits of r and d at the present step, scalars on the device: reading them does not wait for it."""
        r_share, d_share = (
            1 - ((full - self.steps) / max(1, full - self.hold)).clamp(0, 1) for full in (self.r_full, self.d_full)
        )
        return 1 + (self.r_max - 1) * r_share, self.d_max * d_share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape [N, C, H, W] in and out."""
        # Without a momentum the statistics are being recalibrated: there is nothing yet to correct towards.
        if not self.training or self.momentum is None:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        with torch.no_grad():
            variance, mean = torch.var_mean(x.to(self.running_var.dtype), dim=(0, 2, 3), correction=0)
            of_batch, running = (variance + self.eps).sqrt(), (self.running_var + self.eps).sqrt()
            r_limit, d_limit = self.limits()
            r = (of_batch / running).clamp(1 / r_limit, r_limit)
            d = ((mean - self.running_mean) / running).clamp(-d_limit, d_limit)
            self.running_mean.lerp_(mean, self.momentum)
            # The average is over standard deviations; the buffer keeps their square, as batch norm does.
            self.running_var.copy_(running.lerp_(of_batch, self.momentum).square_().sub_(self.eps))
            self.steps += 1
        return F.batch_norm(x, None, None, self.weight * r, self.weight * d + self.bias, training=True, eps=self.eps)
