"""Detection of characters that are invisible on a page, although Unicode classes them as letters or marks."""

from __future__ import annotations

import re

# Default_Ignorable_Code_Point of Unicode 16.0: all 4,174, including unassigned ones.
# https://www.unicode.org/Public/16.0.0/ucd/DerivedCoreProperties.txt
_IGNORABLE = (
    (0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
# Symbols to Unicode but blank to the eye: the empty Braille cell, the null note head, fillers.
_BLANK = ((0x2800, 0x2800), (0x13441, 0x13442), (0x16FE4, 0x16FE4), (0x1D159, 0x1D159))

_UNSEEN = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in (*_IGNORABLE, *_BLANK)) + "]")


def is_seen(text: str) -> bool:
    """True if every character is visible, apart from spaces between words."""
    return text.isprintable() and _UNSEEN.search(text) is None
