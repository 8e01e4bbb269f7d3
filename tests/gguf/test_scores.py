"""Scores in a .gguf for the merges of a tokenizer.json: llama.cpp and SentencePiece themselves are the judges."""

import io
import json
import random
from itertools import pairwise
from pathlib import Path

import gguf
import pytest
import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.gguf.gguf_files import rewritten
from tests.gguf.texts import texts
from tests.makers.scored_tokenizers import folder_of, merges_of
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.export.readback import llama_cpp
from tunebook.gguf import read_gguf, write_gguf
from tunebook.gguf.tokenizers.scores import scores_of_merges

WORDS = ["▁the", "▁cat", "▁sat", "▁on", "the", "日本語", "مرحبا", "🎵🎻", "e\u0301le\u0300ve", "def▁f"]


def scored_words(*runs: str, longest: int = 31) -> dict[str, float]:
    """Every beginning of the words, each with a score of its own, and the runs, which all have one."""
    scored: dict[str, float] = {}
    for word in WORDS:
        for end in range(2, len(word) + 1):
            scored.setdefault(word[:end], -float(len(scored)))
    for run in runs:
        for length in range(2, longest + 1):
            scored.setdefault((run * length)[:length], -1000.0)
    return scored


def full_of_runs(*runs: str) -> list[str]:
    dice = random.Random(0)
    pieces = ["the", " cat", " sat", "日本語", "é", "🎵🎻", "مرحبا", " ", "\n", "\t", *runs]
    mixed = ["".join(dice.choice(pieces) * dice.choice((1, 2, 3, 17)) for _ in range(6)) for _ in range(60)]
    plain = [run * length for run in runs for length in (1, 2, 3, 30, 31, 32, 40, 63, 70)]
    return [*plain, *mixed, *texts(60, seed=2)]


@pytest.mark.parametrize(
    ("runs", "options"),
    [
        (("\n", "\t", "▁"), {}),
        (("▁", "-", "="), {"prefix": True}),
        (("ab", "🎵", "語"), {}),
        (("\n", "▁"), {"defined": ("\n", *("\n" * length for length in range(2, 32)), "<unused0>", "▁▁")}),
    ],
    ids=[
        "as in Gemma",
        "a space before",
        "of two letters, emoji, characters",
        "newlines as tokens of their own",
    ],
)
def test_pieces_that_share_a_score_are_cut_alike_by_llama_cpp_and_after_the_way_back(tmp_path, runs, options):
    pytest.importorskip("xllamacpp")
    folder = folder_of(tmp_path / "model", scored_words(*runs), **options)
    written = write_gguf(folder, tmp_path / "model.gguf", "f16")
    back = AutoTokenizer.from_pretrained(read_gguf(written.path, tmp_path / "back"))
    tokenizer, asked = AutoTokenizer.from_pretrained(folder), full_of_runs(*(run.replace("▁", " ") for run in runs))
    here = [tokenizer.encode(text) for text in asked]
    there = llama_cpp.tokenize_all(written.path, asked)
    assert [text for text, one, other in zip(asked, here, there, strict=True) if one != other] == []
    assert [text for text, ids in zip(asked, here, strict=True) if back.encode(text) != ids] == []
    assert written.notices == ()


def test_merges_in_any_order_become_scores_that_say_the_same_or_are_refused_with_a_text():
    """Random vocabularies of up to eleven pieces; the judge is llama.cpp's rule, written out naively."""

    def cut(text: str, scores: dict[str, float]) -> list[str]:
        pieces = list(text)
        while True:
            joins = [
                (-scores[one + other], index)
                for index, (one, other) in enumerate(pairwise(pieces))
                if one + other in scores
            ]
            if not joins:
                return pieces
            _, index = min(joins)
            pieces[index : index + 2] = ["".join(pieces[index : index + 2])]

    refused = 0
    for seed in range(200):
        dice = random.Random(seed)
        tokens = list("ab" if seed % 2 else "abc")
        letters = "".join(tokens)
        for _ in range(dice.randint(2, 8)):
            joint = dice.choice(tokens) + dice.choice(tokens)
            if joint not in tokens and len(joint) < 7:
                tokens.append(joint)
        merges = merges_of(dict.fromkeys(tokens, 0.0), set(tokens))
        dice.shuffle(merges)
        model = models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges)
        try:
            scores = dict(zip(tokens, scores_of_merges(tokens, merges, model), strict=True))
        except ValueError:
            refused += 1
            continue
        for _ in range(40):
            text = "".join(dice.choices(letters, k=dice.randint(2, 24)))
            assert cut(text, scores) == [token.value for token in model.tokenize(text)], (seed, text)
    assert 0 < refused < 8


