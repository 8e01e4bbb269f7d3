"""A run as a thing by itself: begun here, or in a process of its own.

Doors: `work`.
"""
