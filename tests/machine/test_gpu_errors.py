"""gpu_errors.py: the failures MLX and Metal are known to report, by their own texts (mlx 0.32 and its issue 3267)."""

import pytest

from tunebook.machine.gpu_errors import gpu_fault

FAILED = "[METAL] Command buffer execution failed: "
SAID = {
    f"{FAILED}Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)": "memory",
    f"{FAILED}Nicht genügend Speicher (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)": "memory",
    "[malloc_or_wait] Unable to allocate 12 bytes.": "memory",
    "[metal::malloc] Attempting to allocate 99 bytes which is greater than the maximum allowed buffer size": "memory",
    "[metal::malloc] Resource limit (499000) exceeded.": "buffers",
    f"{FAILED}Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)": "watchdog",
    f"{FAILED}Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)": "watchdog",
    f"{FAILED}Caused GPU Hang Error (00000003:kIOGPUCommandBufferCallbackErrorHang)": "watchdog",
    f"{FAILED}Internal Error (0000000e:kIOGPUCommandBufferCallbackErrorInternal)": "driver",
    f"{FAILED}Innocent Victim (00000005:kIOGPUCommandBufferCallbackErrorInnocentVictim)": "driver",
}


@pytest.mark.parametrize("said", SAID)
def test_a_failure_is_known_by_its_code_in_whatever_language_its_words_are(said):
    assert gpu_fault(RuntimeError(said)) == SAID[said]


@pytest.mark.parametrize(
    "error", [RuntimeError("[matmul] Last dimension of first input"), ValueError(next(iter(SAID)))]
)
def test_only_mlxs_own_errors_are_taken_for_a_failure(error):
    assert gpu_fault(error) is None
