"""Methods that make sense together become a recipe; others are refused with what to do."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate_runtime.compress.recipe import Asked, resolve_recipe
from tidegate_runtime.errors import ModelRefused


def test_methods_are_applied_in_their_order_whatever_the_one_given() -> None:
    asked = Asked(["gptq", "sparsegpt", "smoothquant", "drop"], "int8", "2:4", 3, damping=0.1)
    recipe = resolve_recipe(asked)
    assert recipe.methods == ["drop", "smoothquant", "sparsegpt", "gptq"]
    assert recipe.parameters() == {
        "drop_layers": 3,
        "smoothing": 0.5,
        "sparsity": "2:4",
        "act_order": False,
        "damping": 0.1,
    }


def test_without_a_quantizer_few_bits_are_rounded_and_many_kept() -> None:
    assert resolve_recipe(Asked(["wanda"], "int4")).methods == ["wanda", "rtn"]
    pruned = resolve_recipe(Asked(["wanda"], "bf16"))
    assert (pruned.methods, pruned.bits) == (["wanda"], None)
    assert pruned.parameters() == {"sparsity": "0.5"}


def test_a_text_is_needed_by_all_but_rounding() -> None:
    assert not resolve_recipe(Asked(["rtn"], "int4")).calibrates
    for asked in (Asked(["gptq"], "int4"), Asked(["drop"], "bf16", drop_layers=1)):
        assert resolve_recipe(asked).calibrates


@pytest.mark.parametrize(
    ("options", "reason", "text"),
    [
        ({"methods": ["magic"]}, "UnknownMethod", "'magic' is unknown; use rtn, gptq"),
        ({"precision": "int3"}, "BadRecipe", "--precision 'int3' is unknown; use int4"),
        ({"methods": ["gptq"], "precision": "bf16"}, "BadRecipe", "use int4 or int8"),
        ({"methods": ["gptq", "awq"]}, "BadRecipe", "awq and gptq do the same"),
        ({"methods": ["wanda", "sparsegpt"]}, "BadRecipe", "sparsegpt and wanda do the same"),
        ({"methods": ["awq", "smoothquant"]}, "BadRecipe", "rescale the same channels"),
        ({"methods": ["smoothquant"], "precision": "bf16"}, "BadRecipe", "activations"),
        ({"sparsity": "0.5"}, "BadRecipe", "--sparsity says something to --method wanda"),
        ({"act_order": True, "methods": ["awq"]}, "BadRecipe", "--act-order"),
        ({"damping": 0.1, "methods": ["wanda"]}, "BadRecipe", "--damping"),
        ({"damping": 2.0, "methods": ["gptq"]}, "BadRecipe", "--damping 2 is not between 0 and 1"),
        ({"smoothing": 0.5}, "BadRecipe", "--smoothing"),
        ({"drop_layers": 2}, "BadRecipe", "--drop-layers"),
        ({"methods": ["drop"]}, "BadRecipe", "say how many"),
        ({"methods": ["drop"], "drop_layers": 0}, "BadRecipe", "say how many"),
        ({"methods": ["wanda"], "sparsity": "2"}, "BadSparsity", "'2'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_option_with_the_remedy(
    options: dict[str, Any], reason: str, text: str
) -> None:
    with pytest.raises(ModelRefused) as refused:
        resolve_recipe(Asked(**{"methods": ["rtn"], "precision": "int4", **options}))
    assert refused.value.reason == reason
    assert text in refused.value.message
