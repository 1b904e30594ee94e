"""Publishing: what lies in the folder, what is refused, what is left out, and the index of all."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench import publication
from cnnbench.again import command, other_seeds
from cnnbench.anonymous import without_folders
from cnnbench.cli import main
from cnnbench.errors import StoreError, UsageError
from cnnbench.publication import MANIFEST, make, shown
from cnnbench.publish import EARLIER, publish
from cnnbench.published_index import BEGIN, END, refresh
from cnnbench.store import FILE, Store, open_results

SUITE = b"""\
question = "Which norm?"
dataset = "digits"
model = "resnet"
seeds = 2
device = "cpu"
placebo = true

[arms]
"group | norm" = { norm = "group" }
silu = { activation = "silu" }
"""
ARMS = ["baseline", "group | norm", "silu", "placebo"]


def a_run(suite=SUITE, seeds=(0, 1, 2), arms=ARMS, **more):
    """Records of a finished run."""
    return [
        {
            "schema": 2,
            "key": f"{arm}-{seed}",
            "suite": {
                "name": "norms",
                "question": "Which norm?",
                "sha256": hashlib.sha256(suite).hexdigest(),
                "file": "norms.toml",
            },
            "arm": arm,
            "role": arm if arm in {"baseline", "placebo"} else "arm",
            "reference": None if arm == "baseline" else "baseline",
            "changes": "",
            "planned": {"arms": list(arms), "seeds": list(seeds)},
            "measure": {"primary": "accuracy", "metrics": ["accuracy", "params"], "margin": {"accuracy": 0.01}},
            "statistics": {},
            "budget": "1 epoch, batch 64",
            "seed": seed,
            "data": "d" * 32,
            "status": "ok",
            "reason": None,
            "trace": None,
            "metrics": {"accuracy": 0.9 + seed / 100 - len(arm) / 1000, "params": 1000.0, "train_seconds": 1.5 + seed},
            "settings": {"dataset": {"slot": "dataset", "name": "digits", "options": {}}},
            "device": "cpu",
            "environment": {"cpu": "AMD EPYC 7763", "device": "AMD EPYC 7763", "cnnbench": "0.1.0"},
            "seconds": {"train": 1.0 + len(arm)},
            "started": "2026-01-01T00:00:00+00:00",
            "finished": f"2026-01-0{1 + seed}T00:00:00+00:00",
            **copy.deepcopy(more),
        }
        for arm in arms
        for seed in seeds
    ]


def written(folder, records, suite=SUITE):
    """A results folder as a run leaves it."""
    for record in records:
        Store(folder).append(record)
    if suite is not None:
        Store(folder).keep("norms.toml", suite)
    return folder


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    """Figures take seconds: only the tests about them draw any."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(publication, "make_figures", lambda report, records: ())


@pytest.fixture
def drawn():
    """Figures are drawn."""


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return written(tmp_path / "run", a_run())


def test_figures_lie_in_a_folder_of_their_own_and_stand_in_the_page(results, drawn):
    publish(results, Path("results"))
    found = files(Path("results/norms"))
    pictures = {name for name in found if name.startswith("figures/")}
    assert {"figures/forest.svg", "figures/forest.png", "figures/seeds.svg"} <= pictures
    assert {name[:-4] for name in pictures if name.endswith(".svg")} == {
        name[:-4] for name in pictures if name.endswith(".png")
    }
    page = found["table.md"].decode()
    linked = re.findall(r"\]\((figures/.*?)\)", page)
    assert sorted(linked) == sorted(name for name in pictures if name.endswith(".svg"))
    assert found["report.html"].count(b"<svg") == len(linked)
    assert all(found[name].startswith(b"\x89PNG") for name in pictures if name.endswith(".png"))


def test_a_folder_holds_records_suite_tables_report_and_the_command(results):
    done = publish(results, Path("results"))
    found = files(Path("results/norms"))
    assert done.folder == Path("results/norms")
    assert found[FILE] == (results / FILE).read_bytes()
    assert found["norms.toml"] == SUITE
    page = found["table.md"].decode()
    assert "| group \\| norm |" in page.replace("  ", " ").replace("  ", " ")
    assert "cnnbench run norms.toml --seeds 3 --results again" in page
    said = json.loads(found[MANIFEST])
    assert said["files"] == {
        name: hashlib.sha256(content).hexdigest() for name, content in found.items() if name != MANIFEST
    }
    assert (said["suite"], said["ok"], said["planned"]) == ("norms", 12, 12)
    assert set(found) == {*done.publication.files, MANIFEST}
    assert set(found) == {FILE, "norms.toml", "table.md", "table.tex", "report.html", MANIFEST}
    assert b"\\toprule" in found["table.tex"]
    assert b"group | norm" in found["report.html"]
    # A published folder is a results folder like any other.
    assert main(["report", "results/norms"]) == 0


