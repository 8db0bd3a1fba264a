"""Commands that messages print are commands: each form parses, and the ones that mend latents are run as printed."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from eqzoo.autoencoders import KLAutoencoder
from eqzoo.commands import cache_latents, cli
from eqzoo.commands.cache_latents import normalized_std
from eqzoo.config import Config
from eqzoo.data.latents.format import read_index

CONFIG = """
from mmengine.config import read_base

with read_base():
    from eqzoo.configs.dit.dit_tiny_shapes import *

cache_dataloader.dataset.update(num_images=24)
model.autoencoder.update(weights={weights!r})
train_dataloader.dataset.update(root={root!r})
"""

# `python tools/NAME.py` with the words after it: options, placeholders in capitals, `{expression}`, paths, numbers
_COMMAND = re.compile(
    r'python tools/(\w+)\.py((?: (?:--[\w-]+(?: eqzoo| shift_scale)?|[A-Z][A-Z_,]+(?:\.\w+)?|\{[^{}]+\}|[\w-]+/[\w./{}-]+|\d+))*)'
)


def printed_commands():
    """Every command in the source, with a word for each expression."""
    found = set()
    for path in Path('eqzoo').rglob('*.py'):
        source = re.sub(r"'\n\s+f?'", '', path.read_text())  # one message over several lines
        for name, words in _COMMAND.findall(source):
            if name != 'NAME':  # in a sentence about all commands
                found.add((name, re.sub(r'\{len\([^{}]*\}', '3', words).strip()))
    return sorted(found)


def test_commands_are_found():
    assert {'train', 'sample', 'study', 'convert', 'download', 'cache_latents', 'latent_stats', 'reference'} <= {
        name for name, _ in printed_commands()
    }


@pytest.mark.parametrize(('name', 'words'), printed_commands())
def test_every_printed_command_parses(name, words):
    function = cli.COMMANDS[name.replace('_', '-')].load()
    given = [
        re.sub(r'\{[^{}]+\}', '3' if 'size' in word else 'word', word)
        for word in re.findall(r'(?:\{[^{}]*\}|\S)+', words)
    ]
    if not given:
        return  # 'python tools/NAME.py' alone names a command
    if name == 'sample' and '--out' not in given:
        given += ['--out', 'folder']  # where to is the user's
    cli.parse(function, given, program=name)


def test_the_hint_for_a_file_without_a_place_says_convert_first(tmp_path, capsys):
    torch.manual_seed(0)
    weights, config = tmp_path / 'vae.pth', tmp_path / 'config.py'
    config.write_text(CONFIG.format(weights=str(weights), root=str(tmp_path / 'latents')))
    network = KLAutoencoder(4, (16, 32, 64), layers_per_block=1, norm_num_groups=8)
    with torch.no_grad():
        network.quant_conv.weight.mul_(5)  # a spread that needs the hint
    torch.save(network.state_dict(), weights)
    torch.save({k: v for k, v in network.state_dict().items() if 'normalization' not in k}, weights)
    cli.main(['cache-latents', str(config)])
    assert f'convert it first: eqzoo convert {weights} NEW.pth --to eqzoo' in capsys.readouterr().out


def test_a_pair_of_files_is_one_word_of_the_hint(tmp_path):
    path = tmp_path / 'my.py'
    path.touch()
    pair = dict(weights=['an encoder.pth', 'decoder.pth'])
    measure, convert = cache_latents._measure_again(Config(dict(model=dict(autoencoder=pair)), filename=str(path)))
    assert measure.endswith(f"python tools/latent_stats.py {path} 'an encoder.pth,decoder.pth'")
    assert "python tools/convert.py 'an encoder.pth,decoder.pth' NEW.pth" in convert


def test_the_hint_for_latents_of_another_spread_mends_them(tmp_path, capsys):
    """As printed, with a generator's config: measure, then write the store again."""
    torch.manual_seed(0)
    weights, root, config = tmp_path / 'vae.pth', tmp_path / 'latents', tmp_path / 'config.py'
    config.write_text(CONFIG.format(weights=str(weights), root=str(root)))
    raw, arguments = tmp_path / 'raw.pth', dict(block_out_channels=(16, 32, 64), layers_per_block=1, norm_num_groups=8)
    torch.save(KLAutoencoder(4, **arguments).state_dict(), raw)
    # random latents have a spread of about 1
    cli.main(['convert', str(raw), str(weights), '--to', 'eqzoo', '--config', str(config), '--scale', '0.2'])
    cli.main(['cache-latents', str(config)])
    hint = re.search(r'eqzoo latent-stats .*', capsys.readouterr().out)[0]
    assert normalized_std(read_index(root))[0] < 0.8
    cli.main(shlex.split(hint.removeprefix('eqzoo ')))
    assert '24 images; raw latents' in capsys.readouterr().out
    cli.run(cache_latents.cache_latents, [str(config)])
    assert "updated to the autoencoder's current normalisation" in capsys.readouterr().out
    assert normalized_std(read_index(root))[0] == pytest.approx(1, abs=1e-3)
