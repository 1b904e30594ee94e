"""Surgery reaches every module that it should, none that it should not, and says what it can't reach."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.surgery import (
    TARGETS,
    SurgeryReport,
    apply_surgery,
    fold_for_inference,
    materialize,
    replace_modules,
)
from cnnbench.technique import technique


@technique("activation", "swish")
class Swish:
    """SiLU."""

    def __call__(self, module: nn.Module) -> nn.Module:
        return nn.SiLU()


@technique("activation", "idle")
class Idle:
    """Leaves everything alone."""

    def __call__(self, module: nn.Module) -> nn.Module:
        return module


@technique("norm", "identity")
class NormToIdentity:
    """No norm."""

    def __call__(self, module: nn.Module) -> nn.Module:
        return nn.Identity()


@technique("norm", "picky")
class Picky:
    """Refuses."""

    def __call__(self, module: nn.Module) -> nn.Module:
        raise Unsupported("7 channels")


def kinds_in(model: nn.Module) -> set[str]:
    return {type(module).__name__ for module in model.modules()}


def is_relu(module: nn.Module) -> bool:
    return isinstance(module, nn.ReLU)


class TestReplaceModules:
    def test_nested_containers(self):
        model = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.ModuleDict({"a": nn.ModuleList([nn.ReLU(), nn.Sequential(nn.ReLU())])}), nn.ReLU()
        )
        assert replace_modules(model, is_relu, lambda _: nn.Tanh()) == 3
        assert not any(map(is_relu, model.modules()))
        assert isinstance(model[0], nn.Conv2d)

    def test_shared_module_has_one_shared_replacement(self):
        relu = nn.ReLU()
        model = nn.Sequential(relu, nn.Linear(2, 2), relu, nn.Sequential(relu))
        assert replace_modules(model, is_relu, lambda _: nn.PReLU()) == 1
        assert model[0] is model[2] is model[3][0]
        assert sum(p.numel() for p in model[0].parameters()) == 1

    def test_shared_parent(self):
        block = nn.Sequential(nn.ReLU())
        model = nn.Sequential(block, block)
        assert replace_modules(model, is_relu, lambda _: nn.Tanh()) == 1
        assert model[0] is model[1]
        assert isinstance(block[0], nn.Tanh)

    def test_same_object_is_left_alone_and_not_counted(self):
        model = nn.Sequential(nn.ReLU(), nn.ReLU())
        first = model[0]
        assert replace_modules(model, is_relu, lambda m: m if m is first else nn.Tanh()) == 1
        assert model[0] is first

    def test_replacement_may_wrap_the_original(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        linear = model[0]
        count = replace_modules(model, lambda m: isinstance(m, nn.Linear), lambda m: nn.Sequential(m, nn.Dropout()))
        assert count == 1
        assert model[0][0] is linear

    def test_children_of_a_replaced_module_are_not_searched(self):
        model = nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU())
        inner = model[0]
        assert replace_modules(model, lambda m: m is inner or is_relu(m), lambda _: nn.Tanh()) == 2
        assert isinstance(model[0], nn.Tanh)

    @pytest.mark.parametrize("training", [True, False])
    def test_takes_over_mode_device_and_dtype(self, training):
        model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)).to("meta", torch.float64)
        model[1].train(training)
        replace_modules(model, is_relu, lambda _: nn.PReLU())
        assert model[1].training is training
        assert (model[1].weight.dtype, model[1].weight.device.type) == (torch.float64, "meta")

    def test_dtype_is_that_of_the_module_replaced_rather_than_of_the_model(self):
        model = nn.Sequential(nn.Conv2d(1, 2, 1).half(), nn.BatchNorm2d(2))
        replace_modules(model, lambda m: isinstance(m, nn.BatchNorm2d), lambda _: nn.GroupNorm(1, 2).double())
        assert model[1].weight.dtype == torch.float32

    def test_names_and_order_stay(self):
        model = torchvision.models.resnet18(weights=None)
        names = [name for name, _ in model.named_modules()]
        replace_modules(model, is_relu, lambda _: nn.SiLU())
        assert [name for name, _ in model.named_modules()] == names

    def test_the_model_itself_has_no_place_for_a_replacement(self):
        with pytest.raises(Unsupported, match="the model is itself a ReLU"):
            replace_modules(nn.ReLU(), is_relu, lambda _: nn.Tanh())

    @given(st.recursive(st.booleans(), lambda inner: st.lists(inner, max_size=4), max_leaves=25))
    @settings(deadline=None, max_examples=60)
    def test_counts_every_match_in_any_tree(self, tree):
        def build(node):
            if isinstance(node, bool):
                return nn.ReLU() if node else nn.Identity()
            return nn.Sequential(*map(build, node))

        model = nn.Sequential(build(tree))
        expected = sum(map(is_relu, model.modules()))
        assert replace_modules(model, is_relu, lambda _: nn.Tanh()) == expected
        assert sum(isinstance(m, nn.Tanh) for m in model.modules()) == expected
        assert not any(map(is_relu, model.modules()))


class TestActivation:
    @pytest.mark.parametrize("kind", TARGETS["activation"], ids=lambda kind: kind.__name__)
    def test_every_activation_of_torch_is_swapped(self, kind):
        old = nn.Threshold(0.1, 0) if kind is nn.Threshold else kind()
        model = nn.Sequential(nn.Conv2d(1, 2, 1), old)
        assert apply_surgery("activation", Swish(), model) == SurgeryReport(1)
        assert isinstance(model[1], nn.SiLU)

    def test_no_activation_of_torch_is_forgotten(self):
        """Whatever torch lists as an activation is a target or known not to be one."""
        listed = set(torch.nn.modules.activation.__all__)
        outputs = {"Softmax", "Softmax2d", "LogSoftmax", "Softmin", "LogSigmoid"}
        assert listed - {kind.__name__ for kind in TARGETS["activation"]} == outputs | {"GLU", "MultiheadAttention"}

    def test_outputs_and_norms_stay(self):
        model = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(2), nn.Softmax(1), nn.LogSoftmax(1), nn.LogSigmoid(), nn.GLU(1))
        others = list(model[1:])
        assert apply_surgery("activation", Swish(), model).swapped == 1
        assert list(model[1:]) == others

    def test_gates_of_torchvision_stay(self):
        model = torchvision.models.mobilenet_v3_small(weights=None)
        gates = sum(isinstance(m, nn.Hardsigmoid) for m in model.modules())
        assert gates > 0
        apply_surgery("activation", Swish(), model)
        assert sum(isinstance(m, nn.Hardsigmoid) for m in model.modules()) == gates
        assert not kinds_in(model) & {"ReLU", "Hardswish"}

    def test_gate_in_a_sequential_behind_a_reshape_stays(self):
        class SqueezeExcite(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Sigmoid())

            def forward(self, x):
                b, c = x.shape[0], x.shape[1]
                return x * self.fc(x.mean((2, 3))).view(b, c, 1, 1).expand_as(x)

        class Untraceable(nn.Module):
            def __init__(self):
                super().__init__()
                self.se = SqueezeExcite()
                self.out = nn.Sigmoid()

            def forward(self, x):
                return self.out(self.se(x)) if x.sum() > 0 else x

        for model in (nn.Sequential(SqueezeExcite(), nn.Sigmoid()), Untraceable()):
            assert apply_surgery("activation", Swish(), model).swapped == 2, "the ReLU and the last Sigmoid"
            assert sum(isinstance(m, nn.Sigmoid) for m in model.modules()) == 1

    def test_works_behind_in_place_dropout(self):
        """ReLU's gradient survives a change of its output, sigmoid's does not."""

        @technique("activation", "sigmoid_here")
        class Sigmoid:
            """Sigmoid."""

            def __call__(self, module: nn.Module) -> nn.Module:
                return nn.Sigmoid()

        model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True))
        apply_surgery("activation", Sigmoid(), model)
        model(torch.randn(2, 3)).sum().backward()

    def test_same_kind_is_still_a_swap(self):
        @technique("activation", "relu_again")
        class Again:
            """ReLU."""

            def __call__(self, module: nn.Module) -> nn.Module:
                return nn.ReLU()

        model = nn.Sequential(nn.ReLU(inplace=True))
        assert apply_surgery("activation", Again(), model).swapped == 1
        assert not model[0].inplace


class TestNorm:
    @pytest.mark.parametrize(
        "norm",
        [
            nn.BatchNorm2d(6),
            nn.SyncBatchNorm(6),
            nn.InstanceNorm2d(6),
            nn.GroupNorm(2, 6),
            nn.LayerNorm([6, 4, 4]),
            torchvision.models.convnext.LayerNorm2d(6),
            torchvision.ops.FrozenBatchNorm2d(6),
        ],
        ids=lambda norm: type(norm).__name__,
    )
    def test_every_image_norm_is_swapped(self, norm):
        model = nn.Sequential(nn.Conv2d(1, 6, 1), norm)
        assert apply_surgery("norm", NormToIdentity(), model) == SurgeryReport(1)
        assert isinstance(model[1], nn.Identity)

    def test_channels_last_layer_norm_stays_and_is_reported(self):
        model = torchvision.models.convnext_tiny(weights=None)
        report = apply_surgery("norm", NormToIdentity(), model)
        assert report.swapped == 5
        assert report.unreached == ("LayerNorm (18 modules, first in features.1.0.block.2)",)

    def test_norm_with_a_built_in_activation_stays_and_is_reported(self):
        class NormAct(nn.BatchNorm2d):
            def __init__(self):
                super().__init__(2)
                self.act = nn.ReLU()

        model = nn.Sequential(NormAct(), nn.BatchNorm2d(2))
        assert apply_surgery("norm", NormToIdentity(), model) == SurgeryReport(1, ("NormAct (1 module, in 0)",))

    def test_identity_does_not_expose_a_skip_to_in_place_changes(self):
        class PreActivation(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm = nn.BatchNorm2d(1)
                self.act = nn.ReLU(inplace=True)

            def forward(self, x):
                return x + self.act(self.norm(x))

        model = PreActivation()
        apply_surgery("norm", NormToIdentity(), model)
        x = torch.tensor([-1.0, 2.0]).view(1, 1, 1, 2)
        assert model(x.clone()).flatten().tolist() == [-1.0, 4.0]

    def test_refusal_names_the_module(self):
        model = nn.Sequential(nn.Sequential(nn.Conv2d(1, 7, 1), nn.BatchNorm2d(7)))
        with pytest.raises(Unsupported, match=r"^0\.1: 7 channels$"):
            apply_surgery("norm", Picky(), model)


class TestOtherSlots:
    def test_pooling_and_convolution(self):
        @technique("pooling", "to_avg")
        class ToAverage:
            """Average in place of max."""

            def __call__(self, module: nn.Module) -> nn.Module:
                return nn.AvgPool2d(module.kernel_size) if isinstance(module, nn.MaxPool2d) else module

        @technique("convolution", "twice")
        class Twice:
            """Two in place of one."""

            def __call__(self, module: nn.Module) -> nn.Module:
                return nn.Sequential(module, copy.deepcopy(module))

        model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ConvTranspose2d(2, 2, 1), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
        assert apply_surgery("pooling", ToAverage(), model).swapped == 1
        assert apply_surgery("convolution", Twice(), model).swapped == 1
        assert [type(m).__name__ for m in model] == ["Sequential", "ConvTranspose2d", "AvgPool2d", "AdaptiveAvgPool2d"]


@technique("pooling", "to_max")
class ToMax:
    """Maximum over everything."""

    def __call__(self, module: nn.Module) -> nn.Module:
        return nn.AdaptiveMaxPool2d(1) if isinstance(module, nn.AdaptiveAvgPool2d) else module


class ChannelAttention(nn.Module):
    """CBAM's channel gate: two pools share their layers, and their sum is the gate."""

    def __init__(self):
        super().__init__()
        self.avg, self.max = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.layers = nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 1))

    def forward(self, x):
        return x * torch.sigmoid(self.layers(self.avg(x)) + self.layers(self.max(x)))


