"""The tokenizer of the bundled backbones: byte-level BPE, trained on the small world's text and nothing else.

A word of the small world costs one token with the space before it, digits stand alone, and any UTF-8
text comes back byte for byte. It never sees a model and never decides what the mixture holds.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"

# A digit, a run of letters, or a run of other signs, each with at most one space before it; other white space.
PIECE = r" ?\p{N}| ?[\p{L}\p{M}]+| ?[^\s\p{L}\p{M}\p{N}]+|\s+"


def train_tokenizer(
    texts: Iterable[str], vocabulary: int = 2048, context_length: int = 2048
) -> PreTrainedTokenizerFast:
    """Train on `texts` and wrap for transformers.

    Every sequence that it encodes opens with BOS; EOS is the trainer's to add, since a question has none.

    Args:
        texts: documents of the small world.
        vocabulary: most entries, the 256 bytes and three special tokens included.
        context_length: the `model_max_length` that it states.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=[PAD, BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=context_length,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
