"""What a run keeps on the disk to go on from, and what it must be the same as to be gone on with."""
