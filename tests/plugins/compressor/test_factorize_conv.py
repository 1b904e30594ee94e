"""Tucker-2 and CP factorization of convolutions, against numpy, tensorly and closed formulas."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnbench.errors import NoEffect
from cnnbench_plugins.compressor.cp import Cp, cp_als, cp_rank, factorize_cp
from cnnbench_plugins.compressor.prune_filters import PruneFilters
from cnnbench_plugins.compressor.tucker2 import Tucker2, factorize_tucker2, hosvd2

OPTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 5), "padding": (1, 2), "stride": (2, 1), "bias": False},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": (2, 3), "padding": (1, 2), "dilation": (2, 1), "stride": 2, "padding_mode": "circular"},
]


def params(module):
    return sum(p.numel() for p in module.parameters())


def flops(model, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() // 2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def rebuilt(factors):
    return torch.einsum("nr,cr,hr,wr->nchw", *factors)


def kruskal(shape, rank, seed=0):
    return rebuilt([normal(size, rank, seed=seed * 10 + mode) for mode, size in enumerate(shape)])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("of", ["rank", "energy"])
def test_tucker2_is_exact_at_full_rank(options, of):
    layer = nn.Conv2d(4, 6, **options)
    x = torch.randn(2, 4, 11, 9)
    torch.testing.assert_close(factorize_tucker2(layer, 1.0, of)(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_cp_is_exact_where_the_rank_covers_all_modes_but_the_largest(options):
    # At that rank itself the drawn terms span the space just so; at twice the rank none of 100 draws was off by 1e-9.
    layer = nn.Conv2d(3, 4, **options)
    sizes = sorted(layer.weight.shape)
    x = torch.randn(2, 3, 11, 9)
    exact = factorize_cp(layer, 2 * int(np.prod(sizes[:-1])), generator())
    torch.testing.assert_close(exact(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("outputs", "inputs", "kernel"), [(6, 5, (3, 3)), (4, 9, (3, 2)), (20, 1, (3, 3))])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_tucker2_keeps_the_energy_of_both_unfoldings_and_its_error_obeys_the_bounds(outputs, inputs, kernel, share):
    weight = normal(outputs, inputs, *kernel)
    u, core, v = hosvd2(weight, share, "energy")
    lost = []
    for mode, basis in ((0, u), (1, v)):
        singular = np.linalg.svd(weight.movedim(mode, 0).flatten(1).numpy(), compute_uv=False) ** 2
        rank = basis.shape[1]
        assert singular[:rank].sum() >= share * singular.sum() * (1 - 1e-9)
        assert rank == 1 or singular[: rank - 1].sum() < share * singular.sum()
        torch.testing.assert_close(basis.T @ basis, torch.eye(rank, dtype=torch.float64))
        lost.append(singular[rank:].sum())
    error = float(torch.sum((weight - torch.einsum("srhw,ns,cr->nchw", core, u, v)) ** 2))
    assert max(lost) - 1e-9 <= error <= sum(lost) + 1e-9  # De Lathauwer et al. 2000, property 10


def test_tucker2_agrees_with_tensorly():
    tensorly = pytest.importorskip("tensorly")
    from tensorly.decomposition import partial_tucker

    weight = normal(8, 6, 3, 3)
    u, core, v = hosvd2(weight, 0.5, "rank")
    # Without iterations after the start, tensorly's is the plain truncated higher-order SVD.
    (other, bases), _ = partial_tucker(weight.numpy(), rank=[4, 3], modes=[0, 1], n_iter_max=0, init="svd")
    theirs = tensorly.tenalg.multi_mode_dot(other, bases, modes=[0, 1])
    ours = torch.einsum("srhw,ns,cr->nchw", core, u, v)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-9)


@pytest.mark.parametrize(("shape", "rank"), [((6, 5, 3, 3), 1), ((6, 5, 3, 3), 3), ((9, 7, 3, 2), 4)])
def test_cp_finds_a_tensor_of_low_rank(shape, rank):
    # Generic factors, whose decomposition is unique; a start in a swamp may need several tries, as for anyone.
    tensor = kruskal(shape, rank)
    errors = [
        float((tensor - rebuilt(cp_als(tensor, rank, generator(seed), 500, 1e-14))).norm() / tensor.norm())
        for seed in range(3)
    ]
    assert min(errors) < 1e-5


@pytest.mark.parametrize("rank", [2, 6, 20])
def test_cp_fits_as_well_as_tensorly(rank):
    pytest.importorskip("tensorly")
    from tensorly import cp_to_tensor
    from tensorly.decomposition import parafac

    tensor = normal(8, 6, 3, 3)
    ours = (tensor - rebuilt(cp_als(tensor, rank, generator(), 200, 1e-9))).norm()
    theirs = [
        np.linalg.norm(tensor.numpy() - cp_to_tensor(parafac(tensor.numpy(), rank, 200, "random", random_state=seed)))
        for seed in range(5)
    ]
    # Local optima differ: as good as the best of several starts, within a tenth of the tensor's norm.
    assert ours <= min(theirs) + 0.1 * tensor.norm()


def test_cp_fits_better_sweep_by_sweep_and_rank_by_rank_and_spreads_norms():
    tensor = normal(8, 6, 3, 3)
    by_sweep = [float((tensor - rebuilt(cp_als(tensor, 6, generator(), n, 0))).norm()) for n in (1, 2, 4, 8, 16)]
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(by_sweep))
    assert by_sweep[-1] < by_sweep[0]
    factors = cp_als(tensor, 6, generator())
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    torch.testing.assert_close(norms, norms[:1].expand_as(norms))


def test_cp_draws_from_its_generator_alone():
    tensor, state = normal(4, 4, 3, 3), torch.get_rng_state()
    first, again, other = (cp_als(tensor, 6, generator(seed))[2] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_a_tensor_of_zeros_stays_one():
    layer = nn.Conv2d(4, 4, 3)
    nn.init.zeros_(layer.weight)
    x = torch.randn(1, 4, 5, 5)
    for factors in (factorize_tucker2(layer, 0.8, "energy"), factorize_cp(layer, 3, generator())):
        torch.testing.assert_close(factors(x), layer(x))


def test_parameters_and_multiply_adds_follow_the_closed_formulas():
    n, c, k, size, stride = 12, 10, 3, 9, 2
    layer = nn.Conv2d(c, n, k, stride=stride, padding=1)
    x = torch.randn(1, c, size, size)
    out = -(-size // stride)
    tucker = factorize_tucker2(layer, 0.5, "rank")
    r, s = c // 2, n // 2
    assert params(tucker) == c * r + r * s * k * k + s * n + n
    assert flops(tucker, x) == c * r * size**2 + (r * s * k * k + s * n) * out**2
    cp = factorize_cp(layer, 7, generator())
    assert params(cp) == 7 * (n + c + k + k) + n
    assert flops(cp, x) == 7 * (c * size**2 + k * out * size + (k + n) * out**2)
    assert flops(layer, x) == n * c * k * k * out**2


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.9])
def test_cp_keeps_no_more_than_its_share(share):
    layer = nn.Conv2d(24, 40, 3)
    rank = cp_rank(layer, share)
    assert rank >= 1
    assert rank == 1 or rank * (24 + 40 + 6) <= share * 24 * 40 * 9 < (rank + 1) * (24 + 40 + 6)


@pytest.mark.parametrize("technique", [Tucker2(share=0.5, of="rank", epochs=0), Cp(epochs=0)])
def test_only_ungrouped_spatial_kernels_that_shrink_are_replaced(technique, model, context):
    copied = copy.deepcopy(model)
    small = technique(model, context)
    for name, layer in copied.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            now = small.get_submodule(name)
            wide = isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
            assert isinstance(now, nn.Sequential) == (wide and params(now) < params(layer))
    assert params(small) < params(copied)
    assert small(context.calibration(3)).shape == (3, 10)
    with pytest.raises(NoEffect, match="there is no such layer"):
        technique(nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 1), nn.Linear(8, 8)), context)


@pytest.mark.parametrize(
    ("technique", "small"),
    [(Tucker2(share=1.0, epochs=0), nn.Conv2d(4, 4, 3)), (Cp(share=0.9, epochs=0), nn.Conv2d(1, 1, 2))],
)
def test_layers_that_would_grow_are_left_alone(technique, small, context):
    with pytest.raises(NoEffect, match="the rank makes none of 1 layers smaller"):
        technique(nn.Sequential(small), context)


def test_fine_tuned_after_filters_were_removed(model, context):
    pytest.importorskip("torch_pruning")
    halved = PruneFilters(ratio=0.25, epochs=0)(model, context)
    before = params(halved)
    small = Tucker2(share=0.6, of="rank", epochs=1)(halved, context)
    assert params(small) < before
    assert context.trained_epochs == [1]
    assert not any(m.training for m in small.modules())
