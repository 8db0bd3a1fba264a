"""Text from outside, such as names of files and of tensors, made fit for terminals, tables and pages."""

import re
import shlex

# What a terminal obeys or no encoding can write: controls, stray bytes of file names (lone surrogates), line and
# paragraph separators, marks that reverse the direction of writing, and code points that are no characters.
_UNPRINTABLE = re.compile(
    '[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]'
)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, 'class'), counted(2, 'class'), counted(1000, 'image')
        ('1 class', '2 classes', '1,000 images')
    """
    ending = '' if number == 1 else 'es' if noun.endswith('s') else 's'
    return f'{number:,} {noun}{ending}'


def printable(text: object, *, lines: bool = False) -> str:
    r"""Spell out every character of `text` that is not shown but obeyed, or that cannot be written.

    Args:
        text: A name, or anything that `str` takes.
        lines: Keep line ends and tabs, for a text of several lines.

    Example:
        >>> print(printable('a\x1b[2J.png'), printable('caf\udce9\n'), printable('日本 ü.png'))
        a\x1b[2J.png caf\udce9\x0a 日本 ü.png
    """

    def spell(found: re.Match[str]) -> str:
        code = ord(found[0])
        if lines and found[0] in '\n\t':
            return found[0]
        return f'\\x{code:02x}' if code < 256 else f'\\u{code:04x}'

    return _UNPRINTABLE.sub(spell, str(text))


def shell_word(path: object) -> str:
    """Return a path as a word of a command line to copy: quoted where a shell needs it, and never an option.

    Example:
        >>> print(shell_word('configs/a.py'), shell_word('my config.py'), shell_word('-a.py'))
        configs/a.py 'my config.py' ./-a.py
    """
    return shlex.quote(f'./{path}' if str(path).startswith('-') else str(path))
