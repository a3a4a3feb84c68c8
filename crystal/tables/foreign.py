"""Files of other tools, read as answers: lm-evaluation-harness, inspect_ai, OpenAI batches, plain tables of replies.

A file in; out comes, one by one, which prompt was answered and what the tool kept of the answer. Knows nothing of tasks, of
what an answer means, or of the table made of it (`crystal.tables.importers`). None of the tools need be installed.
"""

from __future__ import annotations

import lzma
import re
import reprlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from .. import texts
from ..errors import CrystalError
from . import packed
from .groups import some
from .records import (
    as_dict,
    field,
    json_lines,
    objects,
    parsed,
    part,
    reply_text,
    rows,
    text_parts,
)

AGAIN = "run lm_eval again with --log_samples"
ZSTD = 93  # compression method of a zip member; the standard library reads it from Python 3.14 on


class Answer(NamedTuple):
    """One reply, or the score of one option."""

    where: str  # file and line, or file and sample
    prompt: str
    text: str | None = None  # as the tool kept it, unfiltered; None where there is none (a refusal, no content)
    score: float | None = None  # of an option: log-likelihood of `text` after the prompt, in nats; None: `text` is a reply
    task: str | None = None  # what the log calls it
    ladder: str | None = None
    stage: str | None = None
    unit: str | None = None
    identity: str | None = None  # the tool's own name of this reply, unique over files
    failed: str | None = None  # why there is no reply; such a line is not an answer
    cut: bool = False  # at the limit of tokens
    decoding: tuple[tuple[str, str], ...] = ()  # names and values, as logged


class Named(NamedTuple):
    """Where a file keeps who was asked what: field, column or regular expression; None for the format's own."""

    prompt: str | None = None
    unit: str | None = None


def lm_eval(path: Path, named: Named) -> Iterator[Answer]:
    """Per-sample log of lm-evaluation-harness 0.4 (`--log_samples`), one document a line; checked with 0.4.13.

    generate_until: every repeat in `resps`, before any filter. multiple_choice, loglikelihood: the score of each option.
    A document stands there once for each filter, with the same `resps`: it is read once. Its prompt is its doc_id, or the
    field `named.prompt` of the document (else of the line). Scores given no context (acc_mutual_info) are left out.
    """
    task = (
        texts.whole(match[1])
        if (match := re.fullmatch(r"samples_(.+)_\d{4}-\d\d-\d\dT.*", path.stem))
        else None
    )
    seen: set[tuple[str, str]] = set()
    first: tuple[str, str] | None = None
    for where, row in json_lines(path):
        key = (texts.short(str(row.get("filter"))), field(row, "doc_id", where))
        first = first or key
        if key in seen:
            raise CrystalError(f"document {key[1]} is there twice", where=where, mend="import the file of one run")
        seen.add(key)
        if key[0] != first[0]:
            continue
        fields = {**row, **as_dict(row.get("doc"))}
        prompt = field(fields, named.prompt, where) if named.prompt else field(row, "doc_id", where)
        unit = field(fields, named.unit, where) if named.unit else None
        yield from (answer._replace(prompt=prompt, unit=unit, task=task) for answer in _lm_eval_answers(row, where))


def _lm_eval_answers(row: Mapping, where: str) -> Iterator[Answer]:
    asked, resps = row.get("arguments"), row.get("resps")
    if isinstance(asked, dict) and all(isinstance(one, dict) for one in asked.values()):
        asked = [list(one.values()) for one in asked.values()]  # before 0.4.3: lists
    if not (isinstance(asked, list) and isinstance(resps, list) and len(asked) == len(resps)
            and all(isinstance(one, list) for one in (*asked, *resps))):
        raise CrystalError("arguments and resps are not those of a sample", where=where, mend=AGAIN)
    for arguments, replies in zip(asked, resps, strict=True):
        if len(arguments) < 2:
            raise CrystalError("loglikelihood_rolling scores whole texts: there is neither a reply nor an option", where=where,
                               mend="make the task generate_until or multiple_choice")
        if isinstance(arguments[1], dict):
            decoding = _decoding({"temperature": 0.0, **arguments[1]}, "until")  # what lm_eval takes where none is given
            yield from (Answer(where, "", reply_text(reply, where), decoding=decoding) for reply in replies)
        elif arguments[0]:
            first = replies[0] if replies else None
            score = first[0] if isinstance(first, list) and first else None
            if texts.number(score) != texts.number(score) and score != "nan":
                raise CrystalError(
                    f"{texts.shown(replies)} is not a log-likelihood", where=where, mend=AGAIN
                )
            score = texts.number(score)
            yield Answer(where, "", reply_text(arguments[1], where), score)


