"""Combinations of techniques that are known to go wrong, by their names alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_DECAYING = ("cosine", "linear", "one_cycle")
_ZEROS = ("prune_magnitude", "prune_random", "prune_gradient", "prune_movement", "prune_n_m", "lottery_ticket")
_FACTORIZED = ("svd", "spatial_svd", "tucker2", "cp")
_SHRINKING = (*_ZEROS, "prune_filters", *_FACTORIZED)
_QUANTIZED = (
    *("quantize_ptq", "quantize_dynamic", "quantize_weights", "quantize_qat", "mixed_precision", "half"),
    *("binary", "ternary", "weight_sharing"),
)
_DISTILLING = ("distill", "fitnet", "attention_transfer", "rkd")


class Arm:
    """Names and options of an arm's techniques.

    Args:
        settings: plain settings.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._techniques = settings["techniques"]
        self.recipe = settings["recipe"]
        self.dataset = settings["dataset"]

    def names(self, slot: str) -> list[str]:
        """The techniques of a slot in order."""
        return [choice["name"] for choice in self._techniques.get(slot, ())]

    def options(self, slot: str, name: str) -> Mapping[str, Any] | None:
        """Options of a technique, None where the arm does not use it."""
        found = [choice["options"] for choice in self._techniques.get(slot, ()) if choice["name"] == name]
        return found[0] if found else None


def advice(settings: Mapping[str, Any]) -> list[str]:
    """Lines about an arm's combination of techniques; each names its source."""
    arm = Arm(settings)
    return [line for rule in _RULES for line in rule(arm)]


def _selu(arm: Arm) -> Iterator[str]:
    """Klambauer et al. 2017: the fixed point holds for LeCun's variance and for alpha dropout alone."""
    if "selu" in arm.names("activation"):
        if not {"lecun_normal", "lsuv"} & {*arm.names("initializer")}:
            yield "selu keeps its activations at unit variance only from initializer lecun_normal (Klambauer 2017)"
        if "dropout" in arm.names("regularizer"):
            yield "dropout moves the mean and variance that selu keeps: use alpha_dropout (Klambauer 2017)"
    elif "alpha_dropout" in arm.names("regularizer"):
        yield "alpha_dropout is made for selu: after other activations its noise is not the one meant (Klambauer 2017)"


def _soft_targets(arm: Arm) -> Iterator[str]:
    """Label smoothing applies to mixed targets as to others, but two softenings add up."""
    mixed = [name for name in arm.names("augmentation") if name in {"mixup", "cutmix"}]
    if len(mixed) > 1:
        yield "mixup and cutmix both mix every batch, one on top of the other"
    if mixed and "label_smoothing" in arm.names("regularizer"):
        yield f"label_smoothing softens targets that {' and '.join(mixed)} made soft already (Thulasidasan 2019)"
    taught = [name for name in arm.names("compressor") if name in _DISTILLING]
    if taught and "label_smoothing" in arm.names("regularizer"):
        yield f"a teacher trained with label_smoothing teaches {taught[0]} less (Müller 2019, section 4)"


def _decay_twice(arm: Arm) -> Iterator[str]:
    shrinking = [name for name in arm.names("regularizer") if name in {"l2", "weight_decay", "elastic_net"}]
    optimizer = arm.recipe["optimizer"]
    if optimizer["options"].get("weight_decay"):
        shrinking.append(f"{optimizer['name']}'s own weight_decay")
    if len(shrinking) > 1:
        yield f"the weights decay more than once: {', '.join(shrinking)}"
    if (arm.options("regularizer", "weight_decay") or {}).get("norms_and_biases"):
        yield "weight_decay takes in norms and biases, which usually costs accuracy (Jia 2018, section 3.2)"


def _early_stopping(arm: Arm) -> Iterator[str]:
    schedule = arm.recipe["schedule"]["name"]
    if "early_stopping" in arm.names("strategy") and schedule in _DECAYING:
        yield (
            f"early_stopping may end the run while {schedule} still holds the learning rate high: its last epochs are "
            "those that improve most; a constant schedule compares fairly"
        )


def _order_of_compression(arm: Arm) -> Iterator[str]:
    names = arm.names("compressor")
    for index, name in enumerate(names):
        before = [earlier for earlier in names[:index] if earlier in _QUANTIZED]
        if name in (*_SHRINKING, *_DISTILLING) and before:
            yield f"{name} after {before[0]} leaves the values that it chose: quantize last (Han 2016, section 2)"
        pruned = [earlier for earlier in names[:index] if earlier in _ZEROS]
        if name in _FACTORIZED and pruned:
            yield f"{name} fills the zeros of {pruned[0]}: the factors of a sparse matrix are dense"


def _half_and_fewer_bits(arm: Arm) -> Iterator[str]:
    names = arm.names("compressor")
    if "half" in names:
        index = names.index("half")
        for name in (name for name in names[:index] if name in _QUANTIZED):
            yield f"half after {name} only makes the model bigger: 16 bits a weight take the place of fewer"
        for name in (name for name in names[index + 1 :] if name in _QUANTIZED):
            yield f"{name} after half rounds what 16 bits had rounded before: leave half out"


def _mirrored_signs(arm: Arm) -> Iterator[str]:
    """Shorten & Khoshgoftaar 2019, "A survey on Image Data Augmentation", section on safety: labels must survive."""
    names = {arm.dataset["name"], str(arm.dataset["options"].get("dataset", "")).lower()}
    signs = sorted(names & {"digits", "mnist", "kmnist", "qmnist", "emnist", "usps", "svhn", "gtsrb"})
    flips = [name for name in arm.names("augmentation") if name in {"hflip", "vflip"}]
    views = arm.options("strategy", "test_time_augmentation")
    if views is not None and views.get("hflip", True):
        flips.append("test_time_augmentation")
    if signs and flips:
        verb = "mirrors" if len(flips) == 1 else "mirror"
        yield f"{' and '.join(flips)} {verb} the signs of {signs[0]}, which have no mirror images of their class"


_RULES: tuple[Callable[[Arm], Iterator[str]], ...] = (
    _selu,
    _soft_targets,
    _decay_twice,
    _early_stopping,
    _order_of_compression,
    _half_and_fewer_bits,
    _mirrored_signs,
)
