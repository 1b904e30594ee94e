"""Hands over a trained network: a file that other programs read, its settings, and a model card."""

from __future__ import annotations

import copy
import json
import re
import shlex
import shutil
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from cnnbench.artifact import load_model
from cnnbench.compat import random_splits
from cnnbench.convert import INPUT, OUTPUT, to_onnx, to_pt2
from cnnbench.data import load, split
from cnnbench.devices import resolve
from cnnbench.errors import CnnbenchError, DataError, MissingDependency, TrialError, Unsupported, UsageError
from cnnbench.model_card import Check, Handover, card
from cnnbench.options import make
from cnnbench.paths import name_fault
from cnnbench.plain import settings_from_plain
from cnnbench.registry import nearest
from cnnbench.seeds import Streams
from cnnbench.stages.build import Builder
from cnnbench.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cnnbench.artifact import Artifact
    from cnnbench.execute.cache import StageCache
    from cnnbench.frame import TrialSet
    from cnnbench.registry import Registry

    Call = Callable[[torch.Tensor], torch.Tensor]

Format = Literal["onnx", "pt2", "state_dict"]
FORMATS: tuple[Format, ...] = get_args(Format)
FILES: Mapping[Format, str] = {"onnx": "model.onnx", "pt2": "model.pt2", "state_dict": "model.pt"}
"""The file's name by format."""
CARD, SETTINGS = "README.md", "settings.json"
CHECKED = 256
"""Images on which the file is compared with the network."""


