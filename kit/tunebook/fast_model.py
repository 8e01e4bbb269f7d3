"""`FastModel`: the handle people hold, with the names they know from Unsloth, PEFT and transformers.

It only calls into the wings; nothing is decided here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tokenizer_utils import TokenizerWrapper

from .config import LoraConfig
from .data.sources import Source
from .events import Event
from .export.hub import publish
from .export.lora import AdapterFormat
from .export.report import Export
from .export.saving import SaveMethod, export_gguf, export_lora, export_merged
from .jobs.beside import beside_runs
from .models import adapters
from .models.families.base import Family
from .models.generation import as_prompt, write
from .models.loaded import Loaded
from .models.loader import load_pretrained
from .models.resize import resize
from .settings import arguments
from .settings.taken import call
from .settings.values import Folder

Prompt = Annotated[str | Sequence[Mapping[str, Any]], "a text, or a list of messages"]
Method = Annotated[SaveMethod, "merged_16bit, or for mlx-lm alone merged_8bit, merged_4bit or merged_mxfp4"]
SavedDtype = Annotated[str | mx.Dtype | None, "None: the checkpoint's own 16-bit type, else bfloat16"]
Checked = Annotated[Source | None, "rows, or where they are, to compare the loss on once the export is read back"]


@dataclass(eq=False)
class FastModel:
    """A loaded model, as `from_pretrained` makes one. `module` is the mlx-lm model itself.

        >>> model, tokenizer = FastModel.from_pretrained(name)
        >>> model = FastModel.get_peft_model(model, r=8)
        >>> answer = model.generate("What is a tune?", max_tokens=8)

    `gradient_checkpointing` is for a TrainingConfig that does not say; the trainer leaves the latest `run_events` here.
    """

    loaded: Loaded
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    run_events: Sequence[Event] = ()

    @property
    def module(self) -> nn.Module:
        """The MLX module, with its adapters once there are any."""
        return self.loaded.module

    @property
    def family(self) -> Family:
        """How this kind of model encodes, predicts and generates."""
        return self.loaded.family

    @property
    def source(self) -> str:
        """Where the weights were found."""
        return self.loaded.source

    def __repr__(self):
        trainable, total = adapters.parameter_counts(self.module)
        share = f"{trainable / 1e6:.2f} M trainable" if trainable < total else "all trainable"
        return f"FastModel({self.loaded.name!r}, {total / 1e6:.1f} M parameters, {share})"

    @staticmethod
    @call("FastModel.from_pretrained")
    def from_pretrained(
        name: Annotated[Folder, "a hub id, a model folder, a folder of adapters or a .gguf file"],
        max_seq_length: arguments.Length = 2048,
        dtype: Annotated[str | mx.Dtype | None, "float32, float16, bfloat16; None: as stored, on a CPU float32"] = None,
        load_in_4bit: arguments.Bits4 = False,
        load_in_8bit: arguments.Bits8 = False,
        full_finetuning: arguments.Whole = False,
        token: arguments.Token = None,
        revision: arguments.Revision = None,
        trust_remote_code: arguments.Trust = False,
        text_only: arguments.TextOnly = None,
        random_state: arguments.Seed = 3407,
        chat_template: arguments.Template = None,
        resize_embeddings: arguments.Resize = False,
    ) -> "tuple[FastModel, TokenizerWrapper]":
        """A hub id, a model folder or a .gguf file -> (model, tokenizer); see `loader.load` for what is raised.

        The model comes frozen: `get_peft_model` makes adapters trainable, `full_finetuning=True` everything. A folder
        of saved adapters, mlx-lm's or PEFT's, brings its base model, and its adapters as trainable as they were.
        """
        loaded = load_pretrained(
            name,
            full_finetuning=full_finetuning,
            resize_embeddings=resize_embeddings,
            random_state=random_state,
            load_in_4bit=load_in_4bit,
            load_in_8bit=load_in_8bit,
            revision=revision,
            max_seq_length=max_seq_length,
            dtype=dtype,
            token=token,
            trust_remote_code=trust_remote_code,
            text_only=text_only,
            chat_template=chat_template,
        )
        return FastModel(loaded), loaded.tokenizer

    @staticmethod
    @call("FastModel.get_peft_model", of=LoraConfig)
    def get_peft_model(
        model: "FastModel",
        r: int = LoraConfig.r,
        target_modules: Sequence[str] | str | None = None,
        lora_alpha: float = LoraConfig.lora_alpha,
        lora_dropout: float = LoraConfig.lora_dropout,
        use_rslora: bool = LoraConfig.use_rslora,
        use_dora: bool = LoraConfig.use_dora,
        finetune_last_n_layers: int | None = LoraConfig.finetune_last_n_layers,
        finetune_vision_layers: bool = LoraConfig.finetune_vision_layers,
        finetune_language_layers: bool = LoraConfig.finetune_language_layers,
        finetune_attention_modules: bool = LoraConfig.finetune_attention_modules,
        finetune_mlp_modules: bool = LoraConfig.finetune_mlp_modules,
        modules_to_save: Sequence[str] | str | None = LoraConfig.modules_to_save,
        use_gradient_checkpointing: arguments.Checkpointing = "auto",
        random_state: int = LoraConfig.random_state,
    ) -> "FastModel":
        """Put LoRA (or DoRA) adapters on `model`, in place, and return it.

        Trainable are the adapters and, whole, the modules `modules_to_save` names; nothing else stays so.
        Raises ValueError for a model loaded with full_finetuning, where nothing is to be adapted.
        """
        config = LoraConfig(
            r=r,
            target_modules=cast("tuple[str, ...] | None", target_modules),
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            use_rslora=use_rslora,
            use_dora=use_dora,
            finetune_last_n_layers=finetune_last_n_layers,
            finetune_vision_layers=finetune_vision_layers,
            finetune_language_layers=finetune_language_layers,
            finetune_attention_modules=finetune_attention_modules,
            finetune_mlp_modules=finetune_mlp_modules,
            modules_to_save=cast("tuple[str, ...] | None", modules_to_save),
            random_state=random_state,
        )
        trainable, total = adapters.parameter_counts(model.module)
        if trainable == total:
            raise ValueError("All of this model is trained already (full_finetuning=True); leave out get_peft_model.")
        adapters.add_adapters(model.module, config)
        switch = use_gradient_checkpointing
        model.gradient_checkpointing = switch if switch == "auto" else bool(switch)
        return model

    @staticmethod
    def resize_embeddings(model: "FastModel") -> "FastModel":
        """Add rows for tokens that were added to the tokenizer, in place, before `get_peft_model`.

        The rows there were stay as they are, and a new one is their mean. It is trained with
        modules_to_save=["embed_tokens"] (and "lm_head" where the head is not tied) or full_finetuning.
        """
        resize(model.loaded)
        return model

    @staticmethod
    def for_inference(model: "FastModel") -> "FastModel":
        """Switch dropout off."""
        model.module.eval()
        return model

    @staticmethod
    def for_training(model: "FastModel") -> "FastModel":
        """Switch dropout on; the trainer does so by itself."""
        model.module.train()
        return model

    @call("stream")
    def stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: arguments.MaxTokens = 256,
        temperature: arguments.Temperature = 0.0,
        top_p: arguments.TopP = 1.0,
        thinking: arguments.Thinking = None,
        tools: arguments.Tools = None,
    ) -> Iterator[str]:
        """Write an answer piece by piece.

        Messages, or a text where the model has a chat template, are a conversation to answer; other text is continued.
        """
        asked = as_prompt(prompt, self.loaded.tokenizer, self.family.placeholder, thinking=thinking, tools=tools)
        yield from write(self.loaded, asked.example, max_tokens=max_tokens, temperature=temperature, top_p=top_p)

    @call("generate")
    def generate(
        self,
        prompt: Prompt,
        *,
        max_tokens: arguments.MaxTokens = 256,
        temperature: arguments.Temperature = 0.0,
        top_p: arguments.TopP = 1.0,
        thinking: arguments.Thinking = None,
        tools: arguments.Tools = None,
    ) -> str:
        """The whole answer as a string, as `stream` writes it."""
        drawn = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
        return "".join(beside_runs(self.stream(prompt, **drawn, thinking=thinking, tools=tools)))

    @call("save_pretrained")
    def save_pretrained(
        self,
        folder: arguments.Into,
        *,
        format: Annotated[AdapterFormat | Literal["gguf"], "mlx-lm's, PEFT's, or a .gguf for llama.cpp"] = "mlx",
        verify_with: Checked = None,
    ) -> Export:
        """Save the adapters as mlx-lm ("mlx") or PEFT ("peft") does; `from_pretrained(folder)` goes on from either.

        "gguf" is one file in `folder`, for llama.cpp's `--lora` on a GGUF of the base model.
        """
        return export_lora(self, folder, format, verify_with=verify_with)

    @call("save_pretrained_merged")
    def save_pretrained_merged(
        self,
        folder: arguments.Into,
        *,
        save_method: Method = "merged_16bit",
        dtype: SavedDtype = None,
        verify_with: Checked = None,
    ) -> Export:
        """Save a model folder with the adapters merged in, also those of a model that is held in 4 bits.

        "float32" keeps every digit; methods other than "merged_16bit" quantize from there, for mlx-lm alone.
        """
        return export_merged(self, folder, save_method, dtype=dtype, verify_with=verify_with)

    @call("save_pretrained_gguf")
    def save_pretrained_gguf(
        self,
        folder: arguments.Into,
        *,
        quantization_method: arguments.Quantizations = "q8_0",
        verify_with: Checked = None,
    ) -> list[Export]:
        """Save one .gguf file per quantization method into `folder`, all from one merge, each with its Modelfile."""
        return export_gguf(self, folder, quantization_method, verify_with=verify_with)

    @call("push_to_hub")
    def push_to_hub(
        self,
        repo_id: arguments.Repository,
        *,
        format: Annotated[AdapterFormat, "mlx-lm's or PEFT's"] = "mlx",
        private: arguments.Private = True,
        token: arguments.Token = None,
        verify_with: Checked = None,
    ) -> str:
        """`save_pretrained` to a repository on the Hugging Face hub, made if there is none; returns its address.

        Nothing is sent if it is not as private as asked, or the export fails its verification.
        """
        saved = partial(export_lora, self, format=format, verify_with=verify_with, repo_id=repo_id)
        return publish(repo_id, lambda folder: [saved(folder)], private=private, token=token)

    @call("push_to_hub_merged")
    def push_to_hub_merged(
        self,
        repo_id: arguments.Repository,
        *,
        save_method: Method = "merged_16bit",
        dtype: SavedDtype = None,
        private: arguments.Private = True,
        token: arguments.Token = None,
        verify_with: Checked = None,
    ) -> str:
        """`save_pretrained_merged` to the hub, as `push_to_hub`."""
        options = {"save_method": save_method, "dtype": dtype, "verify_with": verify_with, "repo_id": repo_id}
        saved = partial(export_merged, self, **options)
        return publish(repo_id, lambda folder: [saved(folder)], private=private, token=token)

    @call("push_to_hub_gguf")
    def push_to_hub_gguf(
        self,
        repo_id: arguments.Repository,
        *,
        quantization_method: arguments.Quantizations = "q8_0",
        private: arguments.Private = True,
        token: arguments.Token = None,
        verify_with: Checked = None,
    ) -> str:
        """`save_pretrained_gguf` to the hub, as `push_to_hub`."""
        options = {"quantization_method": quantization_method, "verify_with": verify_with, "repo_id": repo_id}
        return publish(repo_id, partial(export_gguf, self, **options), private=private, token=token)
