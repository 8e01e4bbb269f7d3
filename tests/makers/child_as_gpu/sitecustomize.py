"""What Python imports as it starts: in the processes that tests of `--as-gpu` start, they take it for Metal too."""

import os

from tests.makers.metal import CHILDS_DTYPE, hold_as_on_the_disk, hold_in_bfloat16, take_for_metal

take_for_metal(setattr)
(hold_in_bfloat16 if os.environ[CHILDS_DTYPE] == "bfloat16" else hold_as_on_the_disk)(setattr)
