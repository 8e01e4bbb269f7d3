"""An export opened again by the program it is for, in a fresh process, and compared with the live model."""
