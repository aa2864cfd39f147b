import pytest

from fedistill.compress.settings import GRID, PRESETS, Bounds, Settings, preset
from fedistill.config import RunConfig
from fedistill.federation.learning import compression_of


@pytest.mark.parametrize(
    ("name", "ratios", "prune_by"),
    [
        ("custom", (0.3,), "taylor"),
        ("light", (0.2,), "group-l1"),
        ("half", (0.5,), "group-l1"),
        ("sparse", (0.7,), "unstructured"),
        ("search", GRID, "taylor"),
    ],
)
def test_a_preset_says_what_is_pruned_and_leaves_the_precision(name, ratios, prune_by) -> None:
    own = Settings(prune_ratio=0.3, prune_by="taylor", quantize="fp16")
    settings = preset(name, own)
    assert (settings.ratios, settings.prune_by) == (ratios, prune_by)
    assert settings.quantize == "fp16"


def test_every_preset_is_a_value_of_the_key_and_the_keys_arrive() -> None:
    for name in PRESETS:
        RunConfig.from_flat({"compression": name})
    config = RunConfig.from_flat(
        {
            "prune-by": "taylor",
            "quantize": "int8-qat",
            "float-ends": "both",
            "target-cpu": "any",
            "max-bytes": 5,
        }
    )
    assert compression_of(config) == Settings(
        prune_by="taylor",
        quantize="int8-qat",
        float_ends="both",
        target_cpu="any",
        bounds=Bounds(max_bytes=5),
    )


def test_a_bound_starts_a_search_and_no_ratio_prunes_nothing() -> None:
    assert Settings(bounds=Bounds(max_latency_ms=1.0)).ratios == GRID
    assert Settings(prune_ratio=0.0).ratios == ()