def test_the_same_run_gives_the_same_bytes_wherever_and_in_whatever_order_it_ended(results, tmp_path):
    publish(results, tmp_path / "a")
    other = written(tmp_path / "other" / "place", sorted(a_run(), key=lambda r: (-r["seed"], r["arm"])))
    publish(other, tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_publishing_in_place_keeps_the_run_alone_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = written(Path("results/norms"), a_run(seeds=(0, 1)))
    written(home, [{**r, "key": f"new {r['key']}"} for r in a_run()])
    before = open_results(home, every=True).records
    done = publish(home, Path("results"))
    assert done.folder == home
    assert [r["planned"]["seeds"] for r in open_results(home).records] == [[0, 1, 2]] * 12
    earlier = open_results(home / EARLIER, every=True).records
    key = lambda record: json.dumps(record, sort_keys=True)  # noqa: E731
    assert sorted([*earlier, *open_results(home, every=True).records], key=key) == sorted(before, key=key)
    assert any(EARLIER in remark for remark in done.remarks)
    # Again: nothing more to move, nothing changes.
    once = files(home)
    publish(home, Path("results"))
    assert files(home) == once


def test_publishing_in_place_keeps_lines_that_can_not_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = written(Path("results/norms"), a_run())
    with (home / "records.jsonl").open("ab") as file:
        file.write(b'{"schema": 2, "torn')
    done = publish(home, Path("results"))
    assert any("line 13: torn" in remark for remark in done.remarks)
    assert (home / "records.damaged").read_bytes() == b'{"schema": 2, "torn\n'
    assert open_results(home).problems == ()


def test_what_an_earlier_publication_left_goes_and_other_files_stay(results):
    publish(results, Path("results"))
    folder = Path("results/norms")
    said = json.loads((folder / MANIFEST).read_text())
    for name in ("old.svg", "../outside.txt"):
        (folder / name).write_text("x")
        said["files"][name] = "0"
    (folder / MANIFEST).write_text(json.dumps(said))
    (folder / "mine.txt").write_text("x")
    publish(folder, Path("results"))
    assert not (folder / "old.svg").exists()
    assert (folder / "mine.txt").exists()
    assert Path("results/outside.txt").exists()


def test_an_unfinished_run_is_refused_unless_asked_for(tmp_path, capsys):
    home = written(tmp_path / "run", a_run()[:-2])
    with pytest.raises(UsageError, match=r"2 planned trials have no record yet: placebo \(2\): .*--partial"):
        publish(home, tmp_path / "results")
    assert not (tmp_path / "results").exists()
    assert main(["publish", str(home), "--to", str(tmp_path / "results"), "--partial"]) == 0
    assert "10/12 trials ok" in capsys.readouterr().out
    assert "pending: placebo" in (tmp_path / "results/norms/table.md").read_text()


def test_seeds_of_each_arm_decide_what_is_finished(tmp_path):
    records = [r for r in a_run() if r["arm"] == "baseline" or r["seed"] < 2]
    for record in records:
        record["planned"]["seeds_of"] = {arm: [0, 1] for arm in ARMS[1:]}
    assert publish(written(tmp_path / "run", records), tmp_path / "results").publication.planned == 9


def test_another_suite_file_is_refused_with_both_digests(results):
    (results / "norms.toml").write_bytes(SUITE + b"\n")
    mine, other = (hashlib.sha256(content).hexdigest()[:12] for content in (SUITE, SUITE + b"\n"))
    with pytest.raises(UsageError, match=rf"another version of norms\.toml: .*{mine}.*{other}.*--suite FILE"):
        publish(results, Path("results"))
    Path("kept.toml").write_bytes(SUITE)
    publish(results, Path("results"), suite=Path("kept.toml"))
    assert Path("results/norms/norms.toml").read_bytes() == SUITE


def test_without_a_copy_the_suite_is_looked_for_in_suites(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = written(tmp_path / "run", a_run(), suite=None)
    with pytest.raises(UsageError, match=r"no norms\.toml beside the records, nor in suites/: .*--suite FILE"):
        publish(home, Path("results"))
    Path("suites").mkdir()
    Path("suites/norms.toml").write_bytes(SUITE)
    publish(home, Path("results"))
    with pytest.raises(UsageError, match=r"--suite: gone\.toml can't be read"):
        publish(home, Path("results"), suite=Path("gone.toml"))


def test_records_that_are_published_nowhere_are_not_written_over(results, tmp_path):
    home = written(tmp_path / "results" / "norms", a_run(seeds=(0,)))
    with pytest.raises(UsageError, match="holds records that are not published"):
        publish(results, Path("results"))
    assert len(open_results(home).records) == 4
    publish(home, Path("results"))
    publish(results, Path("results"))  # those are published, so the newer run takes their place
    assert len(open_results(home).records) == 12


def test_a_folder_that_a_run_holds_is_left_alone(results):
    hold = (
        "import sys\nfrom pathlib import Path\nfrom cnnbench.store import Store\n"
        "with Store(Path('results/norms')).exclusive():\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match="another run is writing here"):
            publish(results, Path("results"))
    finally:
        other.communicate(b"", timeout=30)
    assert not Path("results/norms", FILE).exists()


# Folders and names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ada/data/shapes.npz", "/.../shapes.npz"),
        ("/home/Ada Lovelace/my data/shapes", "/.../shapes"),
        ("C:\\Users\\ada\\shapes.npz", "/.../shapes.npz"),
        ("D:/data/ada/shapes", "/.../shapes"),
        ("~/data/ada.npz", "/.../ada.npz"),
        ("train: OSError: /home/ada/x.npz: no such file", "train: OSError: /.../x.npz: no such file"),
        ("can't read '/root/a/b.pt' (x.py, line 3)", "can't read '/.../b.pt' (x.py, line 3)"),
        (
            'File "/home/a b/.venv/lib/python3.11/site-packages/torch/nn/m.py", line 3, in f\n    x / y\n',
            'File "/.../site-packages/torch/nn/m.py", line 3, in f\n    x / y\n',
        ),
        ('File "/usr/lib/python3.11/json/x.py", line 3\n', 'File "/.../python3.11/json/x.py", line 3\n'),
        ('File "/home/ada/cnnbench/stages/x.py", line 3\n', 'File "/.../cnnbench/stages/x.py", line 3\n'),
        ("/home/ada/cnnbench/acme/x.npz", "/.../x.npz"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("resnet/8/16 and 1/2/3", "resnet/8/16 and 1/2/3"),
        ("norm=group(groups=4)", "norm=group(groups=4)"),
        ("a / b / c", "a / b / c"),
        ("/x", "/x"),
    ],
)
def test_folders_of_absolute_paths_are_left_out(text, expected):
    assert without_folders(text) == expected
    assert without_folders({"a": [text, 1, None]}) == {"a": [expected, 1, None]}


@given(st.text(alphabet=st.sampled_from("/\\ab ~:.\"'\n(C"), max_size=40))
def test_leaving_folders_out_twice_changes_nothing_more(text):
    once = without_folders(text)
    assert without_folders(once) == once


def test_no_folder_of_the_machine_is_published(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    records = a_run()
    records[0]["settings"]["dataset"]["options"] = {"path": "/home/ada/shapes"}
    lost = {"status": "failed", "reason": "train: OSError: /home/ada/shapes/a.png", "metrics": {}}
    records[5] |= {**lost, "trace": 'File "/home/ada/.venv/x.py", line 1\n'}
    assert main(["publish", str(written(tmp_path / "run", records))]) == 0
    assert "folders of absolute paths left out of 2 records" in capsys.readouterr().err
    assert all(b"ada" not in content for content in files(Path("results")).values())
    assert "relative to where it lay" not in Path("results/norms/table.md").read_text()  # the last record has no path
    # A comparison still takes the path for one that moved.
    assert main(["compare", "run", "results/norms"]) == 0


# The command


def heading(**planned):
    return a_run()[0] | {"planned": {"arms": ARMS, "seeds": [0, 1, 2], **planned}}


def test_the_command_names_what_the_suite_does_not_say():
    assert command(heading(), SUITE) == "cnnbench run norms.toml --seeds 3 --results again"
    assert command(heading(seeds=[4, 5, 6]), SUITE) == "cnnbench run norms.toml --seeds 4-6 --results again"
    assert command(heading(seeds=[0, 1]), SUITE) == "cnnbench run norms.toml --results again"
    assert "--device cuda" in command(heading() | {"device": "cuda:1"}, SUITE)
    assert "--device cpu" in command(heading(), SUITE.replace(b'device = "cpu"\n', b""))
    some = command(heading(arms=["baseline", "group | norm"]), SUITE)
    assert some == "cnnbench run norms.toml --seeds 3 --only 'group | norm' --results again"


def test_arms_of_a_design_come_from_the_records():
    suite = SUITE.partition(b"[arms]")[0] + b'[design]\nkind = "factorial"\nnorm = ["batch", "group", "none"]\n'
    design = {"kind": "factorial", "axes": [], "cells": {"baseline": [0], "group": [1], "none": [2]}}
    full = heading(arms=["baseline", "group", "none", "placebo"]) | {"design": design}
    assert "--only" not in command(full, suite)
    assert "--only none " in command(heading(arms=["baseline", "none"]) | {"design": design}, suite)


def test_seeds_that_no_option_asks_for_are_told():
    assert list(other_seeds(heading(seeds=[3, 5]), SUITE)) == [3, 5]
    assert list(other_seeds(heading(seeds=[3, 5]), SUITE.replace(b"seeds = 2", b"seeds = [3, 5]"))) == []
    assert list(other_seeds(heading(), SUITE)) == []
    page = make(a_run(seeds=(3, 5)), SUITE).files["table.md"].decode()
    assert "the seeds 3, 5: write them into the suite" in page


def test_shown_is_the_latest_plan_on_all_datasets():
    def on(label):
        return [{**r, "key": f"{label}{r['key']}", "dataset": label} for r in a_run(seeds=(0, 1))]

    both = [*on("digits"), *on("fashion")]
    for record in both:
        record["planned"] = {**record["planned"], "datasets": ["digits", "fashion"]}
    assert [(r["dataset"], r["arm"], r["seed"]) for r in shown([*a_run(), *reversed(both)])] == [
        (label, arm, seed) for label in ("digits", "fashion") for arm in ARMS for seed in (0, 1)
    ]


# The index


def test_the_index_has_a_row_for_each_published_folder_and_keeps_the_rest_of_the_page(results, capsys):
    Path("results").mkdir()
    Path("results/README.md").write_text(f"# Results\n\nMine.\n\n{BEGIN}\nold\n{END}\n\nMore of mine.\n")
    assert main(["publish", "run"]) == 0
    other = [{**r, "suite": {**r["suite"], "name": "a|b"}} for r in a_run(seeds=(0, 1))]
    assert main(["publish", str(written(Path("other"), other))]) == 0
    shutil.copytree("results/norms", "results/deeper/norms")
    written(Path("results/unpublished"), a_run())
    assert refresh(Path("results")) == []
    text = Path("results/README.md").read_text()
    assert text.startswith("# Results\n\nMine.\n\n<!--")
    assert text.endswith("-->\n\nMore of mine.\n")
    rows = [row for row in text.splitlines() if row.startswith("| [")]
    assert [row.partition("]")[0] for row in rows] == ["| [a\\|b", "| [norms", "| [norms"]
    assert "(deeper/norms/table.md)" in rows[1]
    assert "| 4 × 3 | 12/12 | AMD EPYC 7763 | 2026-01-03 |" in rows[2]
    assert "Which norm?" in rows[2]


def test_a_damaged_folder_costs_its_row_alone(results, capsys):
    main(["publish", "run"])
    shutil.copytree("results/norms", "results/worse")
    Path("results/worse", FILE).write_text("")
    (problem,) = refresh(Path("results"))
    assert problem.startswith("no row in the index: results/worse")
    assert Path("results/README.md").read_text().count("| [norms]") == 1


def test_a_page_without_marks_gets_the_index_at_its_end(results):
    Path("results").mkdir()
    Path("results/README.md").write_text("Mine.")
    refresh(Path("results"))
    assert "Nothing is published yet." in Path("results/README.md").read_text()
    publish(results, Path("results"))
    for _ in range(2):
        refresh(Path("results"))
    text = Path("results/README.md").read_text()
    assert text.startswith("Mine.\n\n<!--")
    assert text.count(BEGIN) == text.count("| [norms]") == 1
    assert "| ok | machine | date |" in text


def test_a_folder_that_cannot_be_written_is_one_line(results, capsys):
    Path("results").write_text("a file")
    assert main(["publish", "run"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("cnnbench: ")
    assert err.count("\n") == 1
    assert Path("results").is_file()
