"""A name in, a loaded model out: its weights, its adapters, and what it writes when asked.

A kind of model is a class in `families/`, chosen once, by `family_of` in `loader/family.py`; past it nobody asks what
the model is. Adapters of other programs are read in `saved_adapters/`.

Doors: `adapters`, `base_digest`, `base_model`, `families/base`, `families/beginnings`, `families/fingerprint`,
`families/head`, `families/language_model`, `families/placeholders`, `families/quirks`, `families/tables`,
`families/text`, `fetch`, `fused_experts`, `generation`, `layer_calls`, `layers`, `loaded`, `loader`, `neftune`,
`norms`, `resize`, `saved_adapters/exact`, `saved_adapters/peft_format`, `tensors`, `vision_names`.
"""
