"""Batch norm with other statistics in training: corrected towards the running ones, or of parts of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le

from cnnbench.technique import technique
from cnnbench_plugins.norm._replace import channels_of, inherit

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@technique("norm", "batch_renorm")
class BatchRenorm:
    """Batch norm whose training output is corrected towards what inference will compute.

    Ioffe 2017, https://arxiv.org/abs/1702.03275, algorithm 1. For x [N, C, H, W], batch mean m and deviation
    s = sqrt(biased variance + eps) of each channel, running mean M and deviation S:
    r = clip(s / S, 1 / r_max, r_max), d = clip((m - M) / S, -d_max, d_max), both without gradient, and
    y = ((x - m) / s * r + d) * scale[c] + shift[c]; then M += momentum * (m - M) and S += momentum * (s - S). (The
    average is over deviations, not variances.) Inference is (x - M) / S * scale + shift, so that the norm folds into
    the convolution in front as batch norm does; what follows training (compressors' fine-tuning included) sees batch
    norm.

    For ``hold`` steps it is batch norm; then the limits grow linearly, to ``r_max`` at step ``r_full`` and ``d_max`` at
    step ``d_full``. The limits 3 and 5 are the paper's (section 4). Its steps are 5000, 40000 and 25000, of 130000 or
    more; the defaults are a hundredth of these, for runs that are short, and so is the faster momentum (its 0.01 would
    need hundreds of steps to leave the starting values).

    Helps: batches that are small or not drawn evenly, whose statistics are not those of inference.
    Known not to help: large batches, where r is near 1 and d near 0; and normalization by averages lags when weights
    change fast. Batches of 1 or 2 still give it little to go by (group norm has no such limit).
    """

    r_max: Annotated[float, Ge(1)] = 3.0
    d_max: Annotated[float, Ge(0)] = 5.0
    hold: Annotated[int, Ge(0)] = 50
    r_full: Annotated[int, Ge(0)] = 400
    d_full: Annotated[int, Ge(0)] = 250
    momentum: Annotated[float, Gt(0), Le(1)] = 0.1
    eps: Annotated[float, Gt(0)] = 1e-5

    def __post_init__(self) -> None:
        if min(self.r_full, self.d_full) < self.hold:
            raise ValueError(f"r_full and d_full must not come before hold, step {self.hold}")
        if self.r_max == 1 and self.d_max == 0:
            raise ValueError("r_max = 1 with d_max = 0 is batch norm: use norm 'batch'")

    def __call__(self, module: nn.Module) -> nn.Module:
        """Batch renorm of as many channels."""
        from cnnbench_plugins.norm import _batch

        new = _batch.BatchRenorm(
            channels_of(module),
            r_max=self.r_max,
            d_max=self.d_max,
            hold=self.hold,
            r_full=self.r_full,
            d_full=self.d_full,
            eps=self.eps,
            momentum=self.momentum,
        )
        return inherit(new, module)


@technique("norm", "ghost_batch", example={"virtual_batch": 2})
class GhostBatchNorm:
    """Batch norm over small parts of a large batch, each with its own statistics.

    Hoffer et al. 2017, https://arxiv.org/abs/1705.08741, algorithm 1: a batch of N images is cut into parts of
    ``virtual_batch``; each is normalized by its own mean and variance. The running statistics take one part after the
    other, r <- (1 - momentum) * r + momentum * (statistic of the part), so that a batch of k parts weighs the old value
    by (1 - momentum)^k. Where ``virtual_batch`` does not divide N, as in an epoch's last batch, the nearest whole
    number of nearly equal parts is taken: none is tiny, and all count the same. Inference is batch norm's, and what
    follows training (compressors' fine-tuning included) sees batch norm. The paper's parts have 128 images of batches
    of 4096; 16 here suits small-image recipes.

    Helps: large batches, which lose the regularizing noise of small ones.
    Known not to help: batches no larger than ``virtual_batch``, where it is batch norm; parts below about 8 images.

    Attributes:
        eps: added to the variance before its root is taken.
    """

    virtual_batch: Annotated[int, Ge(2)] = 16
    momentum: Annotated[float, Gt(0), Le(1)] = 0.1
    eps: Annotated[float, Gt(0)] = 1e-5

    def __call__(self, module: nn.Module) -> nn.Module:
        """Ghost batch norm of as many channels."""
        from cnnbench_plugins.norm import _batch

        return inherit(_batch.GhostBatchNorm(channels_of(module), self.virtual_batch, self.eps, self.momentum), module)


TECHNIQUES = (BatchRenorm, GhostBatchNorm)
