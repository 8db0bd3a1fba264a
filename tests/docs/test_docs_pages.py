"""Reading of pages for the tests: commands, files, links, anchors."""

import markdown_pages as pages
import pytest

PAGE = """
# Of `things`, and more: 2 of 3

[a link](there.md#part) and `[code](not-a-link.md)`; `python tools/train.py CONFIG
[--resume]` in the text.

```console
$ DATA="a.b=1 c=2"   # in a variable
$ python tools/train.py CONFIG $DATA …  # a comment
$ python tools/convert.py SRC \\
    DST --to {diffusers,ldm} [--scale FLOAT]
[link](in-code.md)
...
```

```python
# shear.py
x = 1
```
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, 'ROOT', tmp_path)
    (tmp_path / 'page.md').write_text(PAGE)
    return 'page.md'


def test_commands(page):
    config = 'configs/eqvae/sd_rot_scale.py'
    assert pages.commands(page) == [
        ['python', 'tools/train.py', config, 'a.b=1', 'c=2'],
        ['python', 'tools/convert.py', 'SRC', 'DST', '--to', 'diffusers', '--scale', '0.5'],
    ]
    assert pages.inline_commands(page) == [['python', 'tools/train.py', config, '--resume']]


def test_files_links_and_anchors(page, tmp_path):
    assert pages.files(page) == {'shear.py': '# shear.py\nx = 1\n'}
    assert pages.links(page) == ['there.md#part']
    assert pages.anchors(tmp_path / page) == {'of-things-and-more-2-of-3'}
