"""The house in numbers: files, lines, imports and names of the package; run it to print them.

python tests/house.py            # sizes, imports, names
python tests/house.py --paths    # also the files entered on four paths a user takes; runs them, two minutes
python tests/house.py --root DIR # of another checkout
"""

import argparse
import ast
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

# Modules that are called, not imported: one importer or none is no fault of theirs.
_ENTRIES = ('eqzoo.commands', 'eqzoo.__main__', 'eqzoo')


class Import(NamedTuple):
    """One imported name: of which module, and whether it is imported inside a function."""

    module: str
    name: str
    is_lazy: bool


class House:
    """The source of the package as text: nothing of it is imported.

    Args:
        root: The checkout, with `eqzoo/` and `registry/`.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self.files: dict[str, Path] = {}
        for folder, package in (('eqzoo', 'eqzoo'), ('registry', 'eqzoo.registry')):
            for path in sorted((root / folder).rglob('*.py')):
                parts = [package, *path.relative_to(root / folder).with_suffix('').parts]
                self.files['.'.join(part for part in parts if part != '__init__')] = path
        self.trees = {module: ast.parse(path.read_text()) for module, path in self.files.items()}

    @cached_property
    def imports(self) -> dict[str, list[Import]]:
        """Every import of every module; those for type checkers alone are left out."""
        return {module: list(self._imports_of(tree, is_lazy=False)) for module, tree in self.trees.items()}

    @cached_property
    def graph(self) -> dict[str, set[str]]:
        """The modules of the package that each module imports, inside functions too."""
        return {
            module: {each.module for each in imports if each.module in self.files} - {module}
            for module, imports in self.imports.items()
        }

    def is_package(self, module: str) -> bool:
        """Return whether a module is a package's `__init__`."""
        return self.files[module].name == '__init__.py'

    def circles(self) -> list[list[str]]:
        """Return the sets of modules that import one another, directly or in a round."""
        reachable = {module: self._reachable(module) for module in self.graph}
        found = {
            frozenset(other for other in reachable[module] if module in reachable[other])
            for module in self.graph
            if module in reachable[module]
        }
        return sorted(sorted(circle) for circle in found)

    def single_importers(self) -> dict[str, str]:
        """Return the modules that one other module imports and no package exports, with that module."""
        importers = defaultdict(set)
        for module, imported in self.graph.items():
            for each in imported:
                importers[each].add(module)
        return {
            module: next(iter(importers[module]))
            for module in self.files
            if len(importers[module]) == 1
            and not self.is_package(module)
            and not module.startswith(_ENTRIES[0])
            and not any(self.is_package(each) for each in importers[module])
        }

    def name_collisions(self) -> dict[str, list[str]]:
        """Return the public classes and functions that several modules define, with those modules."""
        homes = defaultdict(list)
        for module, tree in self.trees.items():
            for node in tree.body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith('_'):
                    homes[node.name].append(module)
        return {name: modules for name, modules in sorted(homes.items()) if len(set(modules)) > 1}

    def importers_of(self, library: str) -> list[str]:
        """Return the modules that import a library."""
        return sorted(
            module
            for module, imports in self.imports.items()
            if any(each.module.split('.')[0] == library for each in imports)
        )

    def function_lengths(self) -> list[int]:
        """Return the lines of every function, methods and nested ones included."""
        return [
            node.end_lineno - node.lineno + 1
            for tree in self.trees.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        ]

    def summary(self) -> dict[str, str]:
        """Return the numbers by title."""
        lines = [len(path.read_text().splitlines()) for path in self.files.values()]
        lengths = self.function_lengths()
        return {
            'files': f'{len(lines)}',
            'lines': f'{sum(lines):,}',
            'lines a file': f'{sum(lines) / len(lines):.0f}',
            'functions (median lines)': f'{len(lengths):,} ({statistics.median(lengths):.0f})',
            'modules with one importer': f'{len(self.single_importers())}',
            'public names defined twice': f'{len(self.name_collisions())}',
            'modules that import mmengine outside registry, config and engine': f'{len(self.mmengine_elsewhere())}',
            'import circles': f'{len(self.circles())}',
        }

    def mmengine_elsewhere(self) -> list[str]:
        """Return the modules that import mmengine and are not those that may."""
        allowed = ('eqzoo.registry', 'eqzoo.engine', 'eqzoo.config')
        return [
            module
            for module in self.importers_of('mmengine')
            if not any(module == each or module.startswith(f'{each}.') for each in allowed)
        ]

    def _imports_of(self, node: ast.AST, *, is_lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == 'TYPE_CHECKING':
                continue
            if isinstance(child, ast.ImportFrom) and child.module and not child.level:
                for alias in child.names:
                    submodule = f'{child.module}.{alias.name}'
                    yield Import(submodule if submodule in self.files else child.module, alias.name, is_lazy)
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, '', is_lazy)
            else:
                yield from self._imports_of(child, is_lazy=is_lazy or isinstance(child, ast.FunctionDef))

    def _reachable(self, module: str) -> set[str]:
        seen, todo = set(), [module]
        while todo:
            new = self.graph[todo.pop()] - seen
            seen |= new
            todo += new
        return seen


def main() -> None:
    """Print the house in numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=ROOT)
    parser.add_argument('--paths', action='store_true')
    options = parser.parse_args()
    house = House(options.root.resolve())
    for title, number in house.summary().items():
        print(f'{title:<66} {number:>10}')
    for module, importer in sorted(house.single_importers().items()):
        print(f'one importer: {module} (by {importer})')
    for name, modules in house.name_collisions().items():
        print(f'twice: {name} in {", ".join(modules)}')
    for circle in house.circles():
        print(f'circle: {" ".join(circle)}')
    if options.paths:
        from paths import trace_paths

        for title, files in trace_paths(options.root.resolve()).items():
            print(f'{title:<66} {len(files):>10} files')
            print(f'    {" ".join(files)}')


if __name__ == '__main__':
    sys.exit(main())
