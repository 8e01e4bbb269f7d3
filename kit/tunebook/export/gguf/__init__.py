"""GGUF of a tuned model and of its adapters alone, for llama.cpp, Ollama and LM Studio.

A loaded model in, .gguf files and what a program needs beside them out. What a .gguf is, and how it is written, is the
wing `tunebook.gguf`'s.
"""
