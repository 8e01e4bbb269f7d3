"""What `launches.py` is made of: models without weights, the steps that are taken with them, and the counting."""
