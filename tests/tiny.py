"""Tiny random checkpoints in hub layout: small enough to enumerate, built like the real ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from crystal.ask.prompts import PROMPTS
from crystal.ask.tasks import PHASE_TASKS, TASKS, Task
from crystal.read.vocabulary import ALPHABET

BOS, EOS = "<s>", "</s>"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|user|>\n' if m.role == 'user' else '<|assistant|>\n' }}"
    "{{ m.content }}{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

# Overlapping spellings, tokens that hold several of them, halves of a two-byte character.
PIECES = (b" 1", b"12", b"1", b",", b"A B", b" B", b"A", b"2", b"\xc3", b"\xa9", b"x")
OVERLAPPING = Task(
    name="overlapping", ask="pick", label="Pick", options=("1", "12", "A", "A B", "2", "Aé", "B")
)


BYTE_LEVEL, SENTENCEPIECE = "byte-level", "sentencepiece"
_SPACE = "\u2581"  # how SentencePiece writes a space


def _wrap(
    tokenizer: Tokenizer, template: str | None, cut: str = BYTE_LEVEL
) -> PreTrainedTokenizerFast:
    from tokenizers.processors import TemplateProcessing

    tokenizer.decoder = (
        decoders.ByteLevel()
        if cut == BYTE_LEVEL
        else decoders.Sequence(  # as Llama 2's
            [
                decoders.Replace(_SPACE, " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
    )
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS
    )
    fast.chat_template = template
    return fast


def hand_tokenizer(
    pieces: tuple[bytes, ...] = PIECES, cut: str = BYTE_LEVEL
) -> PreTrainedTokenizerFast:
    """A vocabulary of exactly BOS, EOS and these pieces, in this order; only its decoding side is
    of use.
    """
    letters = {byte: char for char, byte in ALPHABET.items()}
    spell = {
        BYTE_LEVEL: lambda piece: "".join(letters[b] for b in piece),
        SENTENCEPIECE: _sentencepiece,
    }[cut]
    names = [BOS, EOS, *map(spell, pieces)]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.add_special_tokens([BOS, EOS])
    return _wrap(tokenizer, None, cut)


def _sentencepiece(piece: bytes) -> str:
    """Text with its spaces marked, and a byte that is no character by its number."""
    text = piece.decode("utf-8", "replace")
    return f"<0x{piece[0]:02X}>" if text == "\ufffd" else text.replace(" ", _SPACE)


def sentencepiece_tokenizer(
    size: int = 600, template: str | None = TEMPLATE
) -> PreTrainedTokenizerFast:
    """As Llama 2 cuts: a space before the text, spaces as part of the next word, bytes for
    characters it does not know.
    """
    names = [BOS, EOS, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token=EOS, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="first"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.train_from_iterator(
        _texts(), trainers.BpeTrainer(vocab_size=size, special_tokens=names, show_progress=False)
    )
    tokenizer = Tokenizer.from_str(_with_plain_bytes(tokenizer))
    return _wrap(tokenizer, template, SENTENCEPIECE)


def _with_plain_bytes(tokenizer: Tokenizer) -> str:
    """The trainer knows no byte tokens: they went in as special ones, and are none."""
    raw = json.loads(tokenizer.to_str())
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] in (BOS, EOS)]
    return json.dumps(raw)


def _texts() -> list[str]:
    texts = [
        p.text(TASKS[t], form)
        for p in PROMPTS[::7]
        for t in PHASE_TASKS
        for form in ("completion", "chat")
    ]
    return texts + [f" {option}\n" for t in PHASE_TASKS for option in TASKS[t].options]


def trained_tokenizer(size: int = 600, template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on our prompts, digits one by one: options such as 100 or September
    are several tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return _wrap(tokenizer, template)


_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48}
_STATE_SPACE = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4}


def model(
    kind: str, vocabulary: int, *, seed: int = 0, sharpness: float = 3.0, context: int = 256, **more
):
    """A random model of `kind` (a `model_type`), float32. sharpness: standard deviation of the
    logits, about.
    """
    shape = {"gpt2": _GPT2, "mamba": _STATE_SPACE}.get(kind, _SHAPE)
    config = AutoConfig.for_model(
        kind,
        vocab_size=vocabulary,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        tie_word_embeddings=False,
        **{} if kind == "mamba" else {"max_position_embeddings": context},
        **{"initializer_range": 0.3, **shape, **more},
    )
    torch.manual_seed(seed)
    out = AutoModelForCausalLM.from_config(config).eval()
    with torch.inference_mode():
        spread = out(input_ids=torch.randint(2, vocabulary, (4, 8))).logits.std()
        out.get_output_embeddings().weight.mul_(sharpness / spread)
    return out


def save(
    folder: Path,
    kind: str = "llama",
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    shards: str = "5GB",
    **more,
) -> Path:
    """Write a checkpoint in hub layout; returns the folder. shards: the largest file of weights."""
    tokenizer = tokenizer or trained_tokenizer()
    model(kind, len(tokenizer), **more).save_pretrained(folder, max_shard_size=shards)
    tokenizer.save_pretrained(folder)
    return folder


def publish(cache: Path, repository: str, kind: str = "llama", **more) -> str:
    """Write a checkpoint where a hub cache keeps `owner/name`, as the tip of main; returns its
    commit, 40 hex digits.
    """
    commit = hashlib.sha1(f"{repository}, {kind}".encode()).hexdigest()
    save(snapshot(cache, repository, commit), kind, **more)
    tip = cache / f"models--{repository.replace('/', '--')}" / "refs" / "main"
    tip.parent.mkdir(exist_ok=True)
    tip.write_text(commit)
    return commit


def snapshot(cache: Path, repository: str, commit: str) -> Path:
    return cache / f"models--{repository.replace('/', '--')}" / "snapshots" / commit
