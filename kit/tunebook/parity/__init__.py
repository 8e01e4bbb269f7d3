"""The same weights in another framework, compared. The only rooms that may import torch; nothing imports them."""
