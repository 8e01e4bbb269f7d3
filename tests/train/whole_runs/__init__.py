"""Whole runs, and what a model has learnt by them."""
