"""Verifying a published folder: every kind of tampering is found and named, and a trial comes out again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cnnbench import publication
from cnnbench.cli import main
from cnnbench.errors import StoreError
from cnnbench.publication import MANIFEST
from cnnbench.publish import publish
from cnnbench.quality import of_machine, quality
from cnnbench.quantities import METRICS, quantities
from cnnbench.store import FILE, Store, open_results
from cnnbench.verify import verify

SUITE = (
    b'question = "Which?"\ndataset = "digits"\nmodel = "resnet"\nseeds = 3\n[arms]\nsilu = { activation = "silu" }\n'
)


def a_run():
    return [
        {
            "schema": 2,
            "key": f"{arm}-{seed}",
            "suite": {
                "name": "tiny",
                "question": "Which?",
                "sha256": hashlib.sha256(SUITE).hexdigest(),
                "file": "tiny.toml",
            },
            "arm": arm,
            "role": "baseline" if arm == "baseline" else "arm",
            "reference": None if arm == "baseline" else "baseline",
            "changes": "",
            "planned": {"arms": ["baseline", "silu"], "seeds": [0, 1, 2]},
            "measure": {"primary": "accuracy", "metrics": ["accuracy"]},
            "seed": seed,
            "status": "ok",
            "reason": None,
            "metrics": {"accuracy": (90 + seed) / 100},
            "details": {"confusion": [[90 + seed, 10 - seed], [0, 0]]},
            "device": "cpu",
            "seconds": {"train": 1.0},
            "finished": "2026-01-01T00:00:00+00:00",
        }
        for arm in ("baseline", "silu")
        for seed in (0, 1, 2)
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "make_figures", lambda report, records: ())  # they take seconds
    for record in a_run():
        Store(tmp_path / "run").append(record)
    Store(tmp_path / "run").keep("tiny.toml", SUITE)
    return publish(tmp_path / "run", tmp_path / "results").folder


def faults(folder):
    return {finding.place: finding.fault for finding in verify(folder).findings if finding.fault}


def change(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def sealed(folder):
    """The manifest made to fit what lies there, as who tampers would."""
    said = json.loads((folder / MANIFEST).read_text())
    said["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in said["files"]}
    (folder / MANIFEST).write_text(json.dumps(said))


def test_a_folder_as_published_is_clean(folder, capsys):
    assert faults(folder) == {}
    assert main(["verify", str(folder)]) == 0
    out = capsys.readouterr().out
    names = json.loads((folder / MANIFEST).read_text())["files"]
    assert all(f"{name}: matches" in out for name in names)
    assert "6/6 trials ok" in out
    assert f"{MANIFEST}: matches" in out
    assert out.endswith(f"all {len(names) + 1} files match the records\n")


def test_every_file_that_is_changed_or_missing_is_named(folder):
    names = [name for name in json.loads((folder / MANIFEST).read_text())["files"] if name not in {FILE, "tiny.toml"}]
    assert names
    for name in names:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b" ")
        assert list(faults(folder)) == [name]
        assert "changed after publishing" in faults(folder)[name]
        (folder / name).unlink()
        assert faults(folder) == {name: "is missing"}
        (folder / name).write_bytes(content)
    assert faults(folder) == {}


def test_a_value_in_a_table_is_shown_beside_the_right_one(folder, capsys):
    change(folder / "table.md", "91.0", "99.0")
    assert main(["verify", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "table.md: differs (changed after publishing)" in out
    assert any(line.startswith("    -") and "99.0" in line for line in out.splitlines())
    assert any(line.startswith("    +") and "91.0" in line for line in out.splitlines())
    count = len(json.loads((folder / MANIFEST).read_text())["files"]) + 1
    assert out.endswith(f"1 of {count} files differs: table.md\n")
    (folder / "table.tex").unlink()
    main(["verify", str(folder)])
    assert capsys.readouterr().out.endswith(f"2 of {count} files differ: table.md, table.tex\n")


def test_of_a_file_that_is_all_changed_a_few_lines_are_shown(folder):
    (folder / "table.md").write_text("x" * 1000 + "\nother\n" * 1000)
    (finding,) = (finding for finding in verify(folder).findings if finding.fault)
    assert len(finding.excerpt) == 5
    assert finding.excerpt[-1].startswith("... and ")
    assert max(map(len, finding.excerpt)) < 170


def test_of_a_long_line_the_part_that_differs_is_shown(folder):
    change(folder / FILE, '"accuracy":0.91', '"accuracy": 0.91')
    (finding,) = (finding for finding in verify(folder).findings if finding.excerpt and finding.place == FILE)
    assert '"accuracy": 0.91' in finding.excerpt[0]
    assert '"accuracy":0.91' in finding.excerpt[1]


def test_a_value_in_the_records_changes_what_they_render_to(folder):
    change(folder / FILE, '"accuracy":0.91', '"accuracy":0.99')
    sealed(folder)
    found = faults(folder)
    assert "table.md" in found
    assert "renders differently now" in found["table.md"]
    (place,) = (place for place in found if place.startswith(FILE))
    assert found[place] == "accuracy 0.990000, and its confusion matrix has 0.910000"


def test_records_added_removed_or_spelled_otherwise_are_found(folder):
    path = folder / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert "table.md" in faults(folder)
    assert faults(folder)[MANIFEST].startswith("says ok 6, the records 5")
    path.write_bytes(b"".join(lines).replace(b'"schema":2,', b'"schema": 2,'))
    assert "differs" in faults(folder)[FILE]
    path.write_bytes(b"".join([*lines, b'{"half": ']))
    assert any("torn" in finding.fault for finding in verify(folder).findings if finding.place == FILE)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('"status":"ok"', '"status":"great"', "status 'great', expected one of ok"),
        ('"seed":1,', '"seed":7,', "its seed is not among the planned ones"),
        ('"arm":"silu"', '"arm":"relu"', "its arm is not among the planned ones"),
        ('"metrics":{"accuracy":0.91}', '"metrics":{"accuracy":"0.91"}', "accuracy is '0.91', expected a number"),
        ('"metrics":{"accuracy":0.91}', '"metrics":{}', "ok, and without any metric"),
    ],
)
def test_records_that_contradict_themselves_are_named(folder, old, new, fault):
    change(folder / FILE, old, new)
    assert any(fault in finding.fault for finding in verify(folder).findings if finding.file == FILE)


def test_another_suite_file_is_named_with_its_digest(folder, capsys):
    change(folder / "tiny.toml", "Which?", "Who?")
    sealed(folder)
    assert "another version of tiny.toml" in faults(folder)["tiny.toml"]
    assert main(["verify", str(folder), "--rerun"]) == 2
    out, err = capsys.readouterr()
    assert "do not belong together" in err
    assert out.endswith("tiny.toml: with this fault no other file could be compared\n")
    (folder / "tiny.toml").unlink()
    assert "can't be read" in faults(folder)["tiny.toml"]


def test_a_file_that_nothing_makes_is_named(folder):
    said = json.loads((folder / MANIFEST).read_text())
    said["files"]["figures/best.svg"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(said))
    assert "no file of this name is made" in faults(folder)["figures/best.svg"]


def test_another_version_is_told_as_the_likely_cause(folder, capsys):
    change(folder / "table.md", "91.0", "90.9")
    change(folder / MANIFEST, '"cnnbench": "', '"cnnbench": "9.')
    main(["verify", str(folder)])
    assert "likely cause: published with cnnbench 9." in capsys.readouterr().out
    assert verify(folder).cause


def test_without_a_fault_versions_do_not_matter(folder):
    change(folder / MANIFEST, '"cnnbench": "', '"cnnbench": "9.')
    assert verify(folder).clean
    assert verify(folder).cause == ""


def test_a_folder_that_is_not_published_says_what_to_do(tmp_path, folder, capsys):
    with pytest.raises(StoreError, match=r"no published\.json .*cnnbench publish"):
        verify(tmp_path / "run")
    (folder / MANIFEST).write_text("[]")
    assert main(["verify", str(folder)]) == 2
    assert "expected an object with files" in capsys.readouterr().err


def test_a_folder_that_is_not_there_names_the_nearest(folder, capsys):
    for wrong, hint in (("tinny", "did you mean 'tiny'?"), ("", f"did you mean {folder}?")):
        assert main(["verify", str(folder.parent / wrong)]) == 2
        assert hint in capsys.readouterr().err


def test_a_seed_alone_reruns_nothing(folder, capsys):
    assert main(["verify", str(folder), "--seed", "1"]) == 2
    assert "--rerun" in capsys.readouterr().err


def test_every_metric_is_the_networks_or_the_machines():
    keys = {q.key: q.stage for q in quantities(METRICS, [1, 32])}
    assert {key for key in keys if not of_machine(key)} == {
        key for key, stage in keys.items() if stage in {"evaluate", "profile"}
    }
    assert of_machine("latency_b8_ratio")
    assert quality({"metrics": {"accuracy": 1.0, "own": 2.0, "latency_b1_ms": 3.0}}) == {"accuracy": 1.0, "own": 2.0}


# A trial again: real trainings of seconds


@pytest.fixture(scope="module")
def real(tmp_path_factory, tiny_suite):
    """A published run that was really run, and the folder it lies in."""
    root = tmp_path_factory.mktemp("real")
    suite = root / "tiny.toml"
    suite.write_text(tiny_suite({"silu": '{ activation = "silu" }'}, placebo=True, seeds=2))
    run = ["run", str(suite), "--executor", "inline", "--cache", str(root / "cache"), "--results", str(root / "run")]
    assert main([*run, "--quiet"]) == 0
    assert main(["publish", str(root / "run"), "--to", str(root / "results")]) == 0
    return root / "results" / "tiny"


@pytest.mark.parametrize("options", [[], ["silu", "--seed", "1"], ["placebo"]])
def test_a_trial_comes_out_again_exactly(real, options, capsys):
    assert main(["verify", str(real), "--rerun", *options]) == 0
    out = capsys.readouterr().out
    trial = f"{options[0]}, seed {options[-1] if len(options) > 1 else 0}" if options else ", seed 0"
    assert f"{trial}: ran again, and all " in out
    assert "quality metrics agree exactly" in out


def test_a_trial_that_comes_out_otherwise_says_by_how_much_and_why(real, tmp_path, capsys):
    records = [dict(record) for record in open_results(real).records]
    for record in records:
        record["metrics"] = {**record["metrics"], "nll": record["metrics"]["nll"] + 0.5}
        record["environment"] = {**record["environment"], "torch": "1.0.0"}
        Store(tmp_path / "run").append(record)
    Store(tmp_path / "run").keep("tiny.toml", (real / "tiny.toml").read_bytes())
    publish(tmp_path / "run", tmp_path / "results")
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "results" / "tiny"), "--rerun", "baseline", "--seed", "1"]) == 1
    out = capsys.readouterr().out
    assert "baseline, seed 1: ran again, and 1 of " in out
    assert "(-0.5)" in out
    assert "likely cause: torch 1.0.0, here 2." in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sillu"], "no arm 'sillu' in these records: did you mean 'silu'"),
        (["silu", "--seed", "9"], "with seed 9 is ok"),
    ],
)
def test_a_trial_that_is_not_there_is_one_line(real, options, message, capsys):
    assert main(["verify", str(real), "--rerun", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_real_folder_is_clean_wherever_it_lies_and_its_figures_are_compared(real, monkeypatch):
    monkeypatch.chdir(real)
    assert faults(Path()) == {}
    (picture, *_) = Path("figures").glob("*.png")
    content = picture.read_bytes()
    picture.write_bytes(content[:-1] + b"x")
    found = verify(Path())
    picture.write_bytes(content)
    (finding,) = (finding for finding in found.findings if finding.fault)
    assert finding.place == picture.as_posix()
    assert finding.excerpt == (f"{len(content)} bytes there, {len(content)} as rendered now",)
