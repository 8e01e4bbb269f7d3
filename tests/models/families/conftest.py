"""Six families that read images, and rows with one image, two and none."""

import pytest

from tests.makers.tiny_vision import FAMILIES, asked, noise_images


@pytest.fixture(params=FAMILIES)
def vision(request, vision_models):
    return vision_models(request.param)


@pytest.fixture(scope="module")
def image_rows():
    """One image, two of different sizes over two turns, and none."""
    small, wide, tall = noise_images(1)[0], noise_images(2, size=(90, 60))[1], noise_images(3, size=(56, 84))[2]
    two = asked("And this?", [wide], "a brown fox")["messages"] + asked("Then?", [tall], "two dogs")["messages"]
    text = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "the lazy dog sleeps"}]
    return [asked("What is it?", [small], "a dog"), {"messages": two}, {"messages": text}]
