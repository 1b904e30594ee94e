"""The hub's cache is made by hand, in the layout that huggingface_hub writes, and asked of without a network."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cnnbench.data import load
from cnnbench.errors import DataError
from cnnbench.plugins import PluginHost
from cnnbench.suite import parse
from cnnbench.technique import Requirement
from cnnbench_plugins.dataset.huggingface import HuggingFace

hub = pytest.importorskip("huggingface_hub")

DIGITS = load_digits()
PIXELS = (DIGITS.images * 15).astype(np.uint8)
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def table(rows: slice) -> pa.Table:
    images = [{"bytes": png(one), "path": None} for one in PIXELS[rows]]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    made = pa.table({"image": pa.array(images, kind), "label": pa.array(DIGITS.target[rows], pa.int64())})
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def cached(cache: Path, files: dict[str, slice], branch: str = "main", repo: str = "acme/digits") -> Path:
    """Put files into the cache as the hub does: blobs by digest, a snapshot of links to them, a branch naming it."""
    commit = f"{len(branch):040x}"
    folder = cache / f"datasets--{repo.replace('/', '--')}"
    (folder / "refs" / branch).parent.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / branch).write_text(commit)
    (folder / "blobs").mkdir(exist_ok=True)
    for name, rows in files.items():
        blob = folder / "blobs" / f"{rows.start}-{rows.stop}"
        pq.write_table(table(rows), blob)
        link = folder / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return folder / "snapshots" / commit


MAIN = {
    "data/train-00000-of-00002.parquet": slice(0, 20),
    "data/train-00001-of-00002.parquet": slice(20, 30),
    "data/test-00000-of-00001.parquet": slice(30, 40),
}
CONVERTED = {"default/train/0000.parquet": slice(0, 30), "default/test/0000.parquet": slice(30, 40)}
FOLDERS = {"train/a.parquet": slice(0, 30), "test/a.parquet": slice(30, 40)}


@pytest.mark.parametrize(("files", "branch"), [(MAIN, "main"), (FOLDERS, "main"), (CONVERTED, "refs/convert/parquet")])
def test_pixels_labels_and_names_of_every_layout(tmp_path, files, branch):
    cached(tmp_path, files, branch)
    dataset = HuggingFace("acme/digits", path=tmp_path)
    data = load(dataset)
    assert np.array_equal(data.train_images[:, 0].numpy(), PIXELS[:30])
    assert np.array_equal(data.test_images[:, 0].numpy(), PIXELS[30:40])
    assert data.train_labels.tolist() == DIGITS.target[:30].tolist()
    assert data.class_names == tuple(NAMES)
    assert dataset.sizes() == (30, 10)


def test_other_splits_columns_sizes_and_main_before_the_converted(tmp_path):
    cached(tmp_path, CONVERTED, "refs/convert/parquet")
    cached(tmp_path, MAIN | {"data/validation-00000-of-00001.parquet": slice(40, 45)})
    assert HuggingFace("acme/digits", path=tmp_path, test="validation", size=4)().test_images.shape == (5, 1, 4, 4)
    with pytest.raises(DataError, match="no column 'img'"):
        HuggingFace("acme/digits", path=tmp_path, image="img")()


def test_one_of_several_configurations_must_be_named(tmp_path):
    several = {
        f"{config}/{split}-00000-of-00001.parquet": slice(start, start + 10)
        for config, first in (("upright", 0), ("tilted", 50))
        for split, start in (("train", first), ("test", first + 10))
    }
    cached(tmp_path, several)
    with pytest.raises(DataError, match=r"acme/digits has several configurations: .* one of 'tilted', 'upright'$"):
        HuggingFace("acme/digits", path=tmp_path).fingerprint()
    data = HuggingFace("acme/digits", "tilted", path=tmp_path)()
    assert data.train_labels.tolist() == DIGITS.target[50:60].tolist()


def test_the_fingerprint_is_that_of_the_content_wherever_it_lies(tmp_path):
    cached(tmp_path / "one", MAIN)
    cached(tmp_path / "two", MAIN)
    cached(tmp_path / "three", MAIN | {"data/test-00000-of-00001.parquet": slice(31, 41)})
    one, two, three = (HuggingFace("acme/digits", path=tmp_path / n).fingerprint() for n in ("one", "two", "three"))
    assert one == two != three


@pytest.mark.parametrize("download", [False, True])
def test_without_the_files_one_line_says_what_to_run(tmp_path, monkeypatch, download):
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(hub.HfApi, "repo_info", refuse)
    reason = "no route to host" if download else "not in the hub's cache"
    with pytest.raises(DataError) as caught:
        HuggingFace("acme/digits", path=tmp_path, download=download).fingerprint()
    assert str(caught.value) == (
        f"acme/digits: {reason}: set its option download = true, or run hf download acme/digits --repo-type dataset "
        f"--revision refs/convert/parquet --cache-dir {tmp_path}"
    )


def test_a_snapshot_without_the_split_says_what_it_has(tmp_path):
    cached(tmp_path, {"data/train-00000-of-00001.parquet": slice(0, 5)})
    with pytest.raises(DataError, match=r"no file is named test-.*parquet; it holds train-00000-of-00001.parquet"):
        HuggingFace("acme/digits", path=tmp_path).fingerprint()
    with pytest.raises(DataError, match="no such folder"):
        HuggingFace("acme/digits", "upright", path=tmp_path).fingerprint()


def test_what_is_not_here_is_fetched_from_main_or_else_from_the_converted_branch(tmp_path, monkeypatch):
    """The hub is a folder: what is asked of it is copied into the cache."""
    asked: list[tuple[str, bool]] = []

    def snapshot_download(repo, *, revision, local_files_only, allow_patterns, cache_dir, repo_type):
        asked.append((revision, local_files_only))
        assert (repo, repo_type) == ("acme/digits", "dataset")
        if local_files_only:
            return original(repo, revision=revision, local_files_only=True, cache_dir=cache_dir, repo_type=repo_type)
        if revision == "main":
            raise OSError("404: it has no such branch")
        assert all(any(Path(file).match(pattern) for file in CONVERTED) for pattern in allow_patterns)
        return str(cached(cache_dir, CONVERTED, revision))

    original = hub.snapshot_download
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    first = HuggingFace("acme/digits", path=tmp_path, download=True)
    assert len(first().train_images) == 30
    assert asked[-1] == ("refs/convert/parquet", False)
    asked.clear()
    assert HuggingFace("acme/digits", path=tmp_path, download=True).fingerprint() == first.fingerprint()
    assert all(local for _, local in asked)


def test_damage_is_told_with_the_file(tmp_path):
    folder = cached(tmp_path, MAIN)
    file = folder / "data/test-00000-of-00001.parquet"
    file.unlink()
    file.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"test-00000-of-00001.parquet: not a Parquet file, or truncated"):
        HuggingFace("acme/digits", path=tmp_path).fingerprint()


SUITE = """
question = "Does it load?"
dataset = {{ name = "huggingface", repo = "acme/digits", path = "{path}" }}
model = "lenet"
"""


def test_a_suite_is_told_before_anything_runs(tmp_path, monkeypatch):
    registry, text = PluginHost.discover().registry, SUITE.format(path=tmp_path.as_posix()).encode()
    with pytest.raises(Exception, match=r"suite.toml:3: dataset: acme/digits: not in the hub's cache: set its option"):
        parse(text, str(tmp_path / "suite.toml"), registry, data=True)
    cached(tmp_path, MAIN)
    parse(text, str(tmp_path / "suite.toml"), registry, data=True)
    monkeypatch.setattr(Requirement, "installed", property(lambda self: False))
    line = r"dataset: huggingface needs huggingface_hub, which is not installed: pip install 'cnnbench\[huggingface\]'"
    with pytest.raises(Exception, match=line):
        parse(text, str(tmp_path / "suite.toml"), registry, data=True)
