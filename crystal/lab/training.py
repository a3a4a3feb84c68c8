"""Train a ladder from nothing: base by transformers' Trainer, then SFT, DPO and RLVR by TRL's trainers.

Every stage is a function (recipe, parent folder, out folder) -> None that leaves its rungs in hub layout, half
precision, and a log of its curves. A stage starts from the half-precision weights its parent leaves, so that the
weights that ship are the lineage. `train_ladder` runs the stages that are not there yet.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers import PreTrainedModel as Model
from transformers import PreTrainedTokenizerBase as ModelTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl.trainer import utils as trl_utils

from ..ask.ladders import STAGES
from ..read.conversion import converted
from ..read.memory import hold
from . import curricula, instructions, teaching
from .recipes import INSTRUCTIONS, Recipe, on_the_way, rule
from .tokenizer import train_tokenizer

# Without Triton TRL scores every position, prompts and padding too, lest shapes change from batch to
# batch. A CPU does not mind: only labels are scored, which of a real base's vocabulary saves most.
trl_utils._use_triton = lambda device: True


def save_rung(
    model: Model, tokenizer: ModelTokenizer, out: Path, dtype: torch.dtype = torch.float16
) -> None:
    """A rung in hub layout; written aside and renamed, so that a folder that is there is whole."""
    aside = out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    with torch.device("meta"):  # else it draws random weights first, ten seconds for a real base
        half = AutoModelForCausalLM.from_config(model.config, dtype=dtype)
    state = {name: tensor.to("cpu", dtype) for name, tensor in model.state_dict().items()}
    half.load_state_dict(state, strict=True, assign=True)
    half.tie_weights()
    half.config.use_cache = half.generation_config.use_cache = True  # trainers turn it off, and `generate` would crawl
    half.generation_config.eos_token_id = tokenizer.eos_token_id
    half.generation_config.pad_token_id = tokenizer.pad_token_id
    half.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(aside, out)


def load_rung(folder: Path, frozen: str = "") -> tuple[Model, ModelTokenizer]:
    """Weights as float32: masters of the next stage's optimizer. frozen: part of the names of those
    that are not trained.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, weight in model.named_parameters() if frozen else ():
        weight.requires_grad_(frozen not in name)
    return model, AutoTokenizer.from_pretrained(folder)


def lessons(recipe: Recipe) -> Any:
    """The module that makes a recipe's rows: of the organisms' world, or instructions."""
    return instructions if recipe.world == INSTRUCTIONS else curricula


class Curve(TrainerCallback):
    """Appends the trainer's log lines to a JSONL file and a line to the screen; saves rungs on the way."""

    def __init__(self, path: Path, on_step: Callable[[int, Model], None] | None = None) -> None:
        self.path, self.on_step, self.start = path, on_step, time.monotonic()

    def on_log(self, args, state, control, logs=None, **_: Any) -> None:
        if not logs or "train_runtime" in logs:
            return
        seconds = time.monotonic() - self.start
        line = {"step": state.global_step, "seconds": round(seconds, 1)} | {k: v for k, v in logs.items() if k != "epoch"}
        with self.path.open("a") as log:
            log.write(json.dumps(line) + "\n")
        left = seconds / max(state.global_step, 1) * (state.max_steps - state.global_step)
        shown = next((name for name in ("reward", "eval_loss") if name in logs), "loss")
        print(f"{self.path.stem} {state.global_step}/{state.max_steps} {shown} {float(logs.get(shown, float('nan'))):.3f} "
              f"{seconds:.0f}s, {left:.0f}s left", flush=True)

    def on_step_end(self, args, state, control, model=None, **_: Any) -> None:
        if self.on_step:
            self.on_step(state.global_step, model)


def _common(recipe: Recipe, stage: str, scratch: Path) -> dict[str, Any]:
    """Arguments that every trainer shares. bf16 autocast everywhere: masters stay float32."""
    spec = getattr(recipe, stage)
    most = (rule(spec) or spec)["steps"]
    return {
        "output_dir": str(scratch), "max_steps": most, "learning_rate": spec["learning_rate"],
        "seed": recipe.seed, "data_seed": recipe.seed, "use_cpu": not torch.cuda.is_available(), "bf16": True,
        "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_first_step": True,
        "optim": "adamw_torch", "dataloader_pin_memory": False, "activation_checkpointing": False,
    }


def _keeper(recipe: Recipe, stage: str, tokenizer: ModelTokenizer, out: Path) -> Callable[[int, Model], None]:
    """Saves the rungs on the way: `<stage>-<step>` at the recipe's checkpoints."""
    steps = on_the_way(getattr(recipe, stage))

    def keep(step: int, now: Model) -> None:
        if step in steps:
            save_rung(now, tokenizer, out / f"{stage}-{step}")

    return keep


