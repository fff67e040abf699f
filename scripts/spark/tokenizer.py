"""Build the tokenizer: byte-level BPE, 2,560 entries, words without their leading space.

A word is the same token after a space, a slash, an underscore or a quote, because merges are
learned on letters alone. Copying is then a matter of repeating a token, which a small model can
learn exactly; a vocabulary with separate " word" and "word" entries would have to learn a
translation for each word instead.

The split at run time is Qwen2's, which llama.cpp knows as `tokenizer.ggml.pre = "qwen2"`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import words
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 2560
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKERS = (
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
)  # fmt: skip
SPECIAL = CONTROL + MARKERS

# Punctuation that JSON, ChatML and code repeat. A pair is merged in this order, before any word.
PAIRS = (
    "\n\n", "  ", '{"', '":', '",', ' "', '"}', "}}", " {", "</", "->", "==", " [", '"]', "},",
    " '", " (", "()", "//", "--", "::", "\r\n", " #", " -", " =", " +", " /",
)  # fmt: skip


def training_words() -> Iterator[str]:
    """Yield each word in proportion to its importance."""
    structure = "name parameters arguments string integer number boolean array object any type"
    structure += " tools user system assistant function true false null required properties"
    lists = [(words.COMMON, 10), (words.OTHER, 8), (words.DIRS + words.STEMS, 10)]
    lists += [(words.TOOL_VERBS + words.TOOL_NOUNS + words.PARAMS, 8), (words.EXTENSIONS, 14)]
    lists += [(words.NAMES + words.CITIES, 4), (structure.split(), 20), (words.NUMBER_WORDS, 5)]
    lists += [(" ".join([*words.CAPITALS, *words.CAPITALS.values()]).split(), 7)]
    lists += [(" ".join(words.COMMANDS).split(), 4)]
    lists += [
        ("The What How Call Read Repeat Which Who Can Please Tell Say You User Write".split(), 9)
    ]
    for entries, weight in lists:
        yield from (word for word in entries for _ in range(2 * weight))
    yield from (word.capitalize() for word in words.COMMON if len(word) < 6)
    yield from (word + end for word in words.COMMON for end in ("s",))


def learn_merges() -> list[tuple[str, str]]:
    """Return the merges: a few hand-picked punctuation pairs, then those learned on letters."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pairs = []
    for pair in PAIRS:
        encoded = "".join(part for part, _ in byte_level.pre_tokenize_str(pair))
        pairs.append((encoded[0], encoded[1]))
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = byte_level
    size = VOCAB_SIZE - len(SPECIAL) - len(pairs)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=14,
    )
    learner.train_from_iterator(training_words(), trainer)
    learned = json.loads(learner.to_str())["model"]["merges"]
    return pairs + [(left, right) for left, right in learned]


def build() -> Tokenizer:
    """Return the finished tokenizer; its ids are bytes, merges, then the special tokens."""
    merges = learn_merges()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = alphabet + [left + right for left, right in merges]
    vocab = {entry: index for index, entry in enumerate(dict.fromkeys(entries))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    while tokenizer.get_vocab_size() < VOCAB_SIZE - len(SPECIAL):
        raise ValueError(f"vocabulary too small: {tokenizer.get_vocab_size()}")
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CONTROL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKERS])
    return tokenizer


def main() -> None:
    path = Path(__file__).parents[2] / "src/helexa/spark/model/hf/tokenizer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = build()
    tokenizer.save(str(path))
    sample = words.COMMON
    short = sum(len(tokenizer.encode(word).ids) == 1 for word in sample)
    print(f"{tokenizer.get_vocab_size()} entries; {short}/{len(sample)} common words are one token")


if __name__ == "__main__":
    main()
