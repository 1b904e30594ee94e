from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench import record_fields
from cnnbench.errors import SuiteError
from cnnbench.plugins import PluginHost
from cnnbench.suite import load, parse
from cnnbench.text import LONGEST_NAME
from cnnbench.types import Choice, DataOptions, EnergyOptions, LatencyOptions, Measure, Recipe

if TYPE_CHECKING:
    from cnnbench.errors import Problem
    from cnnbench.registry import Registry
    from cnnbench.suite import Suite

# The example of the design document, with technique names of the fakes.
EXAMPLE = """question = "Which normalization survives small batches?"
dataset  = "digits"                                # a name, or a table
model    = { name = "resnet", depth = 8, width = 16 }
seeds    = 10                                      # a count, or a list
device   = "auto"

[recipe]                                           # the training budget and procedure that all arms share
epochs = 15
batch_size = 64
optimizer = { name = "sgd", lr = 0.1, momentum = 0.9 }
schedule = "cosine"

[baseline]                                         # techniques by slot; a slot left out keeps the model's own
norm = "batch"
augmentation = ["hflip", { name = "translate", pixels = 2 }]

[arms]                                             # each arm is the baseline with these changes
"group norm" = { norm = { name = "group", groups = 4 } }
"no norm"    = { norm = "none" }
"batch of 4" = { recipe = { batch_size = 4 } }

[measure]
primary = "accuracy"
metrics = ["accuracy", "f1_macro", "params", "flops", "size", "latency", "energy"]
latency = { batch_sizes = [1, 32] }
margin  = { accuracy = 0.005 }                     # the difference that would not matter
"""

DEVICE = "4: device: expected one of auto, cpu, cuda, mps, xla, tpu, or such as cuda:1, got "
HEAD = 'question = "Why?"\ndataset = "digits"\nmodel = "resnet"\n'


def read(text: str, registry: Registry) -> Suite:
    return parse(text.encode(), "/suites/norms.toml", registry)


def mistakes(text: str | bytes, registry: Registry) -> list[str]:
    """The problems of a suite that must have some, without the file's name."""
    content = text.encode() if isinstance(text, str) else text
    with pytest.raises(SuiteError) as caught:
        parse(content, "s.toml", registry)
    assert [problem.line for problem in caught.value.problems] == sorted(p.line for p in caught.value.problems)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    assert all("\n" not in problem.message for problem in caught.value.problems)
    return [str(problem).removeprefix("s.toml").lstrip(":").lstrip() for problem in caught.value.problems]


def test_the_whole_format(fake_registry: Registry) -> None:
    suite = read(EXAMPLE, fake_registry)
    assert suite.name == "norms"
    assert suite.question == "Which normalization survives small batches?"
    assert suite.seeds == tuple(range(10))
    assert (suite.device, suite.placebo, suite.time_limit, suite.design) == ("auto", False, None, None)
    assert suite.text == EXAMPLE
    assert suite.baseline.dataset == Choice("dataset", "digits", {})
    assert suite.baseline.data == DataOptions()
    assert suite.baseline.model == Choice("model", "resnet", {"depth": 8, "width": 16})
    assert suite.baseline.recipe == Recipe(
        epochs=15,
        batch_size=64,
        optimizer=Choice("optimizer", "sgd", {"lr": 0.1, "momentum": 0.9}),
        schedule=Choice("schedule", "cosine", {}),
        loss=Choice("loss", "cross_entropy", {}),
        precision="fp32",
        channels_last=None,
    )
    augmentation = (Choice("augmentation", "hflip", {"p": 0.5}), Choice("augmentation", "translate", {"pixels": 2}))
    batch = Choice("norm", "batch", {"momentum": 0.1})
    assert suite.baseline.techniques == {"norm": (batch,), "augmentation": augmentation}
    group, none, small = suite.arms
    assert [arm.name for arm in suite.arms] == ["group norm", "no norm", "batch of 4"]
    assert {arm.role for arm in suite.arms} == {"arm"}
    assert group.settings.techniques["norm"] == (Choice("norm", "group", {"groups": 4, "affine": True}),)
    assert group.settings.techniques["augmentation"] == augmentation
    assert group.changes == "norm=group(groups=4)"
    # The fakes register a norm called none, which is not the same as the model's own.
    assert none.settings.techniques["norm"] == (Choice("norm", "none", {}),)
    assert small.settings.recipe.batch_size == 4
    assert small.settings.recipe.epochs == 15
    assert small.changes == "recipe.batch_size=4"
    assert suite.measure == Measure(
        primary="accuracy",
        metrics=("accuracy", "f1_macro", "params", "flops", "size", "latency", "energy"),
        latency=LatencyOptions(batch_sizes=(1, 32)),
        margin={"accuracy": 0.005},
    )


