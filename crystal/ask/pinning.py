"""Ladders of the hub, pinned: branches resolved to commits, and what was found there written into the description.

Nothing is written unless every rung asked for can be run: weights in safetensors, no code of its own, a licence accepted.
The file keeps its comments: only values are replaced, and fields added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from huggingface_hub import HfApi, hf_hub_download, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import ModelInfo

from ..errors import CrystalError
from ..files import write_file
from .hub import needs_code, refusal, template_sha256, tokenizer_at, unsafe
from .ladders import HUB, Rung, description, load_ladder

Facts = Mapping[str, str | bool | int]


def pin(name: str, rungs: Sequence[str] | None = None) -> list[Rung]:
    """Write down the commits that the rungs' branches point to today, all rungs or those named; returns them as they now are.

    Raises: CrystalError for an unknown ladder or rung, a ladder that is not of the hub, no network, a repository that is
    gated, absent, without safetensors or in need of code of its own; then the description is as it was.
    """
    path = description(name)
    if path.parent.name != HUB:
        raise CrystalError(f"{name} was trained here: its rungs are pinned by the hash of their weights", where=path,
                           mend="name a ladder of data/ladders/hub; crystal pin lists them")
    ladder = load_ladder(name, unpinned=True)
    chosen = ladder.rungs if rungs is None else [ladder.rung(rung) for rung in rungs]
    found = {rung.name: resolve(rung) for rung in chosen if not rung.local}
    write_down(path, found)
    return [rung for rung in load_ladder(name, unpinned=True).rungs if rung.name in found]


def resolve(rung: Rung) -> dict[str, str | bool | int]:
    """The fields of a rung that the hub decides: revision, licence, gated, parameters, template_sha256.

    Raises: CrystalError as `pin` does.
    """
    try:
        info = HfApi().model_info(rung.source, revision=rung.branch)
        files = {file.rfilename for file in info.siblings or ()}
        if not any(name.endswith(".safetensors") for name in files):
            raise unsafe(rung.source)
        for name in files & {"config.json", "tokenizer_config.json"}:
            if "auto_map" in json.loads(Path(hf_hub_download(rung.source, name, revision=info.sha)).read_text(encoding="utf-8")):
                raise needs_code(rung.source)
        tokenizer, _ = tokenizer_at(rung.source, rung.tokenizer or info.sha)
    except HfHubHTTPError as error:
        raise refusal(error, rung.source) from error
    except (OfflineModeIsEnabled, HTTPError) as error:
        what = "HF_HUB_OFFLINE is set" if is_offline_mode() else "the hub cannot be reached"
        raise CrystalError(f"{what}, and only the hub knows what {rung.branch!r} points to", where=rung.source,
                           mend="crystal pin where there is a network; the description is as it was") from error
    except (OSError, ValueError, KeyError) as error:
        raise refusal(error, rung.source) from error
    return {
        "revision": info.sha, "licence": _licence(info), "gated": bool(info.gated), "template_sha256": template_sha256(tokenizer),
        "parameters": info.safetensors.total if info.safetensors else rung.parameters,
    }


def _licence(info: ModelInfo) -> str:
    """As the card names it; a licence of its own by its own name."""
    card = info.card_data or {}
    named = card.get("license_name") if card.get("license") == "other" else card.get("license")
    return str(named or "")


def write_down(path: Path, found: Mapping[str, Facts]) -> None:
    """Put `found` (rung -> fields) into a description, whole or not at all.

    Raises: CrystalError if that would change anything else, which a description of unusual form may bring about.
    """
    text = path.read_text(encoding="utf-8")
    wanted = yaml.safe_load(text)
    for row in wanted["rungs"]:
        row |= found.get(row["name"], {})
    changed = _with(text, found)
    if not _says(changed, wanted):
        raise CrystalError("the commits cannot be written into a description of this form", where=path,
                           mend="write its rungs as data/ladders/hub/template.yaml.example does")
    write_file(path, changed.encode())


def _says(text: str, wanted: dict) -> bool:
    try:
        return yaml.safe_load(text) == wanted
    except yaml.YAMLError:
        return False


def _with(text: str, found: Mapping[str, Facts]) -> str:
    """The YAML with the fields of `found` set in its rungs; all else, comments too, stays as it is."""
    edits: list[tuple[int, int, str]] = []
    for row in next(value.value for key, value in yaml.compose(text).value if key.value == "rungs"):
        there = {key.value: (key, value) for key, value in row.value}
        facts = found.get(there["name"][1].value, {})
        for name, fact in facts.items():
            if name in there:
                value = there[name][1]
                edits.append((value.start_mark.index, value.end_mark.index, json.dumps(fact)))
        key, last = row.value[-1]
        gap = ", " if row.flow_style else "\n" + " " * key.start_mark.column
        added = "".join(f"{gap}{name}: {json.dumps(fact)}" for name, fact in facts.items() if name not in there)
        if added:
            edits.append((last.end_mark.index, last.end_mark.index, added))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text
