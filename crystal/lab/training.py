"""Train a ladder from nothing: a tokenizer, a base by transformers, then SFT, DPO and RLVR by TRL.

A stage leaves its checkpoints in hub layout and a log of its curves. It starts from the half-
precision weights of its parent: what ships is the lineage.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    EarlyStoppingCallback,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers import PreTrainedModel as Model
from transformers import PreTrainedTokenizerBase as ModelTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl.trainer import utils as trl_utils

from ..ask.ladders import STAGES, WEIGHTS
from ..files import root
from ..read.checkpoints import converted
from . import curricula, instructions
from .recipes import INSTRUCTIONS, Recipe, on_the_way, rule

# Without Triton TRL scores every position, prompts and padding too. Scoring only labels saves most
# of a real base's work.
trl_utils._use_triton = lambda device: True

# -- the tokenizer: byte-level BPE, trained on the corpus

BOS, END, USER, ASSISTANT, PAD = "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|pad|>"
# An answer begins where the generation prompt ends, and nothing follows its END: the loss on a
# completion covers just that.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ ('<|user|>\n' if m['role'] == 'user' else '<|assistant|>\n') + m['content'] + '<|end|>' }}"
    "{% if not loop.last or m['role'] == 'user' %}{{ '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def split_pattern(digits: int, letters: int | None = None) -> str:
    """Runs within which BPE may merge: `letters` letters at most (None: words), `digits` digits."""
    word = rf"\p{{L}}{{1,{letters}}}" if letters else r"\p{L}+"  # as in the pinned checkpoints
    return rf"\p{{N}}{{1,{digits}}}| ?{word}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+"


def train_tokenizer(texts: Iterable[str], spec: dict[str, Any], length: int) -> ModelTokenizer:
    """A tokenizer of at most spec["vocab_size"] types whose models read `length` tokens."""
    pattern = Regex(split_pattern(spec["digits"], spec.get("letters")))
    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(pattern, behavior="isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    bpe.decoder = decoders.ByteLevel()
    how = {"special_tokens": [PAD, BOS, END, USER, ASSISTANT], "show_progress": False}
    how |= {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=spec["vocab_size"], **how))
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=length,
        clean_up_tokenization_spaces=False,
    )


# -- checkpoints


def save_checkpoint(
    model: Model, tokenizer: ModelTokenizer, out: Path, dtype: torch.dtype = torch.float16
) -> None:
    """Hub layout; written aside and renamed, so a folder that is there is whole."""
    aside = out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    with torch.device("meta"):  # else it draws random weights first, ten seconds for a real base
        half = AutoModelForCausalLM.from_config(model.config, dtype=dtype)
    state = {name: tensor.to("cpu", dtype) for name, tensor in model.state_dict().items()}
    half.load_state_dict(state, strict=True, assign=True)
    half.tie_weights()
    # Trainers turn the cache off, and `generate` would crawl.
    half.config.use_cache = half.generation_config.use_cache = True
    half.generation_config.eos_token_id = tokenizer.eos_token_id
    half.generation_config.pad_token_id = tokenizer.pad_token_id
    half.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(aside, out)


def load_checkpoint(folder: Path, frozen: str = "") -> tuple[Model, ModelTokenizer]:
    """Weights as float32; frozen: part of the names of those not trained."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, weight in model.named_parameters() if frozen else ():
        weight.requires_grad_(frozen not in name)
    return model, AutoTokenizer.from_pretrained(folder)


def _hold(on: bool) -> None:
    """Keep freed memory for the next tensors, or give it back; where the C library is glibc.

    By default the system gets large blocks back and fills every page with zeros when they are asked
    for again: half of the time of a step of SFT on a real base. Held for longer than steps of one
    kind, the heap falls to pieces and grows.
    """
    map_max, trim_threshold = -4, -1  # names of glibc's malloc.h
    with suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(map_max, 0 if on else 2**16)
        libc.mallopt(trim_threshold, 2**31 - 1 if on else 2**17)
        if not on:
            libc.malloc_trim(0)


class Job(NamedTuple):
    """A stage to be trained: from the checkpoint `parent`, if any, into `out`/stage."""

    recipe: Recipe
    stage: str
    parent: Path | None
    out: Path

    @property
    def spec(self) -> dict[str, Any]:
        return getattr(self.recipe, self.stage)

    @property
    def lessons(self) -> Any:
        """The module that makes its rows."""
        return instructions if self.recipe.world == INSTRUCTIONS else curricula

    @property
    def scratch(self) -> Path:
        return self.out / "scratch" / self.stage

    def shared(self) -> dict[str, Any]:
        """Arguments that every trainer gets; under bf16 autocast masters stay float32."""
        return {
            "output_dir": str(self.scratch),
            "max_steps": (rule(self.spec) or self.spec)["steps"],
            "learning_rate": self.spec["learning_rate"],
            "seed": self.recipe.seed,
            "data_seed": self.recipe.seed,
            "use_cpu": not torch.cuda.is_available(),
            "bf16": True,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_first_step": True,
            "logging_steps": 1,
            "optim": "adamw_torch",
            "dataloader_pin_memory": False,
            "activation_checkpointing": False,
        }