def test_what_is_left_out_has_defaults(fake_registry: Registry) -> None:
    suite = read(HEAD, fake_registry)
    recipe = suite.baseline.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.precision) == (10, 64, "fp32")
    assert recipe.optimizer == Choice("optimizer", "sgd", {"lr": 0.1, "momentum": 0.9})
    assert (recipe.schedule.name, recipe.loss.name) == ("cosine", "cross_entropy")
    assert suite.seeds == (0, 1, 2)
    assert suite.measure == Measure()
    assert (suite.arms, suite.design) == ((), None)
    assert dict(suite.baseline.techniques) == {}


def test_the_rest_of_the_format(fake_registry: Registry) -> None:
    suite = read(
        """
        question = "  Why?  "
        seeds = [7, 0, 3]
        device = "cuda:1"
        placebo = true
        time_limit = 90
        [dataset]
        name = "folder"
        path = "../cats"
        train_size = 500
        validation = 0
        [model]
        name = "plain"
        [recipe]
        precision = "bf16"
        channels_last = true
        [measure]
        primary = "mcc"
        latency = { batch_sizes = [8], threads = 2, max_seconds = 1 }
        energy = { windows = 5 }
        """,
        fake_registry,
    )
    assert suite.question == "Why?"
    assert suite.seeds == (7, 0, 3)
    assert (suite.device, suite.placebo, suite.time_limit) == ("cuda:1", True, 90.0)
    assert suite.baseline.dataset == Choice("dataset", "folder", {"path": "/cats", "size": None})
    assert suite.baseline.data == DataOptions(train_size=500, validation=0.0)
    assert (suite.baseline.recipe.precision, suite.baseline.recipe.channels_last) == ("bf16", True)
    # The metric that decides is in the table whether it is listed or not.
    assert suite.measure.metrics == ("mcc", *Measure().metrics)
    assert suite.measure.latency == LatencyOptions(batch_sizes=(8,), max_seconds=1.0, threads=2)
    assert suite.measure.energy == EnergyOptions(windows=5)


def test_arms_clear_replace_and_reorder_slots(fake_registry: Registry) -> None:
    text = HEAD + '[baseline]\nactivation = "leaky_relu"\naugmentation = ["hflip", "mixup"]\n[arms]\n'
    arms = {
        arm.name: arm
        for arm in read(
            text
            + 'a = { augmentation = [] }\nb = { activation = "none" }\nc = { augmentation = ["mixup", "hflip"] }\n'
            + 'd = { augmentation = "hflip" }\ne = { model = "plain" }\nf = { model = { depth = 14 } }\n'
            + 'g = { recipe = { optimizer = "adam" }, norm = "batch" }\n'
            + 'h = { augmentation = "none", norm = "group" }\n',
            fake_registry,
        ).arms
    }
    assert "augmentation" not in arms["a"].settings.techniques
    assert arms["a"].changes == "augmentation=none"
    # No activation is called none, so the word clears the slot.
    assert "activation" not in arms["b"].settings.techniques
    assert arms["b"].changes == "activation=the model's own"
    assert [c.name for c in arms["c"].settings.techniques["augmentation"]] == ["mixup", "hflip"]
    assert arms["d"].changes == "augmentation=hflip"
    assert arms["e"].changes == "model=plain"
    assert arms["f"].settings.model.options == {"depth": 14, "width": 16}
    assert arms["f"].changes == "model.depth=14"
    assert arms["g"].changes == "recipe.optimizer=adam, norm=batch"
    assert "augmentation" not in arms["h"].settings.techniques


