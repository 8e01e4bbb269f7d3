"""Texts in many scripts, and random pieces of them joined: what tokenizers cut differently."""

import random

SNIPPETS = (
    "Hello world, it's 2024 and she'll count 1234567 sheep!",
    "  leading, trailing  \n\n\tand   inner   spaces \r\n",
    "don't I'LL we'Ve you'RE it'S 'tis 'twas",
    "CamelCaseWords HTTPServer iPhone XMLHttpRequest",
    "Straße, naïve café, piñata; Ünïcödé ÉCOLE étude ẞ",
    "Ελληνικά, Русский, Українська, Հայերեն, ქართული ᲥᲐ",
    "עִבְרִית, العَرَبِيَّة مُشَكَّلَة, فارسی",
    "हिन्दी में संयुक्ताक्षर क्षत्रिय, தமிழ், తెలుగు",
    "ภาษาไทยไม่มีช่องว่าง ລາວ ខ្មែរ မြန်မာ བོད་",
    "日本語の文章と漢字、한국어 문장, 中文句子。ｱｲｳ ＦＵＬＬ",
    "Tiếng Việt có dấu, Yorùbá",
    "e\u0301le\u0300ve n\u0303 decomposed",
    "Ǆǅǆ ǈ ᾈ ß ſ ŉ İ ı ᵃ ʰ ⁿ 𝔘𝔫𝔦 𝕬 𐐀𐐨",
    "①②③ ½⅓ Ⅷ ٣٤٥ ६७८ 1,234.56 1e-9 0x1F",
    "emoji 🎵🎻 👩‍👩‍👧 👩🏽‍🚀 🏳️‍🌈 flags 🇩🇪 ©️ ☎",
    "math ∑∞≠ ∀x∈ℝ, ligature ﬁ, zero\u200bwidth a\u200db\ufeffc",
    "\u3000ideographic\u00a0nbsp\u2028line\u2029para\x85nel",
    "…—–“quotes” ‘s’ «guillemets» ¿qué? ¡sí!",
    "def f(x):\n    return x ** 2  # ok\n\n\n\nprint(f(3)) // don't",
    "http://ex.am/p?q=1&r=2#f x=1;y+=2//3/*c*/ /path//to\\n/",
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "\t\ttabs\n\n\n \r\n\r   ",
)


def texts(count: int, seed: int) -> list[str]:
    """The snippets, and random pieces of them joined, up to `count`."""
    dice = random.Random(seed)

    def piece() -> str:
        snippet = dice.choice(SNIPPETS)
        start = dice.randrange(len(snippet))
        return snippet[start : start + dice.randint(1, 12)]

    made = (
        dice.choice(("", " ", "  ", "\n", "'")).join(piece() for _ in range(dice.randint(1, 8))) for _ in range(count)
    )
    return [*SNIPPETS, *made][:count]