def fields(path: Path) -> dict:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_a_file_that_was_loaded_gives_its_scores_types_and_names_to_the_next(tmp_path):
    source = folder_of(tmp_path / "model", scored_words("\n"))
    path = write_gguf(source, tmp_path / "model.gguf", "f32").path
    own, types = fields(path), fields(path)["tokenizer.ggml.token_type"]
    changed = {
        "tokenizer.ggml.scores": [score / 2 for score in own["tokenizer.ggml.scores"]],
        "tokenizer.ggml.token_type": [*types[:-2], int(gguf.TokenType.UNUSED), int(gguf.TokenType.USER_DEFINED)],
        "tokenizer.ggml.fim_pre_token_id": 300,
        "tokenizer.chat_template": "{{ messages[0].content }}",
    }
    odd = rewritten(path, tmp_path / "odd.gguf", changed)
    model, _ = FastModel.from_pretrained(odd)
    FastModel.get_peft_model(model, r=2)
    [export] = model.save_pretrained_gguf(tmp_path / "out", quantization_method="f32")
    before, after = fields(odd), fields(export.path)
    kept = [key for key in before if key.startswith("tokenizer.")]
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert changed.keys() <= set(kept)


@pytest.mark.parametrize(("style", "name"), [("llama3", "llama-v3"), ("smollm", "starcoder"), ("gpt2", "phi-2")])
def test_the_name_of_a_pre_tokenizer_that_has_several_is_kept(tmp_path, style, name):
    folder = tiny_model_folder(tmp_path / "model", "llama", style=style)
    path = write_gguf(folder, tmp_path / "model.gguf", "f32").path
    odd = rewritten(path, tmp_path / "odd.gguf", {"tokenizer.ggml.pre": name})
    again = write_gguf(read_gguf(odd, tmp_path / "back"), tmp_path / "again.gguf", "f32").path
    assert fields(again)["tokenizer.ggml.pre"] == name


def test_scores_are_those_of_the_tokenizer_model_in_the_folder_and_sentencepiece_cuts_alike(tmp_path):
    pytest.importorskip("xllamacpp")
    folder, model = trained_by_sentencepiece(tmp_path / "model")
    path = write_gguf(folder, tmp_path / "model.gguf", "f16").path
    scores = gguf.GGUFReader(path).fields["tokenizer.ggml.scores"].contents()
    assert scores == [model.get_score(index) for index in range(model.get_piece_size())]
    asked = [text for text in full_of_runs(" ", "\n", "-") if text]
    assert llama_cpp.tokenize_all(path, asked) == [[model.bos_id(), *model.encode(text)] for text in asked]


def test_a_tokenizer_that_was_changed_since_its_source_gets_scores_of_its_own(tmp_path):
    folder, _ = trained_by_sentencepiece(tmp_path / "model")
    spec = json.loads((folder / "tokenizer.json").read_text())
    merges = spec["model"]["merges"]
    made = {"".join(merge) for merge in merges[-30:]}
    spec["model"]["merges"] = [*merges[-30:], *(merge for merge in merges[:-30] if "".join(merge) not in made)]
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    path = write_gguf(folder, tmp_path / "model.gguf", "f16").path
    scores = gguf.GGUFReader(path).fields["tokenizer.ggml.scores"].contents()
    order = spec["model"]["vocab"]
    ranked = list(dict.fromkeys("".join(merge) for merge in spec["model"]["merges"]))
    assert all(scores[order[one]] >= scores[order[other]] for one, other in pairwise(ranked))


def trained_by_sentencepiece(folder: Path) -> tuple[Path, sentencepiece.SentencePieceProcessor]:
    """A model with SentencePiece's own tokenizer.model, and the tokenizer.json that follows from it."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.replace("\n", " ") for text in texts(400, seed=1)] + ["x" * 40, "--- " * 9] * 8),
        model_writer=out,
        vocab_size=900,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.99,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    ids = {model.id_to_piece(index): index for index in range(model.get_piece_size())}
    scored = {piece: model.get_score(index) for piece, index in ids.items() if len(piece) > 1 and index > 258}
    tokenizer = Tokenizer(
        models.BPE(vocab=ids, merges=merges_of(scored, set(ids)), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True
    )
    tiny_model_folder(folder, "llama", vocab_size=len(ids))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    fast.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    return folder, model


@pytest.mark.parametrize("legacy", [True, False])
def test_a_tokenizer_of_llama_2_passes_its_read_back_on_texts_that_begin_with_spaces(tmp_path, legacy):
    """transformers puts a space only before a text that has none; llama.cpp before every one, and the file says so."""
    pytest.importorskip("xllamacpp")
    folder = folder_of(tmp_path / "model", scored_words("▁"), prefix=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "add_bos_token": True})
    )
    model, _ = FastModel.from_pretrained(folder)
    FastModel.get_peft_model(model, r=2)
    rows = [{"text": text} for text in ("the cat", "   the    cat", " " * 40 + "x", "\n  the cat", "  日本語  é   ")]
    [export] = model.save_pretrained_gguf(tmp_path / "out", quantization_method="f16", verify_with=rows)
    assert export.verification is not None
    assert export.verification.passed, str(export)
    assert any("puts a space before a text that begins with one" in note for note in export.notes)