def test_slots_keep_one_order_however_they_are_written(fake_registry: Registry) -> None:
    one = read(HEAD + '[baseline]\nregularizer = "dropout"\nnorm = "batch"\n', fake_registry)
    two = read(HEAD + '[baseline]\nnorm = "batch"\nregularizer = "dropout"\n', fake_registry)
    assert list(one.baseline.techniques) == list(two.baseline.techniques) == ["norm", "regularizer"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'questin = "q"\n' + HEAD,
            ["1: questin: unknown key 'questin' at the top of a suite: did you mean 'question'?"],
        ),
        ("epochs = 3\n" + HEAD, ["1: epochs: 'epochs' belongs in [recipe], or an arm's recipe = { ... }"]),
        ('norm = "batch"\n' + HEAD, ["1: norm: 'norm' belongs in [baseline] or an arm"]),
        ('metrics = ["nll"]\n' + HEAD, ["1: metrics: 'metrics' belongs in [measure]"]),
        ("train_size = 9\n" + HEAD, ["1: train_size: 'train_size' belongs in the dataset's table"]),
        (HEAD.replace("Why?", " "), ["1: question: expected text that is not empty, got ' '"]),
        (HEAD.replace('"Why?"', "3"), ["1: question: expected text that is not empty, got 3"]),
        (HEAD.replace("digits", "digit"), ["2: dataset: unknown dataset 'digit': did you mean 'digits'?"]),
        (
            HEAD.replace('"digits"', '{ name = "digits", tran_size = 3 }'),
            ["2: dataset.tran_size: dataset 'digits' has no option 'tran_size': did you mean 'train_size'?"],
        ),
        (
            HEAD.replace('"digits"', '{ name = "digits", validation = 0.6 }'),
            ["2: dataset.validation: expected a number >= 0 and <= 0.5, got 0.6"],
        ),
        (
            HEAD.replace('"resnet"', "{ d = 8 }"),
            ['3: model: expected a name in slot model, or { name = "...", ... }, got {d = 8}; known are plain, resnet'],
        ),
        (
            HEAD + "seeds = 0",
            ["4: seeds: expected an integer >= 1 and <= 10000 or a list of one or more integers >= 0, got 0"],
        ),
        (
            HEAD + "seeds = []",
            ["4: seeds: expected an integer >= 1 and <= 10000 or a list of one or more integers >= 0, got []"],
        ),
        (
            HEAD + "seeds = true",
            ["4: seeds: expected an integer >= 1 and <= 10000 or a list of one or more integers >= 0, got true"],
        ),
        (HEAD + "seeds = [0, 1,\n 0]", ["5: seeds[2]: seed 0 is listed twice"]),
        (HEAD + 'device = "gpu"', [f"{DEVICE}'gpu': did you mean 'cuda'?"]),
        (HEAD + 'device = "cdua"', [f"{DEVICE}'cdua': did you mean 'cuda'?"]),
        (HEAD + 'device = "cpu:1"', [f"{DEVICE}'cpu:1'"]),
        (HEAD + 'device = "cuda:x"', [f"{DEVICE}'cuda:x'"]),
        (HEAD + "placebo = 1", ["4: placebo: expected true or false, got 1"]),
        (HEAD + "time_limit = 0", ["4: time_limit: expected a number > 0, got 0"]),
        (HEAD + "time_limit = 2020-01-01", ["4: time_limit: expected a number > 0, got 2020-01-01"]),
        (HEAD + "recipe = 3", ["4: recipe: expected a table such as { epochs = 20 }, got 3"]),
        (HEAD + "[recipe]\nepoch = 3", ["5: recipe.epoch: the recipe has no option 'epoch': did you mean 'epochs'?"]),
        (
            HEAD + '[recipe]\nprecision = "fp16"',
            ["5: recipe.precision: expected one of 'fp32', 'bf16', got 'fp16': did you mean 'bf16'?"],
        ),
        (
            HEAD + '[recipe]\noptimizer = { name = "sgd", rate = 1 }',
            ["5: recipe.optimizer.rate: optimizer 'sgd' has no option 'rate': known are lr, momentum"],
        ),
        (HEAD + "baseline = 3", ["4: baseline: expected a table of techniques by slot, got 3"]),
        (
            HEAD + '[baseline]\nnrm = "batch"',
            ["5: baseline.nrm: unknown key 'nrm' in [baseline]: did you mean 'norm'?"],
        ),
        (HEAD + '[baseline]\nmodel = "plain"', ["5: baseline.model: 'model' belongs at the top of the file"]),
        (
            HEAD + '[baseline]\nloss = "ce"',
            ["5: baseline.loss: 'loss' belongs in [recipe], or an arm's recipe = { ... }"],
        ),
        (HEAD + '[baseline]\nmetric = "mcc"', ["5: baseline.metric: 'metric' belongs in measure.metrics, by name"]),
        (
            HEAD + '[baseline]\nnorm = ["batch"]',
            ["5: baseline.norm: slot norm takes one technique, got a list: ['batch']"],
        ),
        (
            HEAD + '[baseline]\naugmentation = [\n"hflip",\n"relu"]',
            ["7: baseline.augmentation[1]: unknown augmentation 'relu': 'relu' belongs to slot 'activation'"],
        ),
        (HEAD + "arms = 3", ["4: arms: expected a table of arms, got 3"]),
        (
            HEAD + '[arms]\na = "group"',
            ["5: arms.a: expected a table of changes, such as { norm = \"batch\" }, got 'group'"],
        ),
        (HEAD + '[arms]\na = { dataset = "x" }', ["5: arms.a.dataset: 'dataset' belongs at the top of the file"]),
        (HEAD + "[arms]\na = { seeds = 3 }", ["5: arms.a.seeds: 'seeds' belongs at the top of the file"]),
        (
            HEAD + '[arms]\na = { optimiser = "x" }',
            [
                "5: arms.a.optimiser: unknown key 'optimiser' in an arm: did you mean 'optimizer'?",
            ],
        ),
        (
            HEAD + '[arms."group norm".norm]\nname = "group"\ngroups = "x"',
            ["6: arms.\"group norm\".norm.groups: expected an integer >= 1, got 'x'"],
        ),
        (
            HEAD + "[arms]\na = { recipe = { batch_size = 0 } }",
            ["5: arms.a.recipe.batch_size: expected an integer >= 1, got 0"],
        ),
        (HEAD + "[arms]\na = { model = { depth = 9 } }", ["5: arms.a.model: depth must be 6n + 2, got 9"]),
        (HEAD + "[arms]\na = {}", ["5: arms.a: arm 'a' comes to the same settings as the baseline"]),
        (
            HEAD + "[recipe]\nbatch_size = 4\n[arms]\na = { recipe = { batch_size = 4 } }",
            ["7: arms.a: arm 'a' comes to the same settings as the baseline"],
        ),
        (
            HEAD + '[arms]\na = { norm = "group" }\nb = { norm = { name = "group", groups = 8 } }',
            ["6: arms.b: arm 'b' comes to the same settings as arm 'a'"],
        ),
        (
            HEAD + '[arms]\nBaseline = { norm = "group" }\nplacebo = { norm = "batch" }',
            [
                "5: arms.Baseline: the name 'Baseline' is taken by an arm that the harness adds itself",
                "6: arms.placebo: the name 'placebo' is taken by an arm that the harness adds itself",
            ],
        ),
        (HEAD + '[arms]\n" " = { norm = "group" }', ['5: arms." ": expected a name that people can read on one line']),
        (HEAD + "measure = 3", ["4: measure: expected a table, got 3"]),
        (
            HEAD + '[measure]\nprimary = "acuracy"',
            ["5: measure.primary: unknown metric 'acuracy': did you mean 'accuracy'?"],
        ),
        (
            HEAD + '[measure]\nmetrics = ["params", "flps"]',
            ["5: measure.metrics[1]: unknown metric 'flps': did you mean 'flops'?"],
        ),
        (HEAD + '[measure]\nmetrics = ["params", "params"]', ["5: measure.metrics[1]: 'params' is listed twice"]),
        (
            HEAD + "[measure]\nlatency = { batch_sizes = [\n1,\n32,\n1] }",
            ["8: measure.latency.batch_sizes[2]: 1 is listed twice"],
        ),
        (
            HEAD + "[measure]\nmargin = { acuracy = 1 }",
            ["5: measure.margin.acuracy: unknown metric 'acuracy': did you mean 'accuracy'?"],
        ),
        (
            HEAD + "[measure]\nmargin = { nll = 1 }",
            ["5: measure.margin.nll: a margin for 'nll', which measure.metrics does not list"],
        ),
        (
            HEAD + "[measure]\nmargin = { accuracy = 0 }",
            ["5: measure.margin: expected a table of numbers > 0, got {accuracy = 0}"],
        ),
        (HEAD + "[measure]\nlatency = 3", ["5: measure.latency: expected a table, got 3"]),
        (
            HEAD + "[measure]\nlatency = { batchsizes = [1] }",
            ["5: measure.latency.batchsizes: measure.latency has no option 'batchsizes': did you mean 'batch_sizes'?"],
        ),
        (HEAD + "[measure]\nenergy = { windows = 2 }", ["5: measure.energy.windows: expected an integer >= 3, got 2"]),
        (
            HEAD + '[measure]\nenergy = { source = "constnt" }',
            [
                (
                    "5: measure.energy.source: expected one of 'auto', 'counters', 'codecarbon', 'constant', "
                    "got 'constnt': did you mean 'constant'?"
                )
            ],
        ),
        (
            HEAD + '[measure]\nenergy = { source = "constant", watts = "15" }',
            ["5: measure.energy.watts: expected a number > 0 or a table of numbers > 0, got '15'"],
        ),
        (
            HEAD + "[measure]\nenergy = { watts = 15 }",
            ["5: measure.energy: watts go with source = 'constant', got source = 'auto'"],
        ),
        (
            HEAD + "[measure]\nenergy = { intensity = 56 }",
            ["5: measure.energy: an intensity needs its source, e.g. intensity_source = 'RTE 2024, France'"],
        ),
        (
            HEAD + '[measure]\nenergy = { country = "France" }',
            [
                (
                    "5: measure.energy.country: expected a country's three letters, e.g. 'FRA', got 'France': "
                    "did you mean 'FRA'?"
                )
            ],
        ),
        (HEAD + '[design]\nkind = "factorial"\n[arms]', ["4: design: a suite has [arms] or a [design], not both"]),
    ],
)
def test_each_mistake_has_its_own_line(fake_registry: Registry, text: str, expected: list[str]) -> None:
    assert mistakes(text, fake_registry) == expected