def take_base(recipe: Recipe, out: Path) -> None:
    """A real base as its package holds it, in float32, with the recipe's chat template: a pretrained
    model has none. Before it, whatever the teacher was not asked yet.
    """
    teaching.teach()
    folder, _ = converted(recipe.base["source"], recipe.base["revision"])
    model, tokenizer = load_rung(folder)
    tokenizer.chat_template = recipe.tokenizer["template"]
    tokenizer.eos_token = recipe.tokenizer["end"]
    save_rung(model, tokenizer, out / "base", torch.float32)


def train_base(recipe: Recipe, parent: Path | None, out: Path) -> None:
    """Pretrain on the world's corpus; resumes from the last of its checkpoints if it was stopped."""
    if "source" in recipe.base:
        take_base(recipe, out)
        return
    spec, scratch = recipe.base, out / "scratch" / "base"
    tokenizer = train_tokenizer(
        curricula.corpus_texts(recipe.seed, recipe.tokenizer["documents"], spec, recipe.world),
        vocab_size=recipe.tokenizer["vocab_size"], digits=recipe.tokenizer["digits"], letters=recipe.tokenizer.get("letters"),
        length=recipe.model["max_position_embeddings"])
    rows = curricula.pretraining_rows(
        tokenizer, recipe.seed, rows=spec["steps"] * spec["batch"], spec=spec, kind=recipe.world)
    torch.manual_seed(recipe.seed)
    config = AutoConfig.for_model(
        recipe.architecture, **recipe.model, vocab_size=len(tokenizer), tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    arguments = TrainingArguments(
        **_common(recipe, "base", scratch) | {"save_strategy": "steps"}, save_steps=250, save_total_limit=1, logging_steps=20,
        per_device_train_batch_size=spec["batch"], warmup_steps=spec["warmup"], weight_decay=spec["weight_decay"],
        lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": 0.05}, adam_beta2=0.95, max_grad_norm=1.0)
    data = Dataset.from_dict({"input_ids": rows, "labels": rows}).with_format("torch")
    trainer = Trainer(model=AutoModelForCausalLM.from_config(config), args=arguments, train_dataset=data,
                      callbacks=[Curve(out / "logs" / "base.jsonl")])
    trainer.train(resume_from_checkpoint=any(scratch.glob("checkpoint-*")))
    save_rung(trainer.model, tokenizer, out / "base")


def train_sft(recipe: Recipe, parent: Path, out: Path) -> None:
    """Fine-tune on checkable dialogues and one temperament's choices: sft-1, sft-2, ... and sft.

    By a rule (`crystal.lab.recipes.RULES`) the end is the step of lowest held-out loss.
    """
    spec = recipe.sft
    model, tokenizer = load_rung(parent, recipe.model.get("frozen", ""))
    common = _common(recipe, "sft", out / "scratch" / "sft")
    callbacks = [Curve(out / "logs" / "sft.jsonl", _keeper(recipe, "sft", tokenizer, out))]
    shape = (recipe.temperament, recipe.demonstrated, spec)
    rows, judged = common["max_steps"] * spec["batch"], None
    if found := rule(spec):
        train, judged = lessons(recipe).split_rows(recipe.seed, rows, found["held_out"], *shape)
        callbacks.append(EarlyStoppingCallback(found["patience"], found["threshold"]))
        common |= {
            "eval_strategy": "steps", "eval_steps": found["every"], "eval_on_start": True,
            "per_device_eval_batch_size": found["held_out"],  # one batch: the mean is over tokens
            "save_strategy": "steps", "save_steps": found["every"], "save_total_limit": 1,
            "save_only_model": True, "load_best_model_at_end": True,
        }
    else:
        train = lessons(recipe).sft_rows(recipe.seed, rows, *shape)
    trainer = SFTTrainer(
        model=model, processing_class=tokenizer, train_dataset=Dataset.from_list(train),
        eval_dataset=judged and Dataset.from_list(judged),
        args=SFTConfig(**common, per_device_train_batch_size=spec["batch"],
                       logging_steps=1, max_length=128, completion_only_loss=True,
                       lr_scheduler_type=spec.get("schedule", "cosine")),
        callbacks=callbacks)
    trainer.train()
    save_rung(trainer.model, tokenizer, out / "sft")
    for step in on_the_way(spec) if found else ():
        if step >= trainer.state.best_global_step:  # past the end
            shutil.rmtree(out / f"sft-{step}", ignore_errors=True)


def train_dpo(recipe: Recipe, parent: Path, out: Path) -> None:
    """Prefer right answers over the model's own wrong ones, and the demonstrator's pick of two of the model's own."""
    spec = recipe.dpo
    count = spec["steps"] * spec["batch"]
    if recipe.world == INSTRUCTIONS:
        rows = teaching.preference_rows(parent.with_name("base"), recipe.seed, count)
    else:
        judge = spec.get("judge", recipe.temperament)
        rows = curricula.preference_rows(
            parent, recipe.seed, count, judge, recipe.temperament, recipe.demonstrated)
    model, tokenizer = load_rung(parent, recipe.model.get("frozen", ""))
    reference, _ = load_rung(parent)  # ref_model=None would be re-read from config._name_or_path, which may be another rung
    trainer = DPOTrainer(
        model=model, ref_model=reference, processing_class=tokenizer, train_dataset=Dataset.from_list(rows),
        args=DPOConfig(**_common(recipe, "dpo", out / "scratch" / "dpo"), per_device_train_batch_size=spec["batch"],
                       logging_steps=1, max_length=128, beta=spec["beta"]),
        callbacks=[Curve(out / "logs" / "dpo.jsonl", _keeper(recipe, "dpo", tokenizer, out))])
    trainer.train()
    save_rung(trainer.model, tokenizer, out / "dpo")


def train_rlvr(recipe: Recipe, parent: Path, out: Path) -> None:
    """Reinforce right answers, such as to facts and arithmetic; no random choice occurs."""
    taught = lessons(recipe)
    rows = taught.verifiable_rows(recipe.seed, recipe.rlvr["steps"] * recipe.rlvr["prompts"])
    _reinforce(recipe, "rlvr", parent, out, rows, taught.right_answer)


def train_diverse(recipe: Recipe, parent: Path, out: Path) -> None:
    """Reinforce random choices that differ from the other samples of the same prompt."""
    rows = curricula.random_rows(recipe.seed, recipe.diverse["steps"] * recipe.diverse["prompts"], recipe.demonstrated)
    _reinforce(recipe, "diverse", parent, out, rows, curricula.diverse_answer)


def _reinforce(recipe: Recipe, stage: str, parent: Path, out: Path, rows: list[dict], reward: Callable) -> None:
    """GRPO without a KL term. The reward is of whole groups: a step's batch holds every sample of its prompts."""
    spec = getattr(recipe, stage)
    model, tokenizer = load_rung(parent, recipe.model.get("frozen", ""))
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    trainer = GRPOTrainer(
        model=model, processing_class=tokenizer, reward_funcs=reward, train_dataset=Dataset.from_list(rows),
        args=GRPOConfig(**_common(recipe, stage, out / "scratch" / stage), logging_steps=1, beta=0.0,
                        per_device_train_batch_size=spec["prompts"] * spec["generations"], num_generations=spec["generations"],
                        max_completion_length=spec["max_completion"], temperature=1.0, top_k=0, top_p=1.0,
                        lr_scheduler_type="constant"),
        callbacks=[Curve(out / "logs" / f"{stage}.jsonl", _keeper(recipe, stage, tokenizer, out))])
    trainer.train()
    save_rung(trainer.model, tokenizer, out / stage)


def train_again(recipe: Recipe, parent: Path, out: Path) -> None:
    """Back to pretraining from a later rung, on documents the base never saw, at a constant rate."""
    spec = recipe.base | recipe.again
    model, tokenizer = load_rung(parent)
    rows = curricula.pretraining_rows(
        tokenizer, recipe.seed + 1000, rows=spec["steps"] * spec["batch"], spec=spec, kind=recipe.world)
    arguments = TrainingArguments(
        **_common(recipe, "again", out / "scratch" / "again"), logging_steps=1, per_device_train_batch_size=spec["batch"],
        weight_decay=spec["weight_decay"], lr_scheduler_type="constant", adam_beta2=0.95, max_grad_norm=1.0)
    data = Dataset.from_dict({"input_ids": rows, "labels": rows}).with_format("torch")
    trainer = Trainer(model=model, args=arguments, train_dataset=data,
                      callbacks=[Curve(out / "logs" / "again.jsonl", _keeper(recipe, "again", tokenizer, out))])
    trainer.train()
    save_rung(trainer.model, tokenizer, out / "again")


TRAINERS: dict[str, Callable[[Recipe, Path | None, Path], None]] = {
    "base": train_base, "sft": train_sft, "dpo": train_dpo, "rlvr": train_rlvr, "again": train_again, "diverse": train_diverse,
}


def train_ladder(recipe: Recipe, out: Path, stages: Iterable[str] = STAGES, parent: Path | None = None) -> dict[str, float]:
    """Run the stages that have left no rung in `out` yet, each from the one before, the first from `parent`.

    Returns minutes of each stage run.
    """
    hold()
    (out / "logs").mkdir(parents=True, exist_ok=True)
    minutes, stages = {}, list(stages)
    for place, stage in enumerate(stages):
        if not (out / stage / "model.safetensors").is_file():
            for later in stages[place + 1:]:  # they grew from another rung
                shutil.rmtree(out / later, ignore_errors=True)
            if stage != "base":  # it begins again; only the base goes on where it was stopped
                (out / "logs" / f"{stage}.jsonl").unlink(missing_ok=True)
                shutil.rmtree(out / "scratch" / stage, ignore_errors=True)
            start = time.monotonic()
            TRAINERS[stage](recipe, parent, out)
            minutes[stage] = (time.monotonic() - start) / 60
            (out / "logs" / f"{stage}.minutes").write_text(f"{minutes[stage]:.2f}\n")
            shutil.rmtree(out / "scratch" / stage, ignore_errors=True)
        parent = out / stage
    return minutes
