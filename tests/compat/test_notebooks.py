"""Notebooks as people bring them, but for the import line: each gives the losses of the same run in the kit's names.

The code is ours, in the shape of those that are most used. The run in the kit's names is written out by hand beside it.
"""

from pathlib import Path

import datasets
import pytest
from transformers import DataCollatorForSeq2Seq

from tests.compat.by_hand import (
    ALPACA,
    ANSWERS,
    ASKS,
    PROJECTIONS,
    RUN,
    SHAREGPT,
    WORDS,
    in_kit_names,
    losses,
    trained,
)
from tests.makers.tiny import tiny_model_folder
from tests.makers.tiny_vision import asked, noise_images, tiny_vision_folder
from tunebook import FastModel as KitModel
from tunebook.compat.unsloth import (
    FastLanguageModel,
    FastModel,
    FastVisionModel,
    SFTConfig,
    SFTTrainer,
    TrainingArguments,
    UnslothTrainer,
    UnslothTrainingArguments,
    UnslothVisionDataCollator,
    get_chat_template,
    is_bfloat16_supported,
    standardize_sharegpt,
    train_on_responses_only,
)


def test_a_chat_model_is_tuned_on_its_answers(folder):
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=str(folder), max_seq_length=128, dtype=None, load_in_4bit=False
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=4,
        target_modules=PROJECTIONS,
        lora_alpha=8,
        lora_dropout=0,
        bias="none",
        use_gradient_checkpointing="unsloth",
        random_state=3407,
        use_rslora=False,
        loftq_config=None,
    )
    tokenizer = get_chat_template(tokenizer, chat_template="chatml")

    def formatting_prompts_func(examples):
        convos = examples["conversations"]
        texts = [tokenizer.apply_chat_template(convo, tokenize=False, add_generation_prompt=False) for convo in convos]
        return {"text": texts}

    dataset = standardize_sharegpt(datasets.Dataset.from_list(SHAREGPT))
    assert dataset[5]["conversations"][1] == {"role": "assistant", "content": " ".join(WORDS[:7])}
    dataset = dataset.map(formatting_prompts_func, batched=True)
    trainer = SFTTrainer(
        model=model,
        tokenizer=tokenizer,
        train_dataset=dataset,
        dataset_text_field="text",
        max_seq_length=128,
        data_collator=DataCollatorForSeq2Seq(tokenizer=tokenizer.own),
        dataset_num_proc=2,
        packing=False,
        args=TrainingArguments(
            **RUN,
            gradient_accumulation_steps=2,
            fp16=not is_bfloat16_supported(),
            bf16=is_bfloat16_supported(),
            logging_steps=1,
            optim="adamw_8bit",
            weight_decay=0.01,
            lr_scheduler_type="linear",
            output_dir="outputs",
            report_to="none",
        ),
    )
    trainer = train_on_responses_only(trainer, instruction_part=ASKS, response_part=ANSWERS)
    row = trainer.train_dataset[5]
    assert "Say 5 words." in tokenizer.decode(row["input_ids"])
    assert tokenizer.decode([token for token in row["labels"] if token != -100]) == " ".join(WORDS[:7]) + "<|im_end|>"
    trainer_stats = trained(trainer)
    assert trainer_stats.metrics["train_runtime"] > 0
    assert trainer_stats.training_loss == sum(losses(trainer_stats)) / 2
    history = trainer.state.log_history
    assert [line["loss"] for line in history if "loss" in line] == losses(trainer_stats)
    assert history[-1]["train_loss"] == trainer_stats.training_loss
    assert trainer.state.global_step == history[-1]["step"] == 2

    turns = {"human": "user", "gpt": "assistant"}
    texts = [
        {
            "text": "".join(
                f"<|im_start|>{turns[turn['from']]}\n{turn['value']}<|im_end|>\n" for turn in row["conversations"]
            )
        }
        for row in SHAREGPT
    ]
    assert losses(trainer_stats) == in_kit_names(
        folder,
        texts,
        adapters={"r": 4, "lora_alpha": 8},
        responses=(ASKS, ANSWERS),
        config={"gradient_accumulation_steps": 2, "weight_decay": 0.01},
    )