def test_names_are_no_longer_than_records_may_have_them(fake_registry: Registry) -> None:
    text = HEAD + '[arms]\n"%s" = { norm = "group" }'
    (told,) = mistakes(text % ("x" * 1001), fake_registry)
    assert told == f"4: arms: the arm's name {'x' * 40}… has 1,001 characters, expected at most 1,000"
    (arm,) = read(text % ("x" * 1000), fake_registry).arms
    assert len(arm.name) == LONGEST_NAME == record_fields.LONGEST_NAME


def test_missing_parts_are_all_told(fake_registry: Registry) -> None:
    assert mistakes("seeds = 3", fake_registry) == [
        'question: missing: expected the question that the suite answers, question = "..."',
        'dataset: missing: expected a dataset, such as dataset = "digits"',
        'model: missing: expected a model, such as model = "resnet"',
    ]


def test_all_mistakes_at_once_in_the_files_order(fake_registry: Registry) -> None:
    text = EXAMPLE.replace('"batch"', '"bach"').replace("primary", "primry").replace("seeds    = 10", "seeds = 0")
    text = text.replace('"sgd"', '"sdg"').replace("groups = 4", 'groups = "x"').replace("depth = 8", "depth = 0")
    found = mistakes(text, fake_registry)
    assert [line.split(":")[1].strip() for line in found] == [
        *("model.depth", "seeds", "recipe.optimizer.name", "baseline.norm"),
        *('arms."group norm".norm.groups', "measure.primry"),
    ]


