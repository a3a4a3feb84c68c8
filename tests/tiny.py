"""Tiny random checkpoints in hub layout: small enough to enumerate, built like the real ones."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from crystal.engine import ALPHABET
from crystal.prompts import PROMPTS
from crystal.tasks import PHASE_TASKS, TASKS, Task

BOS, EOS = "<s>", "</s>"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|user|>\n' if m.role == 'user' else '<|assistant|>\n' }}"
    "{{ m.content }}{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

# Overlapping spellings, tokens that hold several of them, halves of a two-byte character.
PIECES = (b" 1", b"12", b"1", b",", b"A B", b" B", b"A", b"2", b"\xc3", b"\xa9", b"x")
OVERLAPPING = Task(name="overlapping", ask="pick", label="Pick", options=("1", "12", "A", "A B", "2", "Aé", "B"))


def _wrap(tokenizer: Tokenizer, template: str | None) -> PreTrainedTokenizerFast:
    from tokenizers.processors import TemplateProcessing

    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS)
    fast.chat_template = template
    return fast


def hand_tokenizer(pieces: tuple[bytes, ...] = PIECES) -> PreTrainedTokenizerFast:
    """A byte-level vocabulary of exactly BOS, EOS and these pieces, in this order; only its decoding side is of use."""
    letters = {byte: char for char, byte in ALPHABET.items()}
    names = [BOS, EOS, *("".join(letters[b] for b in piece) for piece in pieces)]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.add_special_tokens([BOS, EOS])
    return _wrap(tokenizer, None)


def trained_tokenizer(size: int = 600, template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on our prompts, digits one by one: options such as 100 or September are several tokens."""
    texts = [p.text(TASKS[t], form) for p in PROMPTS[::7] for t in PHASE_TASKS for form in ("completion", "chat")]
    texts += [f" {option}\n" for t in PHASE_TASKS for option in TASKS[t].options]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[BOS, EOS], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return _wrap(tokenizer, template)


_SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 2, "head_dim": 8}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48}
_STATE_SPACE = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4}


def model(kind: str, vocabulary: int, *, seed: int = 0, sharpness: float = 3.0, context: int = 256, **more):
    """A random model of `kind` (a `model_type`), float32. sharpness: standard deviation of the logits, about."""
    shape = {"gpt2": _GPT2, "mamba": _STATE_SPACE}.get(kind, _SHAPE)
    config = AutoConfig.for_model(
        kind, vocab_size=vocabulary, bos_token_id=0, eos_token_id=1, pad_token_id=1, tie_word_embeddings=False,
        initializer_range=0.3, **{} if kind == "mamba" else {"max_position_embeddings": context}, **{**shape, **more})
    torch.manual_seed(seed)
    out = AutoModelForCausalLM.from_config(config).eval()
    with torch.inference_mode():
        spread = out(input_ids=torch.randint(2, vocabulary, (4, 8))).logits.std()
        out.get_output_embeddings().weight.mul_(sharpness / spread)
    return out


def save(folder: Path, kind: str = "llama", *, tokenizer: PreTrainedTokenizerFast | None = None, **more) -> Path:
    """Write a checkpoint in hub layout; returns the folder."""
    tokenizer = tokenizer or trained_tokenizer()
    model(kind, len(tokenizer), **more).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