def test_an_alpaca_prompt_is_filled_in_by_a_function_of_columns(folder):
    alpaca_prompt = "### Instruction:\n{}\n\n### Input:\n{}\n\n### Response:\n{}"
    model, tokenizer = FastLanguageModel.from_pretrained(str(folder), max_seq_length=128, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(model, r=4, lora_alpha=4)
    EOS_TOKEN = tokenizer.eos_token

    def formatting_func(examples):
        rows = zip(examples["instruction"], examples["input"], examples["output"], strict=True)
        return [alpaca_prompt.format(*row) + EOS_TOKEN for row in rows]

    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=ALPACA,
        formatting_func=formatting_func,
        args=SFTConfig(**RUN, max_length=128, dataset_num_proc=1, optim="adamw_torch"),
    )
    rows = [{"text": alpaca_prompt.format(*row.values()) + "<|im_end|>"} for row in ALPACA]
    expected = in_kit_names(folder, rows, adapters={"r": 4, "lora_alpha": 4})
    assert losses(trained(trainer)) == expected


def test_a_language_is_learnt_from_raw_text_with_the_embeddings_trained_at_a_rate_of_their_own(folder):
    rows = [{"article": " ".join(WORDS[number:])} for number in range(6)]
    model, tokenizer = FastLanguageModel.from_pretrained(model_name=str(folder), max_seq_length=128, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(
        model, r=4, target_modules=[*PROJECTIONS, "embed_tokens", "lm_head"], lora_alpha=8, use_rslora=True
    )
    trainer = UnslothTrainer(
        model=model,
        tokenizer=tokenizer,
        train_dataset=rows,
        dataset_text_field="article",
        max_seq_length=128,
        args=UnslothTrainingArguments(**RUN, embedding_learning_rate=1e-4, lr_scheduler_type="cosine"),
    )
    names = ("embed_tokens", "lm_head")
    adapters = {"r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": PROJECTIONS, "modules_to_save": names}
    config = {"embedding_learning_rate": 1e-4, "lr_scheduler_type": "cosine"}
    texts = [{"text": row["article"]} for row in rows]
    assert losses(trained(trainer)) == in_kit_names(folder, texts, adapters=adapters, config=config)


def test_a_model_that_reads_images_is_tuned_with_its_collator(tmp_path):
    vision = tiny_vision_folder(tmp_path / "vision", "qwen2_vl")
    image = noise_images(1)[0]
    converted_dataset = [asked(f"What is {number}?", [image], " ".join(WORDS[: 2 + number])) for number in range(4)]
    model, tokenizer = FastVisionModel.from_pretrained(
        str(vision), load_in_4bit=False, max_seq_length=128, use_gradient_checkpointing="unsloth"
    )
    model = FastVisionModel.get_peft_model(
        model,
        finetune_vision_layers=True,
        finetune_language_layers=True,
        finetune_attention_modules=True,
        finetune_mlp_modules=True,
        r=4,
        lora_alpha=4,
        random_state=3407,
    )
    FastVisionModel.for_training(model)
    trainer = SFTTrainer(
        model=model,
        tokenizer=tokenizer,
        data_collator=UnslothVisionDataCollator(model, tokenizer),
        train_dataset=converted_dataset,
        args=SFTConfig(
            **RUN,
            remove_unused_columns=False,
            dataset_text_field="",
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=128,
        ),
    )
    ours = losses(trained(trainer))
    adapters = {"r": 4, "lora_alpha": 4, "finetune_vision_layers": True}
    assert ours == in_kit_names(vision, converted_dataset, adapters=adapters, config={"train_on": "everything"})

    FastVisionModel.for_inference(model)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is 1?"}]}]
    input_text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    inputs = tokenizer(image, input_text, add_special_tokens=False, return_tensors="pt").to("cuda")
    outputs = model.generate(**inputs, max_new_tokens=5, use_cache=True)
    answer = tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
    asked_for = [{"role": "user", "content": [{"type": "image", "image": image}, messages[0]["content"][1]]}]
    assert answer.strip() == KitModel.generate(model, asked_for, max_tokens=5).strip() != ""


def test_conversations_are_trained_whole_as_they_are_by_trl(folder):
    model, tokenizer = FastModel.from_pretrained(str(folder), max_seq_length=128, load_in_4bit=True)
    model = FastModel.get_peft_model(
        model, finetune_vision_layers=False, finetune_language_layers=True, r=4, lora_alpha=4, random_state=1
    )
    trainer = SFTTrainer(model=model, tokenizer=tokenizer, train_dataset=SHAREGPT, args=SFTConfig(**RUN))
    assert losses(trained(trainer)) == in_kit_names(
        folder,
        SHAREGPT,
        loading={"load_in_4bit": True},
        adapters={"r": 4, "lora_alpha": 4, "random_state": 1},
        config={"train_on": "everything"},
    )


def test_a_model_that_thinks_is_asked_with_the_templates_switch(tmp_path):
    template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    )
    thinker = tiny_model_folder(tmp_path / "qwen3", "qwen3", chat_template=template)
    model, tokenizer = FastLanguageModel.from_pretrained(str(thinker), max_seq_length=128, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(model, r=4, lora_alpha=4)
    rows = standardize_sharegpt(SHAREGPT)
    conversations = tokenizer.apply_chat_template([row["conversations"] for row in rows], tokenize=False)
    trainer = SFTTrainer(
        model=model,
        tokenizer=tokenizer,
        train_dataset=datasets.Dataset.from_dict({"text": conversations}),
        args=SFTConfig(dataset_text_field="text", **RUN, report_to="none"),
    )
    texts = [{"text": text} for text in conversations]
    assert losses(trained(trainer)) == in_kit_names(thinker, texts, adapters={"r": 4, "lora_alpha": 4})

    messages = [{"role": "user", "content": "Say 2 words."}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    inputs = tokenizer(text, return_tensors="pt").to("cuda")
    outputs = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    answer = tokenizer.decode(outputs[0][len(inputs.input_ids[0]) :], skip_special_tokens=True)
    assert answer.strip() == KitModel.generate(model, messages, max_tokens=6, thinking=False).strip() != ""


def test_what_was_trained_is_saved_in_every_form_and_loaded_again(folder, rows):
    model, tokenizer = FastLanguageModel.from_pretrained(str(folder), max_seq_length=128, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(model, r=4, lora_alpha=8)
    trainer = SFTTrainer(model=model, tokenizer=tokenizer, train_dataset=rows, args=SFTConfig(**RUN, output_dir="runs"))
    trainer.add_step_callback(lambda *_: trainer.stop())
    assert trained(trainer).global_step == 1
    args = SFTConfig(**RUN, output_dir="runs")
    trainer = SFTTrainer(model=model, tokenizer=tokenizer, train_dataset=rows, args=args)
    trainer_stats = trainer.train(resume_from_checkpoint=True)
    expected = in_kit_names(folder, rows, adapters={"r": 4, "lora_alpha": 8}, config={"train_on": "everything"})
    assert losses(trainer_stats) == expected
    loss = trainer.evaluate(rows).loss
    model.save_pretrained("lora_model")
    tokenizer.save_pretrained("lora_model")
    model.save_pretrained_merged("merged", tokenizer, save_method="merged_16bit", maximum_memory_usage=0.5)
    model.save_pretrained_gguf("gguf", tokenizer, quantization_method="not_quantized")

    for place in ("lora_model", "merged"):
        again, tokenizer = FastLanguageModel.from_pretrained(model_name=place, max_seq_length=128, load_in_4bit=False)
        if place == "merged":
            FastLanguageModel.get_peft_model(again, r=4)
        trainer = SFTTrainer(model=again, tokenizer=tokenizer, train_dataset=rows, args=SFTConfig(max_steps=3))
        assert trainer.evaluate(rows).loss == pytest.approx(loss, abs=1e-2)  # "merged" rounds to bfloat16
    [file] = Path("gguf").glob("*.gguf")
    again, tokenizer = FastLanguageModel.from_pretrained(str(file), max_seq_length=128, load_in_4bit=False)
    FastLanguageModel.get_peft_model(again, r=4)
    trainer = SFTTrainer(model=again, tokenizer=tokenizer, train_dataset=rows, args=SFTConfig(max_steps=3))
    assert trainer.evaluate(rows).loss == pytest.approx(loss, abs=2e-3)  # and "f16" to float16