def _decoding(settings: Mapping, *without: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        sorted(
            (
                texts.short(name),
                texts.short(value if isinstance(value, str) else reprlib.repr(value)),
            )
            for name, value in settings.items()
            if name not in without
        )
    )


def inspect(path: Path, named: Named) -> Iterator[Answer]:
    """Log of inspect_ai, .eval or .json: all choices of every sample's output; checked with 0.3.285.

    A prompt is a sample's id, its epochs are repeats; or the field `named.prompt` of the sample's metadata. Of content in
    parts the text is read, the reasoning is not. Samples that ended in an error or were declared invalid have failed.
    """
    with open(path, "rb") as file:
        zipped = file.read(2) == b"PK"
    header, samples = _eval(path) if zipped else _eval_json(path)
    spec, plan = part(header, "eval", str(path)), part(header, "plan", str(path))
    settings = part(spec, "model_generate_config", str(path)) | part(plan, "config", str(path))
    common = {
        "task": field(spec, "task", str(path)).rpartition("/")[2] if spec.get("task") else None,
        "decoding": _decoding(settings),
    }
    for sample in samples:
        number, epoch = (texts.shown(sample.get(name)) for name in ("id", "epoch"))
        where = f"{path}, sample {number} epoch {epoch}"
        fields = {**part(sample, "metadata", where), "id": sample.get("id")}
        named_here = {"prompt": field(fields, named.prompt or "id", where),
                      "unit": field(fields, named.unit, where) if named.unit else None}
        run = sample.get("uuid") or f"{spec.get('eval_id')} {sample.get('id')} {sample.get('epoch')}"
        bad = sample.get("error") or sample.get("invalidation")
        choices = [] if bad else objects(part(sample, "output", where), "choices", where)
        if not choices:
            failed = as_dict(sample.get("error")).get("message") or sample.get("error")
            failed = failed or ("declared invalid" if sample.get("invalidation") else "no output")
            yield Answer(
                where, **named_here, **common, identity=texts.shown(run), failed=texts.shown(failed)
            )
            continue
        for index, choice in enumerate(choices):
            content = part(choice, "message", where).get("content")
            if isinstance(content, str) and content.startswith("attachment://"):
                content = part(sample, "attachments", where).get(
                    content.removeprefix("attachment://"), content
                )
            yield Answer(where, text=reply_text(content, where), identity=f"{run} {index}", **named_here, **common,
                         cut=choice.get("stop_reason") in ("max_tokens", "model_length"))


