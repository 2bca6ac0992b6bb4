"""The shipped model's tokenizer: SentencePiece BPE, and the same tokenizer for transformers.

One tokenizer is written in two forms, `tokenizer.model` for llama.cpp and `tokenizer.json` for
transformers, and both are held to the same ids on every text.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from stages.data.products import brands, invented_name

VOCABULARY = 4096
UNK, BOS, EOS, PAD, NEWLINE = 0, 1, 2, 3, 4
SPECIALS = {UNK: "<unk>", BOS: "<s>", EOS: "</s>", PAD: "<pad>"}
MAX_POSITIONS = 2048

# Every letter of the three languages must be a piece, whatever share of the text it has.
REQUIRED_CHARS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    "čćđšžČĆĐŠŽáéíóúüñÁÉÍÓÚÜÑ¿¡€.,:;!?'\"()[]{}<>/\\-–—_+*=&%#@$…"
)


def training_text(texts: Iterable[Sequence[str]], seed: int) -> Iterator[str]:
    """The lines a tokenizer learns from.

    Product lines come once each, as printed and as people type them, and every brand in them is
    replaced by a fresh invented one: a brand must be spelled from syllables whether the model has
    seen it or not.
    """
    rng = Random(seed)
    known = frozenset(name.lower() for name in brands("train"))

    def anew(word: re.Match[str]) -> str:
        if word[0].lower() not in known:
            return word[0]
        name = invented_name(rng)
        return name if word[0][0].isupper() else name.lower()

    seen: set[str] = set()
    for text in texts:
        for line in "\n".join(text).split("\n"):
            if line.endswith(":"):
                yield line
            elif line and line not in seen:
                seen.add(line)
                fresh = _WORD.sub(anew, line)
                yield from (fresh, fresh.lower())


_WORD = re.compile(r"[^\W\d_]+")


def train(lines: Iterable[str], folder: Path, vocabulary: int = VOCABULARY) -> None:
    """Trains the tokenizer and writes every form of it into a folder.

    Digits are split and never merge, a line break is a piece of its own, unknown characters fall
    back to bytes, and the text is neither normalized nor prefixed with a space: so that an answer
    has one spelling in tokens wherever it stands.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        required_chars=REQUIRED_CHARS,
        character_coverage=0.9999,
        user_defined_symbols=["\n"],
        unk_id=UNK,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=PAD,
        max_sentence_length=1 << 16,
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    write_transformers_files(folder)


def load(folder: Path) -> sentencepiece.SentencePieceProcessor:
    """The SentencePiece processor of a model folder."""
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def write_transformers_files(folder: Path) -> None:
    """Writes tokenizer.json and its configuration beside a folder's tokenizer.model."""
    processor = load(folder)
    pieces = [processor.id_to_piece(index) for index in range(processor.vocab_size())]
    if pieces[NEWLINE] != "\n":
        raise ValueError(f"piece {NEWLINE} is {pieces[NEWLINE]!r}, not a line break")
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=merges(pieces),
            unk_token=SPECIALS[UNK],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="never", split=False
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(
        [AddedToken(piece, normalized=False, special=True) for piece in SPECIALS.values()]
    )
    tokenizer.add_tokens([AddedToken("\n", normalized=False, special=False)])
    tokenizer.save(str(folder / "tokenizer.json"))

    added = {
        str(index): {
            "content": piece,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": index in SPECIALS,
        }
        for index, piece in {**SPECIALS, NEWLINE: "\n"}.items()
    }
    named = {f"{name}_token": SPECIALS[index] for name, index in _NAMES.items()}
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": False,
            "add_eos_token": False,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "legacy": False,
            "model_max_length": MAX_POSITIONS,
            "sp_model_kwargs": {},
            **named,
            "added_tokens_decoder": added,
        },
    )
    _write_json(folder / "special_tokens_map.json", named)


_NAMES = {"unk": UNK, "bos": BOS, "eos": EOS, "pad": PAD}


def merges(pieces: Sequence[str]) -> list[tuple[str, str]]:
    """The merges that make SentencePiece's choices: earlier pieces first, each from all its halves.

    SentencePiece merges the pair whose joined piece has the lowest id.
    """
    known = set(pieces[NEWLINE + 1 :])
    return [
        (piece[:cut], piece[cut:])
        for piece in pieces[NEWLINE + 1 :]
        if not (piece.startswith("<0x") and len(piece) == len("<0x00>"))
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