class TestSqueezes:
    """The pool that a gate begins with says how strong a channel is; it is no pooling of features."""

    def test_squeeze_and_excitation_stays(self):
        model = torchvision.models.efficientnet_b0(weights=None)
        assert apply_surgery("pooling", ToMax(), model).swapped == 1
        assert isinstance(model.avgpool, nn.AdaptiveMaxPool2d)
        assert sum(isinstance(m, nn.AdaptiveAvgPool2d) for m in model.modules()) == 16

    def test_gate_with_functional_sigmoid_and_sum_stays(self):
        model = nn.Sequential(ChannelAttention(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        assert apply_surgery("pooling", ToMax(), model).swapped == 1
        assert isinstance(model[0].avg, nn.AdaptiveAvgPool2d)

    def test_nothing_but_gates_is_no_effect(self):
        with pytest.raises(NoEffect):
            apply_surgery("pooling", ToMax(), nn.Sequential(ChannelAttention(), nn.Conv2d(4, 2, 1)))


class TestFinish:
    @technique("pooling", "halved")
    class Halved:
        """Global maximum beside the average, so that the layer behind must grow."""

        def __call__(self, module: nn.Module) -> nn.Module:
            return module if isinstance(module, nn.MaxPool2d) else nn.AdaptiveAvgPool2d((1, 2))

        def finish(self, model: nn.Module) -> list[str]:
            assert model[0].output_size == (1, 2), "called before the modules are in place"
            replace_modules(model, lambda m: isinstance(m, nn.Linear), lambda m: nn.LazyLinear(m.out_features))
            return ["one thing"]

    def test_is_called_once_and_reports_what_it_can_not_reach(self):
        class Pooling(nn.Sequential):
            def forward(self, x):
                return super().forward(F.avg_pool2d(x, 2))

        model = Pooling(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        report = apply_surgery("pooling", self.Halved(), model)
        assert report == SurgeryReport(1, ("F.avg_pool2d (1 call, in the model itself)", "one thing"))
        materialize(model, (3, 8, 8))
        assert model[2].in_features == 6

    def test_is_not_called_where_nothing_was_swapped(self):
        with pytest.raises(NoEffect, match="'halved'"):
            apply_surgery("pooling", self.Halved(), nn.Sequential(nn.MaxPool2d(2), nn.Linear(3, 2)))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(F.relu(self.act(x))), 2)
        x = self.pool(x).relu_()
        x = x * torch.sigmoid(x.mean())
        return x * x.sigmoid()


class TestUnreached:
    def test_functions_and_methods(self):
        report = apply_surgery("activation", Swish(), nn.Sequential(Functional(), nn.Sequential(Functional())))
        assert report.swapped == 2
        assert report.unreached == (
            "F.relu (2 calls, first in 0)",
            "torch.relu (2 calls, first in 0)",
            "Tensor.relu_ (2 calls, first in 0)",
            "Tensor.sigmoid (2 calls, first in 0)",  # x * sigmoid(x) is SiLU; the other sigmoid is a gate
        )

    def test_in_place_call_whose_result_is_not_used(self):
        class Statement(nn.Module):
            def forward(self, x):
                x.sigmoid_()
                return x

        report = apply_surgery("activation", Swish(), nn.Sequential(nn.ReLU(), Statement()))
        assert report.unreached == ("Tensor.sigmoid_ (1 call, in 1)",)

    def test_pooling(self):
        @technique("pooling", "any_pool")
        class Pool:
            """Average pool."""

            def __call__(self, module: nn.Module) -> nn.Module:
                return nn.AvgPool2d(2)

        assert apply_surgery("pooling", Pool(), Functional()).unreached == (
            "F.max_pool2d (1 call, in the model itself)",
        )

    def test_calls_of_pools_that_the_technique_does_not_mean_are_not_missed(self):
        @technique("pooling", "global_pool")
        class GlobalPool:
            """Maximum over the whole map."""

            def __call__(self, module: nn.Module) -> nn.Module:
                return nn.AdaptiveMaxPool2d(1) if isinstance(module, nn.AdaptiveAvgPool2d) else module

        model = nn.Sequential(nn.AdaptiveAvgPool2d(2), Functional())
        assert apply_surgery("pooling", GlobalPool(), model).unreached == ()

    def test_inception_is_functional_throughout(self):
        model = torchvision.models.inception_v3(weights=None, init_weights=False)
        with pytest.raises(NoEffect, match=r"^activation 'swish' replaced no module.*F\.relu \(\d+ calls, first in"):
            apply_surgery("activation", Swish(), model)

    def test_densenet_has_one_functional_relu_at_its_end(self):
        report = apply_surgery("activation", Swish(), torchvision.models.densenet121(weights=None))
        assert report.unreached == ("F.relu (1 call, in the model itself)",)

    def test_no_effect_without_any_such_operation(self):
        with pytest.raises(NoEffect, match=r"^activation 'swish' replaced no .*has no activation module to change$"):
            apply_surgery("activation", Swish(), nn.Sequential(nn.Linear(1, 1)))

    def test_leaving_everything_alone_is_no_effect(self):
        with pytest.raises(NoEffect, match=r"'idle' .* none of whose activation modules it changes$"):
            apply_surgery("activation", Idle(), nn.Sequential(nn.ReLU()))

    def test_model_that_cannot_be_traced_is_searched_by_parts(self):
        class Branches(nn.Module):
            def __init__(self):
                super().__init__()
                self.part = Functional()
                self.act = nn.ReLU()

            def forward(self, x):
                return self.part(x) if x.sum() > 0 else F.relu(self.act(x))

        report = apply_surgery("activation", Swish(), Branches())
        assert report.swapped == 2
        assert "F.relu (1 call, in part)" in report.unreached

    def test_untraceable_through_and_through(self):
        class Branch(nn.Module):
            def __init__(self):
                super().__init__()
                self.act = nn.ReLU()

            def forward(self, x):
                return self.act(x) if x.sum() > 0 else F.relu(x)

        assert apply_surgery("activation", Swish(), Branch()) == SurgeryReport(1)

    def test_tracing_draws_nothing(self):
        class Noisy(nn.Module):
            def __init__(self):
                super().__init__()
                self.act = nn.ReLU()

            def forward(self, x):
                return self.act(x) + torch.rand(1)

        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        apply_surgery("activation", Swish(), Noisy())
        assert torch.equal(torch.rand(3), expected)


class Scaled(nn.Module):
    """Computes its weight anew in each call."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size, size))

    def forward(self, x):
        return F.linear(x, 2 * self.weight)

    def folded(self):
        plain = nn.Linear(*self.weight.shape, bias=False)
        plain.weight.data = 2 * self.weight.detach()
        return plain


class TestFoldForInference:
    def test_every_module_that_folds_does(self):
        shared = Scaled(3)
        model = nn.Sequential(shared, nn.Sequential(Scaled(3), nn.Linear(3, 3)), shared).double().eval()
        x = torch.rand(5, 3, dtype=torch.float64)
        before = model(x)
        fold_for_inference(model)
        assert {type(m) for m in model.modules()} == {nn.Sequential, nn.Linear}
        assert model[0] is model[2]
        assert not model[0].training
        torch.testing.assert_close(model(x), before)

    def test_others_stay(self):
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        modules = list(model.modules())
        fold_for_inference(model)
        assert all(a is b for a, b in zip(model.modules(), modules, strict=True))


class Counting(nn.Module):
    """Counts its calls in a buffer, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return x


def lazy_model():
    return nn.Sequential(nn.LazyConv2d(4, 3), Counting(), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))


class TestMaterialize:
    def test_lazy_modules_become_plain_ones(self):
        model = lazy_model()
        materialize(model, (3, 5, 6))
        assert [type(m) for m in model] == [nn.Conv2d, Counting, nn.BatchNorm2d, nn.Flatten, nn.Linear]
        assert model[0].weight.shape == (4, 3, 3, 3)
        assert model[4].weight.shape == (2, 4 * 3 * 4)
        assert not any(isinstance(m, LazyModuleMixin) for m in copy.deepcopy(model).modules())
        model(torch.rand(7, 3, 5, 6)).sum().backward()

    def test_modes_and_buffers_stay(self):
        model = lazy_model()
        model[2].eval()
        materialize(model, (3, 5, 6))
        assert [m.training for m in model] == [True, True, False, True, True]
        assert model.training
        assert model[1].calls.item() == 0
        assert model[2].num_batches_tracked.item() == 0
        assert model[2].running_mean.tolist() == [0] * 4

    def test_weights_come_from_the_default_generator(self):
        states = []
        for _ in range(2):
            torch.manual_seed(5)
            model = lazy_model()
            materialize(model, (3, 5, 6))
            states.append(model.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))

    def test_without_lazy_modules_nothing_happens(self):
        class Never(nn.Module):
            def forward(self, x):
                raise AssertionError

        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        materialize(Never(), (3, 5, 6))
        assert torch.equal(torch.rand(3), expected)

    def test_dtype_is_the_models_own(self):
        model = lazy_model().double()
        materialize(model, (3, 5, 6))
        assert {p.dtype for p in model.parameters()} == {torch.float64}

    def test_images_that_do_not_fit_are_unsupported(self):
        model = lazy_model()
        with pytest.raises(
            Unsupported, match=r"^the model does not run on 3x2x2 images after the surgery: .*[Kk]ernel"
        ):
            materialize(model, (3, 2, 2))
        assert model.training

    def test_module_that_the_forward_pass_leaves_out(self):
        class Auxiliary(nn.Module):
            def __init__(self):
                super().__init__()
                self.head, self.aux = nn.LazyLinear(2), nn.ModuleList([nn.LazyLinear(2)])

            def forward(self, x):
                return self.head(x) + self.aux[0](x) if self.training else self.head(x)

        with pytest.raises(Unsupported, match=r"^aux\.0: the forward pass never calls this module"):
            materialize(Auxiliary(), (3, 2, 2))

    def test_surgery_works_around_lazy_modules(self):
        """Neither tracing nor the search for a dtype touches what has no sizes yet."""

        @technique("activation", "lazy")
        class Lazy:
            """A linear layer."""

            def __call__(self, module: nn.Module) -> nn.Module:
                return OwnLazy(2)

        model = nn.Sequential(OwnLazy(2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU())
        assert apply_surgery("activation", Lazy(), model).swapped == 2
        assert apply_surgery("norm", NormToIdentity(), nn.Sequential(model, nn.BatchNorm2d(2))).swapped == 1
        materialize(model, (1, 1, 5))
        assert [type(m) for m in model] == [nn.Linear] * 4
        assert [m.in_features for m in model] == [5, 2, 2, 2]

    def test_functional_calls_beside_lazy_modules_are_found(self):
        class Beside(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer, self.act = OwnLazy(2), nn.ReLU()

            def forward(self, x):
                return F.relu(self.layer(self.act(x)))

        report = apply_surgery("activation", Swish(), Beside())
        assert report.unreached == ("F.relu (1 call, in the model itself)",)


class OwnLazy(nn.LazyLinear):
    """A lazy module from outside torch.nn, which tracing would look into."""

    cls_to_become = nn.Linear
