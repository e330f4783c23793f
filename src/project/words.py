"""Words for people."""


def counted(number: int, noun: str) -> str:
    """1 epoch, 2 epochs, 1,000 images."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def legible(name: str) -> str:
    """A name of a file or class as it can be shown; bytes of it that are no UTF-8 become question marks."""
    return name.encode(errors="replace").decode()
