"""Logs of other tools, answer by answer: lm-evaluation-harness, inspect_ai, OpenAI, replies.

None of the tools need be installed. A reader gives every record's place in the file, and the
answers in it, which are read as they are asked for.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from .. import texts
from ..ask.tasks import TASKS, Task, own_task
from ..errors import known
from . import sheets
from .sheets import json_lines, no, parsed, rows, some

ONE_GROUP = r"give one with one group that fits the whole of every custom_id, such as '(.*)-\d+'"
UNSAID = "the file does not say of which"
AGAIN = "run lm_eval again with --log_samples"


class Answer(NamedTuple):
    prompt: str
    text: str | None = None  # as the tool kept it, unfiltered; None: a refusal, no content
    score: float | None = None  # log-likelihood of the option `text`, nats; None: a reply
    task: str | None = None  # what the log calls it
    ladder: str | None = None
    stage: str | None = None
    cluster: str | None = None
    identity: str | None = None  # the tool's own name of this reply, unique over files
    failed: str | None = None  # why there is no reply; such a line is not an answer
    cut: bool = False  # at the limit of tokens
    decoding: tuple[tuple[str, str], ...] = ()  # names and values, as logged


Records = Iterator[tuple[str, Iterator[Answer]]]  # place in the file, answers


class Asked(NamedTuple):
    """What the files do not say themselves, as `sheets.given` writes it. None: they do."""

    ladder: str | None = None
    stage: str | None = None
    task: str | None = None
    options: tuple[str, ...] = ()  # of a task that is not one of ours
    prompt_from: str | None = None  # field, column or regular expression that names the prompt
    cluster_from: str | None = None  # and who asks

    def names(self, fields: Mapping, own: str) -> dict[str, str | None]:
        """Prompt and cluster by their fields, the prompt else by the field `own`."""
        cluster = named(fields, self.cluster_from) if self.cluster_from else None
        return {"prompt": named(fields, self.prompt_from or own), "cluster": cluster}

    def task_of(self, own: str | None) -> Task:
        """The task of answers to what their file calls `own`."""
        name = self.task or own
        sheets.check_task(name or "", "--task" if self.task else "the task of the file")
        if self.options:
            return own_task(name, self.options)
        if self.task and own in TASKS and own != self.task:
            hint = "leave out --task, or name other files"
            raise no(f"answers to the task {own}, not {self.task}", hint)
        hint = "list the options of a task of your own: --options a,b,c"
        if name not in TASKS and not self.task:
            what = f"the task {name!r:.60} is none of ours" if name else f"{UNSAID} task"
            raise no(what, f"--task with one of: {', '.join(TASKS)}; or, of a new name, {hint}")
        if not TASKS[known(name, TASKS, "task", hint=hint)].closed:
            hint = f"--task my_{name} --options a,b,c, with the options to be told apart"
            raise no(f"the task {name} has no list of options", hint)
        return TASKS[name]

    def one(self, name: str, answer: Answer) -> str:
        """Its ladder, or its stage."""
        own, asked = getattr(answer, name), getattr(self, name)
        if own and asked and own != asked:
            what = f"the {name} is {own:.60} in the file, but --{name} is {asked:.60}"
            raise no(what, f"leave out --{name}")
        if not (found := own or asked):
            raise no(f"{UNSAID} {name}", f"--{name} NAME")
        return found


# -- fields of a record


def as_dict(value: Any) -> dict:
    """An empty one for anything but an object."""
    return value if isinstance(value, dict) else {}


def part(record: Mapping, name: str, kind: type = dict) -> Any:
    """The object (or list) called `name` in a record, empty if missing."""
    value = kind() if record.get(name) is None else record[name]
    if not isinstance(value, kind):
        what = f"{name} is {texts.shown(value)}, not {'an object' if kind is dict else 'a list'}"
        raise no(what, "let the tool write its log again")
    return value


def objects(record: Mapping, name: str) -> list[dict]:
    items = part(record, name, list)
    return [part({f"an item of {name}": item}, f"an item of {name}") for item in items]


def named(fields: Mapping, name: str) -> str:
    """A name out of a record, as `texts.name` compares it; whole numbers are names, too."""
    hint = f"choose another field among: {some(map(str, fields), 12)}"
    if not (found := _text(fields.get(name)) or "").strip():
        what = f"{name} is {texts.shown(fields[name])!r}" if name in fields else f"no {name}"
        raise no(f"{what}, where a name was looked for", hint)
    return sheets.given(found, None, hint)


def _text(value: Any) -> str | None:
    """Text as it is, a whole number as text; None: neither."""
    text = value if isinstance(value, str) else texts.written(value)
    return text if text is value or text.lstrip("-").isdigit() else None


def reply_text(value: Any, between: str = "\n") -> str | None:
    """A reply: text, a whole number, parts of which the text counts, or nothing."""
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        found = [one.get("text") for one in value if one.get("type") in ("text", "output_text")]
        if all(isinstance(text, str) for text in found):
            return between.join(found)
    if value is not None and _text(value) is None:
        raise no(f"a reply is {texts.shown(value)}, not text", "write replies as text")
    return _text(value)


def _decoding(settings: Mapping) -> tuple[tuple[str, str], ...]:
    values = (one if isinstance(one, str) else reprlib.repr(one) for one in settings.values())
    return tuple(sorted(zip(map(texts.short, settings), map(texts.short, values))))


def each_reply(
    here: Answer, run: object, error: object, replies: Iterable[tuple[str | None, bool]]
) -> Iterator[Answer]:
    """Every reply of one request, with whether it was cut at the limit of tokens; or its error."""
    if error:
        failed = texts.shown(as_dict(error).get("message") or error)
        yield here._replace(identity=run and f"{run}", failed=failed)
        return
    for index, (text, cut) in enumerate(replies):
        yield here._replace(text=text, identity=run and f"{run} {index}", cut=cut)


def logged(path: Path) -> Iterator[tuple[str, dict]]:
    """Place and object of every line of a log."""
    with open(path, "rb") as file:
        for number, row in json_lines(file, path):
            yield f"line {number}", row


# -- the formats


def lm_eval(path: Path, asked: Asked) -> Records:
    """Per-sample log of lm-evaluation-harness (`--log_samples`), a document a line; as of 0.4.13.

    Replies before any filter, or the scores of options, but those given no context. A document
    stands there once a filter and is read once. Its prompt is its doc_id, or the field
    `prompt_from` of the document, else of the line.
    """
    match = re.fullmatch(r"samples_(.+)_\d{4}-\d\d-\d\dT.*", path.stem)
    task = texts.whole(match[1]) if match else None
    seen: dict[tuple[str, str], None] = {}
    for where, row in logged(path):
        yield where, _lm_eval(row, task, asked, seen)


def _lm_eval(row: dict, task: str | None, asked: Asked, seen: dict) -> Iterator[Answer]:
    key = (texts.short(str(row.get("filter"))), named(row, "doc_id"))
    if key in seen:
        raise no(f"document {key[1]} is there twice", "import the file of one run")
    seen[key] = None
    if key[0] != next(iter(seen))[0]:
        return
    fields = {**row, **as_dict(row.get("doc")), "doc_id": row["doc_id"]}
    here = Answer(task=task, **asked.names(fields, "doc_id"))
    requests, resps = row.get("arguments"), row.get("resps")
    if isinstance(requests, dict) and all(isinstance(one, dict) for one in requests.values()):
        requests = [list(one.values()) for one in requests.values()]  # before 0.4.3: lists
    sound = isinstance(requests, list) and isinstance(resps, list) and len(requests) == len(resps)
    if not (sound and all(isinstance(one, list) for one in (*requests, *resps))):
        raise no("arguments and resps are not those of a sample", AGAIN)
    for arguments, replies in zip(requests, resps):
        if len(arguments) < 2:
            what = "loglikelihood_rolling scores whole texts, neither a reply nor an option"
            raise no(what, "make the task generate_until or multiple_choice")
        if isinstance(arguments[1], dict):
            settings = {name: x for name, x in arguments[1].items() if name != "until"}
            decoding = _decoding({"temperature": 0.0, **settings})  # lm_eval's, where none is said
            for reply in replies:
                yield here._replace(text=reply_text(reply), decoding=decoding)
        elif arguments[0]:
            first = replies[0] if replies else None
            score = first[0] if isinstance(first, list) and first else None
            if (found := texts.number(score)) != found and score != "nan":
                raise no(f"{texts.shown(replies)} is not a log-likelihood", AGAIN)
            yield here._replace(text=reply_text(arguments[1]), score=found)


def inspect(path: Path, asked: Asked) -> Records:
    """Log of inspect_ai in JSON: all choices of every sample's output; as of 0.3.285.

    A prompt is a sample's id (epochs are repeats), or the field `prompt_from` of its metadata. The
    reasoning is not read.
    """
    if (log := path.read_bytes()).startswith(b"PK"):
        hint = f"inspect log convert {quote(str(path))} --to json --output-dir json; import that"
        raise no("the log is packed as an archive", hint)
    header = parsed(log, path)
    if (status := header.get("status", "success")) != "success":
        what = f"the run is not whole, its status is {texts.shown(status)}"
        raise no(what, f"inspect eval-retry {quote(str(path))}, and import the log that it writes")
    samples = objects(header, "samples")
    spec, plan = part(header, "eval"), part(header, "plan")
    decoding = _decoding(part(spec, "model_generate_config") | part(plan, "config"))
    task = named(spec, "task").rpartition("/")[2] if spec.get("task") else None
    for sample in samples:
        number, epoch = (texts.shown(sample.get(name)) for name in ("id", "epoch"))
        here = Answer("", task=task, decoding=decoding)
        answers = _inspect(sample, here, asked, spec.get("eval_id"))
        yield f"sample {number} epoch {epoch}", answers


def _inspect(sample: dict, here: Answer, asked: Asked, run: object) -> Iterator[Answer]:
    fields = {**part(sample, "metadata"), "id": sample.get("id")}
    here = here._replace(**asked.names(fields, "id"))
    own = sample.get("uuid") or f"{run} {fields['id']} {sample.get('epoch')}"
    error = sample.get("error") or (sample.get("invalidation") and "declared invalid")
    choices = [] if error else objects(part(sample, "output"), "choices")
    error = error or (None if choices else "no output")
    yield from each_reply(here, own, error, _inspect_texts(sample, choices))


def _inspect_texts(sample: dict, choices: list[dict]) -> Iterator[tuple[str | None, bool]]:
    for choice in choices:
        content = part(choice, "message").get("content")
        if isinstance(content, str) and content.startswith("attachment://"):
            attached = part(sample, "attachments")
            content = attached.get(content.removeprefix("attachment://"), content)
        yield reply_text(content), choice.get("stop_reason") in ("max_tokens", "model_length")


def openai_batch(path: Path, asked: Asked) -> Records:
    """Output of an OpenAI batch, or a server's like it: chat, plain completions or responses.

    A prompt is a custom_id, or what the group of the regular expression `prompt_from` takes of it.
    """
    for where, row in logged(path):
        yield where, _openai(row, asked)


def _openai(row: dict, asked: Asked) -> Iterator[Answer]:
    custom = named(row, "custom_id")
    patterns = {"prompt": asked.prompt_from, "cluster": asked.cluster_from}
    taken = {name: _group(one, custom) for name, one in patterns.items() if one}
    here = Answer(**{"prompt": custom} | taken)
    response = part(row, "response")
    status = response.get("status_code") if response else "no response"
    error = row.get("error") or as_dict(response.get("body")).get("error")
    error = error or (None if status == 200 else status)
    run = f"{row['id']} {custom}" if row.get("id") else None
    body = {} if error else part(response, "body")
    yield from each_reply(here, run, error, _openai_texts(body))


def _openai_texts(body: Mapping) -> Iterator[tuple[str | None, bool]]:
    items, choices = objects(body, "output"), objects(body, "choices")
    for choice in choices:
        text = choice["text"] if "text" in choice else part(choice, "message").get("content")
        yield reply_text(text), choice.get("finish_reason") == "length"
    if items and not choices:
        messages = (item for item in items if item.get("type") == "message")
        parts = [one for item in messages for one in objects(item, "content")]
        yield reply_text(parts, ""), body.get("status") == "incomplete"
    if not (items or choices):
        hint = "import a batch of /v1/chat/completions, /v1/completions or /v1/responses"
        raise no("the body has neither choices nor output", hint)


def _group(pattern: str, custom: str) -> str:
    wrong = "it does not fit, or its group is empty"
    try:
        if (match := re.fullmatch(pattern, custom)) and (found := texts.name(match[1] or "")):
            return found
    except (re.error, IndexError, ValueError) as error:
        wrong = str(error)
    what = f"the regular expression {pattern!r} takes no name out of custom_id {custom!r:.60}"
    raise no(f"{what}: {wrong}", ONE_GROUP)


def replies(path: Path, asked: Asked) -> Records:
    """A table, a reply a row: reply, prompt (or `prompt_from`); cluster, ladder, stage, task."""
    for number, row in rows(path):
        yield f"row {number}", _reply(row, asked)


def _reply(row: dict, asked: Asked) -> Iterator[Answer]:
    own = {name: name for name in ("ladder", "stage", "task")}
    if not asked.cluster_from:
        own |= {"unit": "cluster", "cluster": "cluster"}  # unit: as once called
    if "reply" not in row:
        raise no(f"no reply among {some(row, 12)}", "name the column of replies reply")
    here = {name: named(row, column) for column, name in own.items() if column in row}
    names = {name: x for name, x in asked.names(row, "prompt").items() if x is not None}
    yield Answer(text=reply_text(row["reply"]), **here | names)


READERS: dict[str, Callable[[Path, Asked], Records]] = {
    "lm-eval": lm_eval, "inspect": inspect, "openai-batch": openai_batch, "replies": replies,
}  # fmt: skip