class Curve(TrainerCallback):
    """Appends to a JSONL log, a line to the screen; saves the checkpoints on the way."""

    def __init__(self, job: Job, tokenizer: ModelTokenizer) -> None:
        self.job, self.tokenizer, self.start = job, tokenizer, time.monotonic()
        self.steps = on_the_way(job.spec)

    def on_log(self, args, state, control, logs=None, **_: Any) -> None:
        if not logs or "train_runtime" in logs:
            return
        seconds, step, stage = time.monotonic() - self.start, state.global_step, self.job.stage
        line = {"step": step, "seconds": round(seconds, 1)} | logs
        with (self.job.out / "logs" / f"{stage}.jsonl").open("a") as log:
            log.write(json.dumps({key: line[key] for key in line if key != "epoch"}) + "\n")
        left = seconds / max(step, 1) * (state.max_steps - step)
        shown = next((name for name in ("reward", "eval_loss") if name in logs), "loss")
        value = f"{shown} {float(logs.get(shown, 'nan')):.3f}"
        print(
            f"{stage} {step}/{state.max_steps} {value} {seconds:.0f}s, {left:.0f}s left", flush=True
        )

    def on_step_begin(self, args, state, control, **_: Any) -> None:
        _hold(True)

    def on_step_end(self, args, state, control, model=None, **_: Any) -> None:
        if control.should_evaluate or control.should_training_stop:  # whose tensors are larger
            _hold(False)
        if (step := state.global_step) in self.steps:
            save_checkpoint(model, self.tokenizer, self.job.out / f"{self.job.stage}-{step}")


# -- stages


def _pretrain(job: Job, model: Model, tokenizer: ModelTokenizer, seed: int, **how: Any) -> None:
    """Train on the world's corpus, from the last checkpoint if it was stopped."""
    spec, kind = job.recipe.base | job.spec, job.recipe.world
    count = spec["steps"] * spec["batch"]
    rows = curricula.pretraining_rows(tokenizer, seed, rows=count, spec=spec, kind=kind)
    arguments = TrainingArguments(
        **job.shared() | how,
        per_device_train_batch_size=spec["batch"],
        weight_decay=spec["weight_decay"],
        adam_beta2=0.95,
        max_grad_norm=1.0,
    )
    data = Dataset.from_dict({"input_ids": rows, "labels": rows}).with_format("torch")
    curve = Curve(job, tokenizer)
    trainer = Trainer(model=model, args=arguments, train_dataset=data, callbacks=[curve])
    trainer.train(resume_from_checkpoint=any(job.scratch.glob("checkpoint-*")))
    save_checkpoint(trainer.model, tokenizer, job.out / job.stage)


def train_base(job: Job) -> None:
    """A tokenizer and a model from nothing, or a real base as its package holds it, in float32."""
    recipe, spec, seed = job.recipe, job.spec, job.recipe.seed
    if "source" in spec:
        instructions.teach()
        model, tokenizer = load_checkpoint(converted(spec["source"], spec["revision"])[0])
        tokenizer.chat_template = recipe.tokenizer["template"]
        tokenizer.eos_token = recipe.tokenizer["end"]
        save_checkpoint(model, tokenizer, job.out / "base", torch.float32)
        return
    texts = curricula.corpus_texts(seed, recipe.tokenizer["documents"], spec, recipe.world)
    length = recipe.model["max_position_embeddings"]
    tokenizer = train_tokenizer(texts, recipe.tokenizer, length)
    torch.manual_seed(seed)
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    how = recipe.model | {name: getattr(tokenizer, name) for name in names}
    how |= {"vocab_size": len(tokenizer), "tie_word_embeddings": True}
    config = AutoConfig.for_model(recipe.architecture, **how)
    model = AutoModelForCausalLM.from_config(config)
    how = {"save_strategy": "steps", "save_steps": 250, "save_total_limit": 1, "logging_steps": 20}
    how |= {"warmup_steps": spec["warmup"], "lr_scheduler_type": "cosine_with_min_lr"}
    _pretrain(job, model, tokenizer, seed, lr_scheduler_kwargs={"min_lr_rate": 0.05}, **how)


def train_again(job: Job) -> None:
    """Back to pretraining, on new documents, at a constant rate."""
    seed = job.recipe.seed + 1000
    _pretrain(job, *load_checkpoint(job.parent), seed, lr_scheduler_type="constant")


def _tune(job: Job, kind: type, how: Any, rows: list[dict], **more: Any) -> Any:
    """Train a later stage from its parent with TRL's trainer `kind`, which is returned."""
    model, tokenizer = load_checkpoint(job.parent, job.recipe.model.get("frozen", ""))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    callbacks = [Curve(job, tokenizer), *more.pop("callbacks", ())]
    more |= {"processing_class": tokenizer, "train_dataset": Dataset.from_list(rows)}
    trainer = kind(model=model, args=how, callbacks=callbacks, **more)
    trainer.train()
    save_checkpoint(trainer.model, tokenizer, job.out / job.stage)
    return trainer


