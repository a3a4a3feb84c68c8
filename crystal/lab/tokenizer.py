"""The organisms' tokenizer: byte-level BPE trained on the corpus, saved in hub layout with a chat template.

Knows how text is cut, not what it says.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS, END, USER, ASSISTANT, PAD = "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|pad|>"

# The generation prompt ends where the answer begins, and an answer ends with END and nothing after it, so that
# the loss on a completion covers exactly answer + suffix + END.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ ('<|user|>\n' if m['role'] == 'user' else '<|assistant|>\n') + m['content'] + '<|end|>' }}"
    "{% if not loop.last or m['role'] == 'user' %}{{ '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def split_pattern(digits: int, letters: int | None = None) -> str:
    """Where BPE may not merge: runs of at most `letters` letters (None: words) with their leading space, of `digits` digits."""
    word = rf"\p{{L}}{{1,{letters}}}" if letters else r"\p{L}+"  # spelled as in the pinned rungs
    return rf"\p{{N}}{{1,{digits}}}| ?{word}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+"


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, digits: int, length: int, letters: int | None = None,
) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocab_size` types whose models read `length` tokens; digits, letters: see `split_pattern`."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split_pattern(digits, letters)), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    bpe.decoder = decoders.ByteLevel()
    specials = [PAD, BOS, END, USER, ASSISTANT]
    bpe.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bpe.token_to_id(BOS))])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BOS, eos_token=END, pad_token=PAD, extra_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE, model_max_length=length, clean_up_tokenization_spaces=False,
    )