def test_a_mistake_of_the_model_is_not_told_again_by_every_arm(fake_registry: Registry) -> None:
    text = (
        HEAD.replace('"resnet"', '{ name = "resnet", width = 0 }') + "[arms]\na = { model = { depth = 8, dept = 8 } }"
    )
    assert mistakes(text, fake_registry) == [
        "3: model.width: expected an integer >= 1, got 0",
        "5: arms.a.model.dept: model 'resnet' has no option 'dept': did you mean 'depth'?",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "nothing is in it: a suite needs question, dataset and model"),
        (b" \n# only a comment\n", "nothing is in it: a suite needs question, dataset and model"),
        (b"a = 1\nb = = 2\n", "2: not TOML: invalid value (column 5)"),
        (b"question: yes\n", "1: not TOML: expected '=' after a key in a key/value pair (column 9)"),
        (b"a = 1\n[x]\nb = [1,\n", "3: not TOML: "),
        (HEAD.encode() + b"[arms]\na = {}\n'b' = {}\na = {}\n", "7: not TOML: a is given twice"),
        (HEAD.encode() + b"[arms]\n[baseline]\n[arms]\n", "6: not TOML: [arms] is given twice"),
        (b"\x7fELF\x02\x01\x01\x00\xff\xfe", "1: not a text file in UTF-8 (byte 8); expected TOML"),
        (b"\n\n\xff", "3: not a text file in UTF-8 (byte 2); expected TOML"),
        (b"a = " + b"[" * 20000, "not TOML that can be read: brackets are nested too deeply"),
        (b"a = " + b"9" * 5000, "not TOML: "),
    ],
)
def test_files_that_are_no_suite(fake_registry: Registry, content: bytes, expected: str) -> None:
    [found] = mistakes(content, fake_registry)
    assert found.startswith(expected)


