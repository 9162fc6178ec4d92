"""Numbers of bytes as people write them."""

import re


def bytes_of(text: str) -> int:
    """Read a size: a number of bytes, or one with a unit, of thousands (GB) or of 1024s (GiB).

    Raises
    ------
    ValueError
        If it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?(?:[eE]\d+)?)\s*(?:([kKMGTP]?)(i?)B?)", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size; write 500GB, 2TiB or a number")
    number, prefix, binary = found.groups()
    thousand = 1024.0 if binary else 1000.0
    return round(float(number) * float(thousand ** " KMGTP".index(prefix.upper() or " ")))
