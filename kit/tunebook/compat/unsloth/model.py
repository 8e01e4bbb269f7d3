"""A model as notebooks hold it: `generate` with ids and a streamer, and saving with a tokenizer beside the folder."""

# ruff: noqa: ARG002 - the model saves its own tokenizer, and which is given changes nothing

from collections.abc import Mapping, Sequence
from typing import Any

from ... import FastModel
from ...models.adapters import adapter_paths, parameter_counts
from ...settings import arguments
from ..told import tell
from .generating import generated
from .streamer import Streamer
from .tokenizer import Seen

# Settings of files that are not there to be set.
NOT_SET = ("safe_serialization", "max_shard_size", "maximum_memory_usage", "temporary_location", "first_conversion")
GGUF_METHODS = {"fast_quantized": "q8_0", "quantized": "q4_k_m", "not_quantized": "f16", None: "q8_0"}
MERGED_METHODS = {"merged_4bit_forced": "merged_4bit", "forced_merged_4bit": "merged_4bit", "16bit": "merged_16bit"}


class Model(FastModel):
    """A `tunebook.FastModel` that is called as Unsloth's models are; in all other respects it is one."""

    @property
    def max_seq_length(self) -> int:
        """Longest row in tokens."""
        return self.loaded.max_seq_length

    def print_trainable_parameters(self) -> None:
        """Print how many parameters are trained, of how many."""
        trainable, total = parameter_counts(self.module)
        print(f"trainable params: {trainable:,} || all params: {total:,} || trainable%: {100 * trainable / total:.4f}")

    def generate(  # pyright: ignore[reportIncompatibleMethodOverride] - of a prompt it is the kit's own
        self,
        prompt: Any = None,
        *,
        input_ids: Any = None,
        pixel_values: Seen | None = None,
        attention_mask: Any = None,
        streamer: Streamer | None = None,
        max_new_tokens: int | None = None,
        **options: Any,
    ) -> Any:
        """(B, T) ids, each row its prompt and what was written behind it, padded at the end; `streamer` hears of them.

            >>> inputs = tokenizer(["A tune"], return_tensors="pt")
            >>> outputs = model.generate(**inputs, max_new_tokens=4, temperature=0.7, min_p=0.1)
            >>> texts = tokenizer.batch_decode(outputs)

        `input_ids`, `attention_mask` and `pixel_values` are what the tokenizer gave. A text or a list of messages as
        `prompt` is answered with a text, as by `tunebook.FastModel.generate`. At most `max_new_tokens` are written.
        `options` are temperature, top_p, min_p, top_k and do_sample, all of them asked of the model's own
        probabilities before the temperature is. Raises TypeError for others, with what to write.
        """
        if isinstance(prompt, str) or (isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping)):
            if max_new_tokens is not None:
                options["max_tokens"] = max_new_tokens
            return super().generate(prompt, **options)
        return generated(
            self.loaded,
            prompt if input_ids is None else input_ids,
            seen=pixel_values,
            attention_mask=attention_mask,
            streamer=streamer,
            max_new_tokens=max_new_tokens,
            options=options,
        )

    def save_pretrained(self, folder: arguments.Into, tokenizer: Any = None, **options: Any) -> Any:
        """The adapters in `folder`, or the whole model where all of it was trained. The `tokenizer` is saved anyhow."""
        options = _known(options)
        if not adapter_paths(self.module) and self._is_trained_whole():
            return super().save_pretrained_merged(folder, **options)
        return super().save_pretrained(folder, **options)

    def save_pretrained_merged(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        folder: arguments.Into,
        tokenizer: Any = None,
        save_method: str = "merged_16bit",
        **options: Any,
    ) -> Any:
        """A model folder with the adapters merged in, in 16 or in MLX's 4 bits, or with "lora" the adapters."""
        if save_method == "lora":
            return self.save_pretrained(folder, **options)
        return super().save_pretrained_merged(folder, save_method=_merged(save_method), **_known(options))

    def save_pretrained_gguf(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        folder: arguments.Into,
        tokenizer: Any = None,
        quantization_method: Any = "fast_quantized",
        **options: Any,
    ) -> Any:
        """One .gguf in `folder` for each method, with its Modelfile; nothing is built or downloaded for it."""
        return super().save_pretrained_gguf(
            folder, quantization_method=_quantizations(quantization_method), **_known(options)
        )

    def push_to_hub(self, repo_id: str, tokenizer: Any = None, **options: Any) -> str:
        """`save_pretrained` to the hub."""
        return super().push_to_hub(repo_id, **_sent(options))

    def push_to_hub_merged(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        repo_id: str,
        tokenizer: Any = None,
        save_method: str = "merged_16bit",
        **options: Any,
    ) -> str:
        """`save_pretrained_merged` to the hub."""
        if save_method == "lora":
            return self.push_to_hub(repo_id, **options)
        return super().push_to_hub_merged(repo_id, save_method=_merged(save_method), **_sent(options))

    def push_to_hub_gguf(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        repo_id: str,
        tokenizer: Any = None,
        quantization_method: Any = "fast_quantized",
        **options: Any,
    ) -> str:
        """`save_pretrained_gguf` to the hub."""
        return super().push_to_hub_gguf(
            repo_id, quantization_method=_quantizations(quantization_method), **_sent(options)
        )

    def _is_trained_whole(self) -> bool:
        trainable, total = parameter_counts(self.module)
        return trainable == total


def _merged(method: str) -> Any:
    if method in MERGED_METHODS:
        tell(f"save_method={method!r} is {MERGED_METHODS[method]!r} here; 4 bits are MLX's, for mlx-lm alone.")
    return MERGED_METHODS.get(method, method)


def _quantizations(method: Any) -> Any:
    if isinstance(method, list | tuple):
        return tuple(GGUF_METHODS.get(one, one) for one in method)
    return GGUF_METHODS.get(method, method)


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` without what nothing depends on here."""
    if dropped := [name for name in options if name in NOT_SET]:
        tell(f"{', '.join(dropped)}: files are safetensors or GGUF, written whole or not at all. Leave it out.")
    asks_for_nothing = [name for name in ("push_to_hub", "token") if not options.get(name)]
    return {name: value for name, value in options.items() if name not in (*NOT_SET, *asks_for_nothing)}


def _sent(options: Mapping[str, Any]) -> dict[str, Any]:
    if "private" not in options:
        tell("A repository that is made is private; write private=False for one that everybody sees.")
    return _known(options)
