"""Images in Parquet files, as dataset hubs keep them."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - read at run time
from typing import Annotated

from annotated_types import Ge

from cnnbench.technique import technique
from cnnbench_plugins.dataset._parquet import ParquetFiles


@technique("dataset", "parquet")
class Parquet(ParquetFiles):
    """Images in Parquet files in the hubs' layout: a column of encoded images and a column of integer labels.

    The image column is ``struct<bytes: binary, path: string>`` (or plain binary), as ``datasets.Image`` stores it; the
    label column holds integers from 0. Class names come from the schema's ``huggingface`` metadata where it has them,
    else they are the numbers. Images are decoded once, into memory, as uint8: gray where every image is, else RGB.

    Attributes:
        path: a folder with the files, searched to any depth.
        train: pattern of the training files' names.
        test: pattern of the test files' names, e.g. ``validation*.parquet``.
        image: name of the image column.
        label: name of the label column.
        size: scale each image's shorter side to so many pixels and cut out the centre; None wants all of one size.
    """

    path: Path
    train: str = "train*.parquet"
    test: str = "test*.parquet"
    image: str = "image"
    label: str = "label"
    size: Annotated[int, Ge(4)] | None = None

    def located(self) -> tuple[Path, str, str]:
        """The options."""
        return self.path, self.train, self.test


TECHNIQUES = (Parquet,)
