"""The files at the top of the kit, and the kit as a whole: its contents page, its commands, its notebooks."""