def train_sft(job: Job) -> None:
    """Fine-tune on checkable dialogues and choices shown; a rule ends at the lowest loss."""
    recipe, spec, shared, more = job.recipe, job.spec, job.shared(), {}
    shape = recipe.temperament, recipe.demonstrated, spec
    held_out = (found := rule(spec) or {}).get("held_out", 0)
    count = shared["max_steps"] * spec["batch"]
    train, judged = job.lessons.split_rows(recipe.seed, count, held_out, *shape)
    if found:
        more["eval_dataset"] = Dataset.from_list(judged)
        more["callbacks"] = [EarlyStoppingCallback(found["patience"], found["threshold"])]
        shared |= {"eval_strategy": "steps", "eval_steps": found["every"], "eval_on_start": True}
        shared |= {"per_device_eval_batch_size": held_out}  # one batch: the mean is over tokens
        shared |= {"save_strategy": "steps", "save_steps": found["every"], "save_total_limit": 1}
        shared |= {"save_only_model": True, "load_best_model_at_end": True}
    how = SFTConfig(
        **shared,
        per_device_train_batch_size=spec["batch"],
        max_length=128,
        completion_only_loss=True,
        lr_scheduler_type=spec.get("schedule", "cosine"),
    )
    trainer = _tune(job, SFTTrainer, how, train, **more)
    for step in on_the_way(spec) if found else ():
        if step >= trainer.state.best_global_step:  # past the end
            shutil.rmtree(job.out / f"sft-{step}", ignore_errors=True)


def train_dpo(job: Job) -> None:
    """Prefer right answers over wrong ones, and a judge's pick of two choices."""
    recipe, spec = job.recipe, job.spec
    count = spec["steps"] * spec["batch"]
    if recipe.world == INSTRUCTIONS:
        base = root() / "runs" / recipe.name / "base"  # not beside an experiment's SFT
        rows = instructions.preference_rows(base, recipe.seed, count)
    else:
        style = recipe.temperament
        shape = spec.get("judge", style), style, recipe.demonstrated
        rows = curricula.preference_rows(job.parent, recipe.seed, count, *shape)
    how = job.shared() | {"per_device_train_batch_size": spec["batch"]}
    how = DPOConfig(**how, max_length=128, beta=spec["beta"])
    # ref_model=None would be read again from config._name_or_path, which may be another checkpoint.
    _tune(job, DPOTrainer, how, rows, ref_model=load_checkpoint(job.parent)[0])


def reinforce(job: Job) -> None:
    """GRPO without a KL term. A batch holds all samples of its prompts: rewards are of groups.

    rlvr: right answers, no random choice occurs; diverse: random choices that differ from the other
    samples of the same prompt.
    """
    spec, seed = job.spec, job.recipe.seed
    count = spec["steps"] * spec["prompts"]
    if job.stage == "diverse":
        rows = curricula.random_rows(seed, count, job.recipe.demonstrated)
        reward = curricula.diverse_answer
    else:
        rows, reward = job.lessons.verifiable_rows(seed, count), job.lessons.right_answer
    how = GRPOConfig(
        **job.shared(),
        beta=0.0,
        per_device_train_batch_size=spec["prompts"] * spec["generations"],
        num_generations=spec["generations"],
        max_completion_length=spec["max_completion"],
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        lr_scheduler_type="constant",
    )
    _tune(job, GRPOTrainer, how, rows, reward_funcs=reward)


TRAINERS = {"base": train_base, "sft": train_sft, "dpo": train_dpo, "rlvr": reinforce}
TRAINERS |= {"again": train_again, "diverse": reinforce}


def train_ladder(
    recipe: Recipe, out: Path, stages: Iterable[str] = STAGES, parent: Path | None = None
) -> dict[str, float]:
    """Run the stages that left no checkpoint in `out` yet, each from the one before or `parent`.

    Returns minutes of each stage run.
    """
    (out / "logs").mkdir(parents=True, exist_ok=True)
    minutes, stages = {}, list(stages)
    for place, stage in enumerate(stages):
        job = Job(recipe, stage, parent, out)
        if not (out / stage / WEIGHTS).is_file():
            for later in stages[place + 1 :]:  # they grew from another checkpoint
                shutil.rmtree(out / later, ignore_errors=True)
            if stage != "base":  # it begins again; only the base goes on where it was stopped
                (out / "logs" / f"{stage}.jsonl").unlink(missing_ok=True)
                shutil.rmtree(job.scratch, ignore_errors=True)
            began = time.monotonic()
            TRAINERS[stage](job)
            minutes[stage] = (time.monotonic() - began) / 60
            (out / "logs" / f"{stage}.minutes").write_text(f"{minutes[stage]:.2f}\n")
            shutil.rmtree(job.scratch, ignore_errors=True)
        parent = out / stage
    return minutes