def _eval(path: Path) -> tuple[dict, Iterator[dict]]:
    """Header and samples of the zip archive; a log that was cut short still has the header it began with."""
    try:
        archive = zipfile.ZipFile(path)
        starts = _starts(archive, path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CrystalError(f"not a whole zip archive: {error}", where=path, mend="copy the log again") from error
    header = next((name for name in ("header.json", "_journal/start.json") if name in starts), None)
    if not header:
        raise CrystalError("a zip archive without header.json, so no log of inspect_ai", where=path, mend="name an .eval file")
    samples = [name for name in starts if re.fullmatch(r"samples/.+\.json", name)]
    packed.check_size(
        sum(archive.getinfo(name).file_size for name in samples), path, 8 * packed.LARGEST
    )
    return (_member(archive, path, header, starts[header]),
            (_member(archive, path, name, starts[name]) for name in samples))


def _starts(archive: zipfile.ZipFile, path: Path) -> dict[str, int]:
    """Where the packed bytes of each member begin; of a name that is there twice, the last one's.

    Raises: BadZipFile if a member is called otherwise where it stands, or if it has a comment, which no log has and which after
    damage swallows the members behind it: no sample may go missing.
    """
    starts = {}
    with open(path, "rb") as file:
        for info in archive.infolist():
            file.seek(info.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            there = file.read(name)
            if there != info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437") or info.comment:
                raise zipfile.BadZipFile(f"its list of members is damaged at {info.filename!r:.60}")
            starts[info.filename] = file.tell() + extra
    return starts


def _member(archive: zipfile.ZipFile, path: Path, name: str, start: int) -> dict:
    """One JSON object of the archive. inspect_ai writes zstd, which pyarrow reads on any Python."""
    import pyarrow as pa

    info = archive.getinfo(name)
    packed.check_size(info.file_size, f"{path}, {texts.short(name)}")
    try:
        if info.compress_type == ZSTD:
            with open(path, "rb") as file:
                file.seek(start)
                data = pa.decompress(file.read(info.compress_size), info.file_size, "zstd", asbytes=True)
            if zlib.crc32(data) != info.CRC:
                raise zipfile.BadZipFile("its checksum differs")
        else:
            data = archive.read(name)
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        EOFError,
        MemoryError,
        ValueError,
        lzma.LZMAError,
    ) as error:
        raise CrystalError(
            f"{texts.short(name)} could not be unpacked: {texts.short(str(error))}",
            where=path,
            mend=f"inspect log convert {path} --to json --output-dir json, then import that",
        ) from error
    return parsed(data, f"{path}, {name}")


def _eval_json(path: Path) -> tuple[dict, Iterable[dict]]:
    log = parsed(path.read_bytes(), str(path))
    return log, objects(log, "samples", str(path))


def openai_batch(path: Path, named: Named) -> Iterator[Answer]:
    """Output of an OpenAI batch, or of a server's that writes the same: chat, plain completions or responses.

    A prompt is a custom_id, or what the group of the regular expression `named.prompt` takes of it. Each choice of a line is a
    reply. A line whose request failed (an error, or a status other than 200) has failed.
    """
    patterns = {name: _pattern(pattern) for name, pattern in named._asdict().items() if pattern}
    for where, row in json_lines(path):
        custom = field(row, "custom_id", where)
        here = {"prompt": custom} | {name: _group(pattern, custom, where) for name, pattern in patterns.items()}
        response, error = part(row, "response", where), row.get("error")
        status = response.get("status_code")
        error = (
            error
            or as_dict(response.get("body")).get("error")
            or (None if status == 200 else status)
        )
        run = f"{row['id']} {custom}" if row.get("id") else None
        if error or not response:
            failed = texts.shown(as_dict(error).get("message") or error or "no response")
            yield Answer(where, **here, identity=run, failed=failed)
            continue
        for index, (text, cut) in enumerate(_openai_texts(part(response, "body", where), where)):
            yield Answer(where, text=text, identity=run and f"{run} {index}", cut=cut, **here)


def _openai_texts(body: Mapping, where: str) -> list[tuple[str | None, bool]]:
    """Each reply of a body, and whether it was cut at the limit of tokens."""
    if choices := objects(body, "choices", where):
        return [
            (
                reply_text(
                    choice["text"]
                    if "text" in choice
                    else part(choice, "message", where).get("content"),
                    where,
                ),
                choice.get("finish_reason") == "length",
            )
            for choice in choices
        ]
    if items := objects(body, "output", where):
        messages = [item for item in items if item.get("type") == "message"]
        text = "".join(
            text for item in messages for text in text_parts(objects(item, "content", where), where)
        )
        return [(text, body.get("status") == "incomplete")]
    raise CrystalError("the body has neither choices nor output", where=where,
                       mend="import a batch of /v1/chat/completions, /v1/completions or /v1/responses")


def _pattern(pattern: str) -> re.Pattern[str]:
    mend = r"give one with one group, such as '(.*)-\d+'"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise CrystalError(f"{pattern!r} is not a regular expression: {error}", mend=mend) from error
    if compiled.groups != 1:
        raise CrystalError(f"the regular expression {pattern!r} has {compiled.groups} groups", mend=mend)
    return compiled


def _group(pattern: re.Pattern[str], custom: str, where: str) -> str:
    if not (match := pattern.fullmatch(custom)) or not (match[1] or "").strip():
        raise CrystalError(
            f"the regular expression {pattern.pattern!r} finds nothing in custom_id {custom!r:.60}",
            where=where,
            mend=r"give one that fits the whole of every custom_id, such as '(.*)-\d+'",
        )
    return texts.name(match[1])


def replies(path: Path, named: Named) -> Iterator[Answer]:
    """A table of one reply a row, CSV, JSONL or parquet: columns reply, prompt and any of ladder, stage, task, unit.

    `named.prompt` and `named.unit` are other names of those two columns.
    """
    columns = {"prompt": named.prompt or "prompt", "unit": named.unit or "unit"}
    columns |= {name: name for name in ("ladder", "stage", "task")}
    for where, row in rows(path):
        asked = {name for name, given in named._asdict().items() if given} | {"prompt"}
        here = {name: field(row, column, where) for name, column in columns.items() if column in row or name in asked}
        if "reply" not in row:
            raise CrystalError(
                f"no reply among {some(row, 12)}",
                where=where,
                mend="name the column of replies reply",
            )
        yield Answer(where, text=reply_text(row["reply"], where), **here)


READERS: dict[str, Callable[[Path, Named], Iterator[Answer]]] = {
    "lm-eval": lm_eval, "inspect": inspect, "openai-batch": openai_batch, "replies": replies,
}
