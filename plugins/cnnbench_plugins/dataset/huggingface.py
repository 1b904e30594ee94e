"""Image datasets of the Hugging Face hub."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from cnnbench.errors import DataError
from cnnbench.technique import Requirement, technique
from cnnbench_plugins._foreign import first_line
from cnnbench_plugins.dataset._parquet import ParquetFiles, files_in

_LAYOUTS = (("main", "{}-*.parquet"), ("main", "{}/*.parquet"), ("refs/convert/parquet", "{}/*.parquet"))
"""Branches, and the files of a split there."""


_NEEDS = Requirement("huggingface_hub", "huggingface")


@technique("dataset", "huggingface", requires=(_NEEDS,), example={"repo": "ylecun/mnist"})
class HuggingFace(ParquetFiles):
    """An image classification dataset of the Hugging Face hub, from its Parquet files.

    Read from the hub's cache on this machine (https://huggingface.co/docs/huggingface_hub/guides/manage-cache): the
    branch ``main`` where the repository keeps Parquet files (``data/train-00000-of-00002.parquet``), else the branch
    ``refs/convert/parquet``, into which the hub converts datasets of up to 5 GB (``default/train/0000.parquet``). The
    columns are as in dataset ``parquet``. Nothing is asked of the network unless ``download``.

    Attributes:
        repo: the repository, e.g. ``"zalando-datasets/fashion_mnist"``.
        config: the folder of one configuration, for repositories that have several.
        train: name of the training split.
        test: name of the test split, e.g. ``"validation"``.
        image: name of the image column.
        label: name of the label column.
        size: scale each image's shorter side to so many pixels and cut out the centre; None wants all of one size.
        path: the hub's cache folder; None is the hub's own choice (``HF_HOME``).
        download: fetch the two splits into the cache if they are not there.
    """

    repo: str
    config: str | None = None
    train: str = "train"
    test: str = "test"
    image: str = "image"
    label: str = "label"
    size: Annotated[int, Ge(4)] | None = None
    path: Path | None = None
    download: bool = False

    def located(self) -> tuple[Path, str, str]:
        """The two splits in the hub's cache."""
        from huggingface_hub import snapshot_download

        reasons: list[str] = []
        ask: dict[str, Any] = {"repo_type": "dataset", "cache_dir": self.path}
        for local, (branch, layout) in product((True, False) if self.download else (True,), _LAYOUTS):
            train, test = layout.format(self.train), layout.format(self.test)
            ask |= {"revision": branch, "local_files_only": local, "allow_patterns": [f"*{train}", f"*{test}"]}
            try:
                folder = Path(snapshot_download(self.repo, **ask), self.config or "")
                places = {file.parent.relative_to(folder) for file in files_in(folder, train)}
                files_in(folder, test)
            except Exception as error:  # noqa: BLE001 - the hub's, the network's, the disk's, or no such file there
                reasons += [first_line(error)] if isinstance(error, DataError) or not local else []
                continue
            if len(places) == 1:
                return folder, train, test
            names = ", ".join(sorted({repr(place.parts[0]) for place in places if place.parts}))
            raise DataError(f"{self.repo} has several configurations: set its option config to one of {names}")
        where = f" --cache-dir {self.path}" if self.path else ""
        reason = (*reasons, "not in the hub's cache")[0]
        command = f"hf download {self.repo} --repo-type dataset --revision {_LAYOUTS[-1][0]}{where}"
        raise DataError(f"{self.repo}: {reason}: set its option download = true, or run {command}")


TECHNIQUES = (HuggingFace,)
