"""What goes wrong while numbers stay whole or cease to be: what is to blame for it, and when it is told."""
