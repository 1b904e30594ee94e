"""The networks of timm."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from cnnbench.errors import Unsupported, UsageError
from cnnbench.registry import nearest
from cnnbench.technique import Requirement, technique
from cnnbench_plugins.model._probe import check_logits

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@technique("model", "timm", requires=(Requirement("timm", "timm"),), example={"arch": "test_resnet"})
class TimmModel:
    """An image classifier of the package timm by its name, for any number of channels and classes.

    R. Wightman, "PyTorch Image Models" (https://github.com/huggingface/pytorch-image-models): more than a thousand
    networks. Weights are the network's own initialization unless ``pretrained``. The first convolution takes the
    images' channels and the classifier has one output a class; networks of a fixed input size, such as vision
    transformers, are built for the images' size. The stem stays as published: most networks end in a 32nd of the
    images' pixels a side.

    Helps where torchvision lacks a network, and to compare with published results.
    Known not to help: images under 64 pixels, which the published stems shrink to a pixel or two before the last stage.

    Attributes:
        arch: timm's name, e.g. ``"mobilenetv4_conv_small"``.
        pretrained: start from timm's published weights, which are downloaded; the classifier stays fresh where the
            number of classes is another, and the first convolution's weights are summed over colours for gray images.
    """

    arch: str
    pretrained: bool = False

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W).

        Raises:
            UsageError: timm has no such network.
            Unsupported: it can't take images of this size, or its weights can't be downloaded.
        """
        import timm

        name = self.arch.partition(".")[0]  # a tag of pretrained weights follows the point
        if not timm.is_model(self.arch):
            hint = nearest(name, timm.list_models()) or "timm.list_models() lists them"
            raise UsageError(f"unknown timm network {self.arch!r}: {hint}")
        options: dict[str, Any] = {"num_classes": num_classes, "in_chans": image_shape[0]}
        config = timm.get_pretrained_cfg(self.arch)
        if config is not None and config.fixed_input_size:
            options["img_size"] = image_shape[1:]
        try:
            model: nn.Module = timm.create_model(self.arch, pretrained=self.pretrained, **options)
        except (RuntimeError, ValueError, TypeError, AssertionError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
            raise Unsupported(
                f"{self.arch} can't be built for {image_shape[1]} x {image_shape[2]} images: {reason}"
            ) from error
        _plain(model)
        check_logits(model, image_shape, num_classes, self.arch)
        return model


def _plain(model: nn.Module) -> None:
    """Replace enumerations of text among modules' attributes by the text, which equals them, in place.

    Models on their way between stages hold plain values only.
    """
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, str) and isinstance(value, Enum):
                setattr(module, name, value.value)


TECHNIQUES = (TimmModel,)
