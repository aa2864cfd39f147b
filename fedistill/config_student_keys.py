"""The keys of the run config about the student: what learns from the answers, and what ships."""

from typing import Annotated

from pydantic import AfterValidator, Field

from fedistill import config_rules as rules
from fedistill.config_keys import Keys


class StudentKeys(Keys):
    """What learns from the answers, and what ships."""

    student: Annotated[str, AfterValidator(rules.student)] = Field(
        "mlp",
        description="the student's architecture: `mlp` for tables; `cnn`, `resnet` or `vit` for "
        "square images, or `encoder`, which begins as the run's encoder; or your own network, an "
        "import path `package.module:factory`",
    )
    augmentation: Annotated[str, rules.one_of("auto", "affine", "none")] = Field(
        "auto",
        description="what the student sees besides public rows: images moved at random (`affine`), "
        "or nothing (`none`); `auto`: images for students of images, else rows with swapped "
        "entries",
    )
    label_propagation: bool = Field(
        False,
        description="whether a student of images learns labels that were spread over images whose "
        "public features lie close",
    )
    cross_fit_folds: int = Field(
        3,
        ge=0,
        le=10,
        description="parts of the proxy images, each labelled by students of images that learned "
        "from the others, so that noise is not learnt by heart; 0: none",
    )
    self_training: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of its target that a student of images replaces by its own answers in "
        "each of 20 steps, after a quarter of its training; 0: none",
    )
    student_epochs: int = Field(
        0,
        ge=0,
        le=10_000,
        description="passes over the proxy images of a student of images; 0: what suits it",
    )
    recipe: Annotated[str, AfterValidator(rules.recipe)] = Field(
        "auto",
        description="how the student is trained: `auto`, a preset (`curriculum`, `four-term`, "
        "`mean-teacher`, `mixup`, `noise-aware`), or the full path of a TOML file of stages",
    )
    public_teacher: Annotated[str, AfterValidator(rules.public_teacher)] = Field(
        "",
        description="a public model on the server, whose inside recipes may use: an import path "
        "`package.module:factory`, or the full path of an ONNX file or of a safetensors file of "
        "logits; empty: none",
    )
    track: Annotated[str, rules.one_of("none", "tensorboard", "mlflow")] = Field(
        "none", description="where a recipe's losses are logged: `tensorboard` or `mlflow`"
    )
    train_processes: int = Field(
        1,
        ge=1,
        le=64,
        description="processes that train the student by a recipe, each on a GPU of its own where "
        "there are as many",
    )
    compression: Annotated[str, rules.one_of("custom", "light", "half", "sparse", "search")] = (
        Field(
            "custom",
            description="how much is pruned: what `prune-ratio` and `prune-by` say (`custom`); 20% "
            "or 50% of the channels (`light`, `half`); 70% of the weights (`sparse`); or what a "
            "`search` over several shares of the channels finds smallest",
        )
    )
    prune_ratio: float = Field(
        0.5, ge=0, le=0.9, description="share of the student's channels to prune"
    )
    prune_by: Annotated[str, rules.one_of("group-l1", "taylor", "unstructured")] = Field(
        "group-l1",
        description="what goes first: channels of small weights (`group-l1`), or that matter "
        "little to the loss (`taylor`); or single small weights (`unstructured`), which makes "
        "files smaller only where they are compressed",
    )
    quantize: Annotated[str, rules.one_of("int8", "int8-dynamic", "int8-qat", "fp16", "none")] = (
        Field(
            "int8",
            description="precision of the shipped student: `int8`; `int8-dynamic`, without ranges "
            "of activations; `int8-qat`, after training behind the rounding (pip extra `qat`); "
            "`fp16` for GPUs; or `none`",
        )
    )
    float_ends: Annotated[str, rules.one_of("last", "both", "none")] = Field(
        "last",
        description="layers that stay in float32 in an int8 file: the `last`, `both` ends or "
        "`none`",
    )
    target_cpu: Annotated[str, rules.one_of("here", "any", "vnni")] = Field(
        "here",
        description="CPU that int8 files are made for: this one (`here`), `any`, whose weights "
        "keep to 7 bits, or those with `vnni`",
    )
    max_latency_ms: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="milliseconds that the shipped student may take for one row on one thread of "
        "the server; 0: no bound. A bound starts a search",
    )
    max_bytes: int = Field(
        0,
        ge=0,
        le=10**12,
        description="size that the shipped student's file may have; 0: no bound. A bound starts a "
        "search",
    )
