"""The files of a model as somebody left them: none of them is trusted, and none is run.

A folder goes in; out come settings in the words of the classes that take them, checked weights, and a folder a library
may open. Nothing here holds a model in memory. A setting of transformers that mlx-lm does not take is translated in
`checkpoint_config.py`, or refused in `unsupported_settings.py`.

Doors: `adapter_files`, `believable`, `chat_templates`, `checkpoint_config`, `generation_config`, `tensor_files`,
`transformers_config`, `trusted`, `unsupported_settings`.
"""
