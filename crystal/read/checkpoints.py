"""Weights that are those of the checkpoint, all of them and no others; anything else is refused.

transformers fills what a file lacks with random numbers and drops what it does not know; here
neither is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..ask.hub import refusal
from ..errors import CrystalError

_REALS = ("F64", "F32", "F16", "BF16")
_LISTED = {"missing_keys": "lack", "unexpected_keys": "hold", "mismatched_keys": "hold"}


def weights_of(
    place: str, source: object, *, revision: str, dtype: str, spread: dict
) -> PreTrainedModel:
    """The model of a folder or hub id, with exactly the weights of its files.

    Raises: CrystalError for weights that are missing, surplus, of other shapes, not numbers, or
    that cannot be loaded; for an adapter; for a model that is not causal.
    """
    if (Path(place) / "adapter_config.json").is_file():
        raise CrystalError(
            "the folder holds an adapter, not a whole model",
            where=source,
            mend="merge it first: peft's merge_and_unload(), then save_pretrained()",
        )
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(
                place,
                revision=revision,
                trust_remote_code=False,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **spread,
            )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # foreign files go through much code that expects sound ones
        raise refusal(error, source) from error
    check_loaded(info, source)
    check_scheme(model, source)
    check_numbers(model, place, source)
    return model


def check_scheme(model: PreTrainedModel, source: object) -> None:
    """Raises: CrystalError for weights quantised in a way that transformers passed over."""
    scheme = getattr(model.config, "quantization_config", None)
    if scheme and getattr(model, "hf_quantizer", None) is None:
        method = scheme.get("quant_method") if isinstance(scheme, dict) else scheme.quant_method
        raise CrystalError(
            f"the weights are quantised by {str(method)[:40]!r}, which transformers does not know",
            where=source,
            mend="choose a checkpoint that is not, or one that it knows",
        )


def check_numbers(model: PreTrainedModel, place: str, source: object) -> None:
    """Raises: CrystalError for weights kept as integers or in eight bits, where no scheme says what
    they stand for: transformers would take each for the number it looks like.
    """
    if getattr(model, "hf_quantizer", None) is not None or not Path(place).is_dir():
        return
    wanted = {name for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    for file in sorted(Path(place).glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in wanted.intersection(weights.keys()):
                if (kind := weights.get_slice(name).get_dtype()) not in _REALS:
                    raise CrystalError(
                        f"the weights {name} are stored as {kind}, and nothing says what for",
                        where=source,
                        mend="save the model in float32, float16 or bfloat16",
                    )


@contextmanager
def quiet() -> Iterator[None]:
    """No report of transformers on stderr: what is wrong is said in one sentence."""
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(before)


def check_loaded(info: Mapping[str, Any], source: object) -> None:
    """Raises: CrystalError if the files are not exactly the weights that the model has."""
    for kind, verb in _LISTED.items():
        if names := sorted(
            name if isinstance(name, str) else name[0] for name in info.get(kind, ())
        ):
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            of = {
                "missing_keys": "",
                "unexpected_keys": ", which the configuration does not know",
                "mismatched_keys": " in another shape than the configuration's",
            }[kind]
            raise CrystalError(
                "the weights are not this checkpoint's: "
                f"they {verb} {', '.join(names[:2])}{more}{of}",
                where=source,
                mend="save the model again with model.save_pretrained(folder), or fetch it again",
            )
    if errors := info.get("error_msgs"):
        raise CrystalError(
            f"the weights cannot be loaded: {str(errors[0])[:200]}",
            where=source,
            mend="save the model again with model.save_pretrained(folder)",
        )


def check_causal(model: PreTrainedModel, source: object) -> None:
    """Raises: CrystalError if a token changes what is said before it, or the output is no logits of
    the vocabulary."""
    device = next(iter(model.parameters())).device
    first = min(7, model.get_input_embeddings().weight.shape[0] - 1)
    ids = torch.tensor([[first, 0, first], [first, 0, 1]], device=device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[:, 1].double()
    if not torch.isfinite(logits).all():
        raise CrystalError(
            "the logits are not numbers",
            where=source,
            mend="fetch the weights again, or a wider --dtype",
        )
    if (logits[0] - logits[1]).abs().max() > 1e-2 * (1 + logits[0].abs().max()):
        raise CrystalError(
            "the model is not causal: later tokens change what it says before them",
            where=source,
            mend="choose a decoder, or set is_decoder in its configuration",
        )
