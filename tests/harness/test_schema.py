from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from cnnbench.errors import SuiteError
from cnnbench.plugins import PluginHost
from cnnbench.schema import json_schema
from cnnbench.slots import SLOTS
from cnnbench.suite import parse

if TYPE_CHECKING:
    from cnnbench.registry import Registry

jsonschema = pytest.importorskip("jsonschema")

HEAD = 'question = "Why?"\ndataset = "digits"\nmodel = "resnet"\n'

# The example of the design document; its names exist among the built-in techniques too.
EXAMPLE = """question = "Which normalization survives small batches?"
dataset  = "digits"
model    = { name = "resnet", depth = 8, width = 16 }
seeds    = 10
device   = "auto"
[recipe]
epochs = 15
batch_size = 64
optimizer = { name = "sgd", lr = 0.1, momentum = 0.9 }
schedule = "cosine"
[baseline]
norm = "batch"
augmentation = ["hflip", { name = "translate", pixels = 2 }]
[arms]
"group norm" = { norm = { name = "group", groups = 4 } }
"no norm"    = { norm = "none" }
"batch of 4" = { recipe = { batch_size = 4 } }
[measure]
primary = "accuracy"
metrics = ["accuracy", "f1_macro", "params", "flops", "size", "latency", "energy"]
latency = { batch_sizes = [1, 32] }
margin  = { accuracy = 0.005 }
"""

DESIGN = """[design]
kind = "factorial"
norm = ["batch", { name = "group", groups = 4 }]
activation = ["relu", "silu"]
"recipe.batch_size" = [4, 16, 64]
"""

ACCEPTED = [
    EXAMPLE,
    EXAMPLE.replace('norm = "none"', 'norm = "none", against = "group norm"'),
    HEAD,
    HEAD + "seeds = [3, 1]\nplacebo = true\ntime_limit = 2.5\ndevice = 'cuda:0'",
    HEAD.replace('"digits"', '{ name = "folder", path = "x", train_size = 3 }'),
    HEAD + '[arms]\na = { model = { depth = 14 }, augmentation = [] }\nb = { augmentation = "none", model = "plain" }',
    HEAD + '[baseline]\ncompressor = { name = "distill", student = "plain" }',
    HEAD + '[baseline]\ncompressor = { name = "chain", steps = ["prune", { name = "distill" }] }',
    HEAD + "[recipe]\nepochs = 3\nchannels_last = true",
    HEAD + '[measure]\nprimary = "mcc"\nenergy = { windows = 4 }',
    HEAD + '[measure]\nenergy = { source = "constant", watts = 15, country = "FRA" }',
    HEAD + '[measure]\nenergy = { source = "constant", watts = { cpu = 15.5, gpu = 70 } }',
    HEAD + DESIGN.replace("silu", "tanh"),
    HEAD + '[design]\nkind = "cumulative"\nrecipe.epochs = [1, 2]\nmodel.depth = [8, 14]\naugmentation = [[], "hflip"]',
    HEAD.replace('model = "resnet"\n', "") + '[design]\nkind = "factorial"\nmodel = ["resnet", "plain"]',
    HEAD + '[baseline]\nregularizer = "dropout"\n[design]\nkind = "leave-one-out"',
]

REFUSED = [
    EXAMPLE.replace('norm = "none"', 'norm = "none", against = 3'),
    HEAD.replace("question", "questin"),
    HEAD.replace('model = "resnet"\n', ""),
    HEAD.replace("digits", "digit"),
    HEAD.replace('"digits"', '"folder"'),
    HEAD.replace('"digits"', '{ name = "folder" }'),
    HEAD.replace('"digits"', '{ name = "digits", tran_size = 3 }'),
    HEAD.replace('"resnet"', '{ name = "resnet", depth = "8" }'),
    HEAD.replace('"resnet"', "{ depth = 8 }"),
    HEAD + "seeds = 0",
    HEAD + "seeds = []",
    HEAD + 'device = "gpu"',
    HEAD + "time_limit = 0",
    HEAD + "[recipe]\nepoch = 3",
    HEAD + '[recipe]\noptimizer = "hflip"',
    HEAD + '[baseline]\nnorm = ["batch"]',
    HEAD + '[baseline]\nnorm = { name = "group", groups = 0 }',
    HEAD + '[baseline]\noptimizer = "sgd"',
    HEAD + '[baseline]\ncompressor = "chain"',
    HEAD + '[baseline]\ncompressor = { name = "prune", scope = "globl" }',
    HEAD + "[arms]\na = { seeds = 3 }",
    HEAD + "[arms]\na = { recipe = { batch_size = 0 } }",
    HEAD + '[arms]\nbaseline = { norm = "group" }',
    HEAD + '[measure]\nprimary = "acuracy"',
    HEAD + "[measure]\nmargin = { acuracy = 1 }",
    HEAD + "[measure]\nenergy = { windows = 1 }",
    HEAD + '[design]\nnorm = ["batch", "group"]',
    HEAD + '[design]\nkind = "factorial"\nnorm = ["batch"]',
    HEAD + '[design]\nkind = "factorial"\nnrm = ["batch", "group"]',
    HEAD + '[design]\nkind = "factorial"\n"recipe.epoch" = [1, 2]',
    HEAD + '[design]\nkind = "factorial"\nnorm = ["batch", "group"]\n[arms]',
]


@pytest.fixture(scope="module")
def validator(fake_registry: Registry) -> Any:
    schema = json.loads(json.dumps(json_schema(fake_registry)))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("text", ACCEPTED)
def test_it_accepts_what_the_harness_accepts(fake_registry: Registry, validator: Any, text: str) -> None:
    parse(text.encode(), "s.toml", fake_registry)
    validator.validate(tomllib.loads(text))


@pytest.mark.parametrize("text", REFUSED)
def test_it_refuses_what_the_harness_refuses(fake_registry: Registry, validator: Any, text: str) -> None:
    with pytest.raises(SuiteError):
        parse(text.encode(), "s.toml", fake_registry)
    assert not validator.is_valid(tomllib.loads(text))


def test_it_carries_defaults_bounds_and_first_lines(fake_registry: Registry) -> None:
    schema = json_schema(fake_registry)
    group = schema["$defs"]["norm.group"]
    assert group["description"] == "Group normalization."
    assert group["properties"]["groups"] == {"type": "integer", "minimum": 1, "default": 8}
    teacher = schema["$defs"]["compressor.distill"]["properties"]["teacher"]
    assert teacher == {"$ref": "#/$defs/model", "default": {"name": "resnet", "depth": 14, "width": 16}}
    recipe = schema["$defs"]["recipe"]["properties"]
    assert recipe["epochs"]["default"] == 10
    assert recipe["epochs"]["description"] == "passes over the training split."
    assert recipe["schedule"]["description"] == recipe["loss"]["description"] == "choices in the slots of those names."


def test_the_built_in_techniques() -> None:
    registry = PluginHost.discover().registry
    schema = json.loads(json.dumps(json_schema(registry)))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for entry in registry:
        assert schema["$defs"][f"{entry.card.slot}.{entry.card.name}"]["description"] == entry.summary
    assert set(SLOTS) <= set(schema["$defs"])
    for text in (EXAMPLE, HEAD + DESIGN):
        parse(text.encode(), "s.toml", registry)
        validator.validate(tomllib.loads(text))