class Deployed(nn.Module):
    """A network with its input normalization before it.

    Attributes:
        input: maps float images in 0..1 to model inputs.
        network: maps model inputs to logits.
    """

    def __init__(self, input_module: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.input = input_module
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] from float images [N, C, H, W] in 0..1."""
        logits: torch.Tensor = self.network(self.input(images))
        return logits


@dataclass(frozen=True)
class _Images:
    """What the network was made for, and images to try it on.

    Attributes:
        tried: float images [n, C, H, W] in 0..1.
        what: what they are, in words.
        class_names: in label order.
    """

    tried: torch.Tensor
    what: str
    class_names: tuple[str, ...]


def choose(trials: TrialSet, arm: str | None, seed: int | None) -> Mapping[str, Any]:
    """The record of the trial to hand over.

    Args:
        trials: of the latest run.
        arm: its name.
        seed: None takes the first that is ok; never the best, which would be chosen on the test split.

    Raises:
        UsageError: there is no such trial, or it is not ok; says which there are, or why.
    """
    if arm is None:
        raise UsageError(f"--arm: which arm? Here are {listed(map(repr, trials.arms))}")
    if arm not in trials.arms:
        raise UsageError(f"--arm: unknown arm {arm!r}: {nearest(arm, trials.arms)}")
    planned = trials.seeds_of(arm)
    if seed is not None and seed not in planned:
        raise UsageError(f"--seed: the run has no seed {seed}, but {listed(planned)}")
    seeds = planned if seed is None else (seed,)
    found = [(one, trials.records.get((arm, one))) for one in seeds]
    for _, record in found:
        if record is not None and record["status"] == "ok":
            return record
    one, record = found[0]
    if record is None:
        raise UsageError(f"arm {arm!r}, seed {one} has not run yet: run {_suite_file(trials.heading)} to its end")
    raise UsageError(f"arm {arm!r}, seed {one} is {record['status']}: {record.get('reason') or 'no reason recorded'}")


def model_file(record: Mapping[str, Any], cache: StageCache) -> Path:
    """The trained and compressed model of a trial.

    Raises:
        UsageError: the cache no longer has it; says how to get it back.
    """
    stages = record.get("stages") or {}
    key = stages.get("compress") or stages.get("train")
    if key and name_fault(key):
        raise UsageError(f"arm {record['arm']!r}, seed {record['seed']}: the key of its model {name_fault(key)}")
    path = cache.folder(key) / "model.pt" if key else None
    if path is None or cache.result(str(key)) is None or not path.is_file():
        suite = record.get("suite") or {}
        command = ["cnnbench", "run", _suite_file(record), "--only", str(record["arm"])]
        command += ["--device", str(record.get("device") or "auto"), "--cache", str(cache.root)]
        command += ["--results", f"results/{suite.get('name') or 'again'}-again"]
        raise UsageError(
            f"the model of arm {record['arm']!r}, seed {record['seed']} is not in the cache {cache.root}: name the "
            f"run's cache with --cache, or make the model again: {shlex.join(command)}"
        )
    return path


def hand_over(
    records: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
    model: Path,
    form: Format,
    folder: Path,
    registry: Registry,
) -> Handover:
    """Write the network, its settings and its card into a folder, all or nothing.

    The file is read again and compared with the network before anything appears in the folder.

    Args:
        records: of the latest run, for the card's figures over seeds.
        record: of the trial.
        model: its artifact.
        form: the file's format.
        folder: made where it is missing; holds no earlier export.
        registry: where techniques come from.

    Raises:
        UsageError: the folder holds an export already, or can't be written.
        Unsupported: the network can't be written in this format; says what can.
    """
    taken = [name for name in (FILES[form], CARD, SETTINGS) if (folder / name).exists()]
    if taken:
        raise UsageError(f"--output: {folder / taken[0]} is there already: choose another folder, or remove it")
    artifact = load_model(model)
    deployed = Deployed(artifact.input, artifact.model).eval()
    images = _images(record, artifact, registry)
    plain = _settings(record, form, images)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as scratch:
            made = Path(scratch) / FILES[form]
            _write(deployed, images.tried, form, made)
            (made.parent / SETTINGS).write_text(json.dumps(plain, indent=1, ensure_ascii=False), encoding="utf-8")
            rebuilds = form == "state_dict" and _rebuilds(made.parent, registry)
            check = _compared(deployed, made, form, images, registry, rebuilds=rebuilds)
            what = Handover(
                record=record,
                form=form,
                file=folder / made.name,
                size=made.stat().st_size,
                image_shape=plain["image_shape"],
                class_names=images.class_names,
                remark=str(getattr(artifact.model, "kernels_reason", "")) if _simulated(artifact.model) else "",
                rebuilds=rebuilds,
                check=check,
            )
            (made.parent / CARD).write_text(card(what, records, registry), encoding="utf-8")
            folder.mkdir(exist_ok=True)
            for file in sorted(made.parent.iterdir()):
                shutil.move(file, folder / file.name)
    except OSError as error:
        raise UsageError(f"--output: {folder} can't be written: {error.strerror or error}") from error
    return what


def rebuild(settings: Path | str, weights: Path | str, registry: Registry | None = None) -> nn.Module:
    """A network from an exported state dict, with its input normalization, in eval mode on the CPU.

    Args:
        settings: the ``settings.json`` that was exported with it.
        weights: the ``model.pt``.
        registry: where techniques come from; None for all that are installed.

    Raises:
        TrialError: the tensors do not fit the network that the settings make, as after a compressor that changes
            layers.
    """
    if registry is None:
        from cnnbench.plugins import PluginHost

        registry = PluginHost.discover().registry
    plain = json.loads(Path(settings).read_text(encoding="utf-8"))
    asked = settings_from_plain(plain["settings"])
    # What these fit or fill is overwritten; random images of the right shape do for their sizes.
    techniques = {slot: chosen for slot, chosen in asked.techniques.items() if slot != "initializer"}
    splits = random_splits(tuple(plain["image_shape"]), len(plain["class_names"]))
    builder = Builder(replace(asked, techniques=techniques), registry, splits, resolve("cpu"))
    deployed = Deployed(builder.input_module(), builder.model(Streams(0))).eval()
    try:
        deployed.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except RuntimeError as error:
        raise TrialError(f"{weights}: its tensors do not fit the network that {settings} makes") from error
    return deployed


def default_folder(record: Mapping[str, Any], form: Format) -> Path:
    """Where an export goes that was given no folder: one for each trial and format."""
    parts = [str((record.get("suite") or {}).get("name") or "results"), f"{record['arm']}-seed{record['seed']}-{form}"]
    return Path("exports", *(re.sub(r"[^\w.-]+", "-", part).strip("-.") or "arm" for part in parts))


def _suite_file(record: Mapping[str, Any]) -> str:
    return str((record.get("suite") or {}).get("file") or "the suite")


def _simulated(model: nn.Module) -> bool:
    return hasattr(model, "unsimulated")


def _images(record: Mapping[str, Any], artifact: Artifact, registry: Registry) -> _Images:
    """Test images of the trial; random ones of the same shape where the dataset is no longer here."""
    settings = settings_from_plain(record["settings"])
    try:
        data = load(make(settings.dataset, registry))
        family = "placebo" if record.get("role") == "placebo" else ""
        test = split(data, settings.data, Streams(record["seed"], family), "cpu").test_images[:CHECKED]
        return _Images(test.float().div(255), f"{len(test)} test images", data.class_names)
    except DataError as error:
        shape, names = (artifact.notes.get(key) for key in ("image_shape", "class_names"))
        if not shape or not names:
            raise UsageError(f"the network's input shape is not known without its dataset: {error}") from error
        drawn = torch.rand((CHECKED, *shape), generator=torch.Generator().manual_seed(0))
        return _Images(drawn, f"{CHECKED} random images, as the dataset is not here", tuple(names))


def _settings(record: Mapping[str, Any], form: Format, images: _Images) -> dict[str, Any]:
    """What ``settings.json`` holds."""
    kept = ("suite", "arm", "role", "changes", "seed", "settings", "metrics", "methods", "stages", "environment")
    written = {}
    for package in ("cnnbench", "torch", "onnx", "onnxscript"):
        try:
            written[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "format": form,
        **{key: record[key] for key in kept if key in record},
        "image_shape": list(images.tried.shape[1:]),
        "class_names": list(images.class_names),
        "written_with": written,
    }


def _write(deployed: Deployed, example: torch.Tensor, form: Format, path: Path) -> None:
    if form == "onnx":
        try:
            to_onnx(deployed, example, path)
        except MissingDependency:
            raise
        except Unsupported as error:
            raise Unsupported(f"{error}; --format pt2 may do") from error
    elif form == "pt2":
        to_pt2(deployed, example, path)
    else:
        state = deployed.state_dict()
        odd = sorted(name for name, value in state.items() if type(value) is not torch.Tensor or value.is_quantized)
        if odd:
            raise Unsupported(f"its state holds {odd[0]}, which is no plain tensor: take --format onnx or pt2")
        # Copies: a tensor that is a view would be saved with all that lies behind it.
        torch.save({name: value.detach().cpu().clone() for name, value in state.items()}, path)


def _rebuilds(folder: Path, registry: Registry) -> bool:
    """Whether the settings and the tensors alone give the network again."""
    try:
        rebuild(folder / SETTINGS, folder / FILES["state_dict"], registry)
    except CnnbenchError:
        return False
    return True


def _opened(deployed: Deployed, path: Path, form: Format, registry: Registry, *, rebuilds: bool) -> Call:
    """What a reader of the file would call."""
    if form == "onnx":
        return _onnx_session(path)
    if form == "pt2":
        return torch.export.load(path).module()
    if rebuilds:
        return rebuild(path.parent / SETTINGS, path, registry)
    # Its layers are no others' than the compressor's: blank ones take the tensors.
    blank = copy.deepcopy(deployed)
    for tensor in blank.state_dict().values():
        tensor.zero_()
    blank.load_state_dict(torch.load(path, weights_only=True))
    return blank


def _onnx_session(path: Path) -> Call:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency("onnxruntime", "onnx") from error
    try:
        onnxruntime.set_default_logger_severity(3)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Unsupported(f"onnxruntime can't read it: {str(error).splitlines()[0]}") from error

    def call(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])

    return call


def _compared(
    deployed: Deployed, path: Path, form: Format, images: _Images, registry: Registry, *, rebuilds: bool
) -> Check:
    """The file's outputs beside the network's, the first image by itself: the number of images is free."""
    try:
        call = _opened(deployed, path, form, registry, rebuilds=rebuilds)
    except Unsupported as error:
        return Check(images.what, skipped=str(error))
    parts = [images.tried[:1], *torch.split(images.tried[1:], 64)]
    with torch.inference_mode():
        wanted = torch.cat([deployed(part) for part in parts])
        got = torch.cat([call(part) for part in parts])
    return Check(
        images.what,
        difference=float((got - wanted).abs().max()),
        largest=float(wanted.abs().max()),
        agreement=float((got.argmax(1) == wanted.argmax(1)).float().mean()),
    )