def test_windows_files_read_the_same(fake_registry: Registry) -> None:
    content = b"\xef\xbb\xbf" + EXAMPLE.replace("\n", "\r\n").encode()
    assert parse(content, "/suites/norms.toml", fake_registry).arms == read(EXAMPLE, fake_registry).arms


def test_files_that_are_not_there(fake_registry: Registry, tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(SuiteError) as caught:
            load(path, fake_registry)
        return str(caught.value)

    (tmp_path / "norms.toml").write_text(EXAMPLE)
    assert message(tmp_path / "norm.toml") == f"{tmp_path}/norm.toml: no such file: did you mean 'norms.toml'?"
    assert message(tmp_path) == f"{tmp_path}: this is a folder, expected a suite file; it holds norms.toml"
    assert message(tmp_path / "x" / "y.toml").endswith(f"no such file: there is no folder '{tmp_path}/x'")
    assert "part of the path is a file" in message(tmp_path / "norms.toml" / "y.toml")
    assert "can't be read" in message(Path("a\0b"))
    assert load(tmp_path / "norms.toml", fake_registry).name == "norms"


def test_missing_data_is_told_among_the_other_mistakes(fake_registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "cats.toml"
    text = HEAD.replace('"digits"', '{ name = "folder", path = "cats" }')
    file.write_text(text + "seeds = 0")
    with pytest.raises(SuiteError) as caught:
        load(file, fake_registry, data=True)
    data, seeds = caught.value.problems
    assert (data.line, data.place) == (2, "dataset")
    assert data.message == f"no folder {tmp_path}/cats: expected one folder of images for each class"
    assert seeds.place == "seeds"

    file.write_text(text)
    suite = load(file, fake_registry)
    (tmp_path / "cats").mkdir()
    assert load(file, fake_registry, data=True) == suite


def outcome(text: str, registry: Registry) -> list[Problem]:
    """The problems of a suite, none where it is fine; any other exception comes through."""
    try:
        read(text, registry)
    except SuiteError as error:
        return list(error.problems)
    return []


MUTANTS = st.tuples(
    st.integers(0, len(EXAMPLE) - 1),
    st.integers(0, 12),
    st.sampled_from(["", '"', "[", "=", "0", "x", "\n", "{}", "true"]),
)


@settings(deadline=None, max_examples=80)
@given(st.lists(MUTANTS, min_size=1, max_size=3))
def test_any_damage_to_a_suite_is_a_suite_or_a_suite_error(
    fake_registry: Registry, damage: list[tuple[int, int, str]]
) -> None:
    text = EXAMPLE
    for at, length, new in damage:
        text = text[:at] + new + text[at + length :]
    problems = outcome(text, fake_registry)
    assert all(0 <= problem.line <= text.count("\n") + 1 for problem in problems)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_suite_error(fake_registry: Registry, content: bytes) -> None:
    with pytest.raises(SuiteError):
        parse(content, "s.toml", fake_registry)


@pytest.mark.parametrize("registry", ["fakes", "installed"])
def test_reading_a_suite_does_not_import_torch(tmp_path: Path, registry: str) -> None:
    file = tmp_path / "suite.toml"
    file.write_text(EXAMPLE if registry == "fakes" else HEAD.replace("resnet", "lenet"))
    source = (
        "from fake_techniques import make_registry; registry = make_registry()"
        if registry == "fakes"
        else "from cnnbench.plugins import PluginHost; registry = PluginHost.discover().registry"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); {source}\n"
        "from cnnbench.errors import SuiteError\nfrom cnnbench.matrix import trials\nfrom cnnbench.suite import load\n"
        f"suite = load({str(file)!r}, registry, data=True)\n"
        "assert trials(suite)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout) == ("", "False\n")


def test_the_built_in_recipe_defaults_exist() -> None:
    registry = PluginHost.discover().registry
    suite = read(HEAD.replace("resnet", "lenet"), registry)
    assert suite.baseline.recipe.optimizer.options["lr"] == 0.1
    assert suite.baseline.recipe.optimizer.options["momentum"] == 0.9
