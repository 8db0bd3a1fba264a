"""Contents of the pages of this project: blocks, commands, links and anchors."""

import re
import shlex
import string
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r'^( *)```(\w*)[^\n]*\n(.*?)^\1```', re.DOTALL | re.MULTILINE)
_LINK = re.compile(r'(?<!\\)\[[^\]]*\]\(<?([^)\s>]+)>?(?: "[^"]*")?\)')
_HEADING = re.compile(r'^#{1,6} +(.+?) *#*$', re.MULTILINE)
_FILE_NAME = re.compile(r'# ([\w-]+\.py)\n')
_ASSIGNMENT = re.compile(r'[A-Z_]+=')

# Words in capitals, and what they are taken for.
PLACEHOLDERS = {
    'CONFIG': 'configs/eqvae/sd_rot_scale.py',
    'FLOAT': '0.5',
    'N': '2',
    'NAME': 'sd-vae',
}


class Block(NamedTuple):
    """A fenced block: its language, and its text."""

    language: str
    text: str

    @property
    def file_name(self):
        """The name in its first line; None without one."""
        found = _FILE_NAME.match(self.text)
        return found and found[1]


def blocks(name, language=None):
    """Return the fenced blocks of a page, of one language or all."""
    found = (Block(*match) for _, *match in _FENCE.findall((ROOT / name).read_text()))
    return [block for block in found if language in (None, block.language)]


def files(name):
    """Return the files that a page has in full, by name."""
    return {block.file_name: block.text for block in blocks(name, 'python') if block.file_name}


def commands(name):
    """Return the command lines of a page's console blocks as words; placeholders are filled in."""
    found = []
    for block in blocks(name, 'console'):
        variables = {}
        text = re.sub(r'\\\n\s*', '', block.text)
        for line in re.findall(r'^\$ (.+)$', text, re.MULTILINE):
            words = _words(string.Template(line).safe_substitute(variables))
            if _ASSIGNMENT.match(words[0]):
                assigned, _, value = words[0].partition('=')
                variables[assigned] = value
            else:
                found.append(words)
    return found


def inline_commands(name):
    """Return the command lines in a page's text, `python tools/…`, as `commands` does."""
    text = _FENCE.sub('', (ROOT / name).read_text())
    lines = re.findall(r'`(python tools/[a-z_]+\.py [^`]+)`', text.replace('\n', ' '))
    return [_words(line) for line in lines]


def links(name):
    """Return the targets of a page's links, without those in code."""
    text = _FENCE.sub('', (ROOT / name).read_text())
    return _LINK.findall(re.sub(r'`[^`\n]*`', '', text))


def anchors(page):
    """Return what a page's headings are called in links."""
    headings = _HEADING.findall(_FENCE.sub('', page.read_text()))
    return {re.sub(r'[\s-]+', '-', re.sub(r'[^\w\s-]', '', heading).strip().lower()) for heading in headings}


def _words(line):
    """Return the words of a command, without comment and ellipses, placeholders filled in."""
    words = shlex.split(_without_brackets(line), comments=True)
    return [PLACEHOLDERS.get(word, word) for word in words if word not in ('…', '...', 'key=value')]


def _without_brackets(line):
    """Take every option of a synopsis, and the first of its values: `[--to {a,b}]` becomes `--to a`."""
    line = re.sub(r'(?<=\s)\[([^\]]*)\]', r'\1', line)
    return re.sub(r'(?<=\s)\{(\w+),[^}]*\}', r'\1', re.sub(r'(?<=\s)(\w+)(?:\|\w+)+', r'\1', line))
