"""Read-outs into the layout of float32 and derived keys, one shard a ladder; pins into descriptions.

Once, from the repository's root: python scripts/migrate_store.py. Every old shard is hashed, every old
key compared with the one that the new row gives, and the new shard read back before the old ones go.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from crystal.ask.ladders import ladder_names, load_ladder, pins
from crystal.ask.prompts import PROMPTS
from crystal.ask.tasks import TASKS
from crystal.files import root, write_file
from crystal.keep import manifest, shards, store
from crystal.lab import describing

COLUMNS = [name for name in shards.SCHEMA.names if name != "prompt_ids"]


def table_of(blob: bytes) -> pa.Table:
    """An old shard's rows in the new schema."""
    old = pq.read_table(pa.BufferReader(blob))
    ids = [np.asarray(one, "<i4").tobytes() for one in old["prompt_ids"].to_pylist()]
    table = old.select(COLUMNS).append_column("prompt_ids", pa.array(ids, pa.binary()))
    table = table.select(shards.SCHEMA.names).cast(shards.SCHEMA, safe=False)
    assert shards.keys_of(table) == old["key"].to_pylist()
    return table


def ordered(table: pa.Table, name: str) -> pa.Table:
    """Tasks, then prompts, forms and rungs in their orders: what is alike stands together."""
    rungs = {rung.revision: number for number, rung in enumerate(load_ladder(name).rungs)}
    ranks = {"task": {task: i for i, task in enumerate(TASKS)}, "revision": rungs,
             "prompt": {prompt.id: i for i, prompt in enumerate(PROMPTS)}}
    frame = table.select(["task", "form", "decoding", "prompt", "revision"]).to_pandas()
    for column, rank in ranks.items():
        frame[column] = frame[column].map(rank)
    order = frame.sort_values(["task", "form", "decoding", "prompt", "revision"], kind="stable").index
    return table.take(pa.array(order))


def producers(records: list[dict], checkpoints: list[list[str]]) -> list[dict]:
    """Who made the old shards: what they share once, the rest for each."""
    found: dict[str, dict] = {}
    for record in records:
        made = dict(record["producer"])
        part = {"checkpoint": checkpoints.index([record["model"], record["revision"]]),
                "form": record["form"], "rows": record["rows"],
                "seconds": made.pop("seconds"), "created": made.pop("created")}
        made.pop("parts", None)
        found.setdefault(json.dumps(made, sort_keys=True), made | {"parts": []})["parts"].append(part)
    return list(found.values())


def move(name: str) -> None:
    """A ladder's read-outs."""
    folder = manifest.folder_of(name)
    records = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    parts = []
    for record in records:
        blob = manifest.shard_path(name, record).read_bytes()
        assert hashlib.sha256(blob).hexdigest() == record["sha256"]
        parts.append(table_of(blob))
    table = ordered(pa.concat_tables(parts), name)
    checkpoints = [[rung.source, rung.revision] for rung in load_ladder(name).rungs]
    facts = {"rows": len(table), "tasks": sorted(table["task"].unique().to_pylist()),
             "forms": sorted(table["form"].unique().to_pylist()), "checkpoints": checkpoints,
             "producers": producers(records, checkpoints)}
    old, before = folder.with_name(f"{name}.old"), sum(record["bytes"] for record in records)
    folder.rename(old)
    with manifest.alone(name):
        manifest.write(name, shards.packed(table), facts)
    assert store.read(name).select(COLUMNS).num_rows == sum(record["rows"] for record in records)
    report = store.verify(name)
    assert not report.faults, report
    shutil.rmtree(old)
    print(f"{before / 2**20:.1f} MiB in {len(records)} shards -> {report}", flush=True)


def pin(path: Path) -> None:
    """Pins and `drawn` into a description."""
    raw = yaml.safe_load(path.read_text())
    for row in raw["rungs"]:
        if (root() / row["source"] / "model.safetensors").is_file():
            row["files"] = pins(root() / row["source"])
    rungs, drawn = raw.pop("rungs"), manifest.folder_of(path.stem, manifest.DRAWS).is_dir()
    fields = raw | ({"drawn": True} if drawn else {})
    if drawn or any("files" in row for row in rungs):
        describing.write(path, fields, rungs)


if __name__ == "__main__":
    for ladder in ladder_names():
        move(ladder)
        pin(root() / "data" / "ladders" / f"{ladder}.yaml")
