"""One file per subject: each probe takes a `Case` and returns what it found, in numbers."""
