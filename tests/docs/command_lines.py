"""The function and the words of a command line on a page."""

from pathlib import Path

from markdown_pages import ROOT

from eqzoo.commands.cli import BENCHMARKS, COMMANDS


def tool_of(words):
    """Return the tool's name, and the words after it; None if the command calls no tool of this project."""
    for place, word in enumerate(words):
        path = Path(word)
        if path.parts[:1] == ('tools',) and path.suffix == '.py':
            assert (ROOT / path).is_file(), f'{path} does not exist'
            return path.stem, words[place + 1 :]
        if path.name == 'slurm_train.sh':
            return 'train', words[place + 1 :]
        if word == 'eqzoo' and (place == 0 or words[place - 1] == '-m'):
            return words[place + 1].replace('-', '_'), words[place + 2 :]
    return None


def function_of(tool, words):
    """Return the function that `tool` calls, and the words left for it."""
    if tool == 'benchmark':
        return BENCHMARKS[words[0]].load(), words[1:]
    return COMMANDS[tool.replace('_', '-')].load(), words
