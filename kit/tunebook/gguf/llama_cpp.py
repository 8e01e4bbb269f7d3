"""What llama.cpp makes of a .gguf: the probability it gives to tokens, and the tokens it makes of a text.

This is the independent reader our exports are checked against, llama.cpp itself inside this process (the `xllamacpp`
package, an optional dependency). It runs on the CPU and generates nothing for people.
"""

import importlib.util
import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

_TOP = (64, 2048, 1 << 20)  # how many candidates to ask for, in turn, until the target is among them


def is_installed() -> bool:
    """Whether llama.cpp can be asked at all: `xllamacpp` is an optional dependency."""
    return importlib.util.find_spec("xllamacpp") is not None


def target_log_probs(
    path: Path | str, token_ids: Sequence[int], positions: Sequence[int] | None = None, *, threads: int = 1
) -> np.ndarray:
    """(len(positions),) fp64, in nats: log p(token_ids[i] | token_ids[:i]) for every i in `positions`.

    The prefix is exactly these ids: no bos is added. By default all positions from 1 on are scored. Ascending
    positions are quick (about 40 ms each on SmolLM2-135M and one CPU core), for llama.cpp keeps the prefix it has seen.
    Two of its threads are faster only on cores nobody else uses: they wait for each other by spinning.
    """
    token_ids = [int(token) for token in token_ids]
    positions = range(1, len(token_ids)) if positions is None else positions
    if bad := [i for i in positions if not 1 <= i < len(token_ids)]:
        raise ValueError(f"positions holds {bad[:5]}; they must be 1 to {len(token_ids) - 1} for these token_ids.")
    with _server(path, context=len(token_ids) + 1, threads=threads) as server:
        letter = _tokenize(server, "a", add_special=False)[-1]
        return np.array([_log_prob(server, token_ids[:i], token_ids[i], sampled=letter) for i in positions])


def tokenize(path: Path | str, text: str) -> list[int]:
    """The ids llama.cpp makes of a prompt: special tokens recognised, bos and eos added if the file says so."""
    with _server(path, context=64, threads=1) as server:
        return _tokenize(server, text, add_special=True)


@contextmanager
def _server(path: Path | str, *, context: int, threads: int) -> Iterator:
    """A llama.cpp server for one file. It is quiet, on the CPU, and keeps its attention cache in fp32."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    xllamacpp = _xllamacpp()
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = context
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.fit_params = False
    params.warmup = False
    params.ui = False
    params.verbosity = -1
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise RuntimeError(f"llama.cpp does not load {path}: {error}") from error
    yield server


def _tokenize(server, text: str, *, add_special: bool) -> list[int]:
    request = urllib.request.Request(
        f"{server.listening_address}/tokenize",
        data=json.dumps({"content": text, "add_special": add_special, "parse_special": True}).encode(),
        headers={"Content-Type": "application/json"},
    )
    # It listens on this machine only; a proxy from the environment must not be asked for it.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=60) as answer:
        return json.load(answer)["tokens"]


def _log_prob(server, prefix: list[int], target: int, *, sampled: int) -> float:
    """Log p(target | prefix) in nats. The bias decides only which token is drawn, not the probabilities reported.

    It is there because the server reports none while the text ends inside a character, as after a byte token.
    """
    candidates = []
    for top in _TOP:
        answer = server.handle_completions(
            {
                "prompt": prefix,
                "n_predict": 1,
                "temperature": 0.0,
                "logit_bias": [[sampled, 1000.0]],
                "n_probs": top,
                "cache_prompt": True,
            }
        )
        if "choices" not in answer:
            raise RuntimeError(f"llama.cpp did not answer for a prefix of {len(prefix)} tokens: {answer}")
        candidates = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        found = [candidate["logprob"] for candidate in candidates if candidate["id"] == target]
        if found:
            return found[0]
    raise ValueError(f"Token {target} is not in the file's vocabulary of {len(candidates)}.")


def _xllamacpp() -> ModuleType:
    try:
        return importlib.import_module("xllamacpp")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Checking a .gguf needs llama.cpp, which is not installed: pip install 'tunebook[verify]'"
        ) from error
