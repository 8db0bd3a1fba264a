"""The listing of a large folder of images, kept in the cache as long as no folder in it has changed.

A folder's status says when an entry was added, removed or renamed in it: its mtime, and its ctime, which no program can
set back as `rsync -a` and `touch` do with an mtime. So one status for each folder is enough to know that a walk would
find the same files, with these exceptions, in which nothing is kept:

- A change within the clock tick of the one before leaves the times as they are. A folder whose last change was less
  than a minute before it was read is not trusted, as in git (its Documentation/technical/racy-git).
- A link to a file may become one to a folder without a change in the folder that it is in.
- Not all file systems keep the times of folders, FUSE's for one; `_TRUSTED` has those that do.
"""

import hashlib
import json
import os
import re
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from eqzoo.data.sources import EXTENSIONS, FolderSource, Names
from eqzoo.files import WriteError, replacing
from eqzoo.text import printable
from eqzoo.zoo.download import cache_folder

_VERSION = 1  # of the files
_LEAST = 10_000  # images; fewer are listed as fast as an index is read
SETTLED = 60.0  # seconds: clock ticks, and the differences between the clocks of a file server and this machine
_TRUSTED = (
    *('bcachefs', 'beegfs', 'btrfs', 'ceph', 'ext2', 'ext3', 'ext4', 'f2fs', 'gpfs', 'jfs', 'lustre', 'nfs', 'nfs4'),
    *('overlay', 'tmpfs', 'xfs', 'zfs'),
)
_MOUNTS = Path('/proc/self/mountinfo')
_OCTAL = re.compile(r'\\(\d{3})')  # spaces and backslashes in it

_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile)


class IndexedFolder(FolderSource):
    """The images below a folder, as `FolderSource` finds them; of a large folder the listing is kept in the cache.

    The list is always that of a walk. Several processes may read and write an index at once; where the cache cannot be
    written to, each of them walks.

    Args:
        root: The folder. Links to folders are followed, except to a folder that contains the link.
        endings: Of the names of images.
        settled: Seconds since the last change of a folder, after which its listing is kept.
    """

    def __init__(self, root: Path, endings: tuple[str, ...] = EXTENSIONS, *, settled: float = SETTLED) -> None:
        super().__init__(root, endings)
        self._settled = settled

    def names(self) -> Names:
        """Return the paths of the images relative to the root, with '/', sorted."""
        names = self._kept_names()
        if names is None:
            started = time.time()
            names, folders, hangs_on_link = self.walk()
            if len(names) >= _LEAST and not hangs_on_link and self._have_settled(folders, started):
                self._keep(names, folders)
        return names

    def _file(self) -> Path:
        parts = (_VERSION, self.root.absolute(), *self.endings)
        digest = hashlib.sha256('\0'.join(map(str, parts)).encode(errors='surrogateescape')).hexdigest()
        return cache_folder() / 'indices' / f'{printable(self.root.absolute().name)[:60]}-{digest[:16]}.npz'

    def _kept_names(self) -> Names | None:
        """Return the names in the index; None if there is none, it is damaged, or a folder has changed since."""
        try:
            with self._file().open('rb') as raw, np.load(raw, allow_pickle=False) as file:
                card = json.loads(bytes(file['card']))
                folders = Names.of_arrays(file['folder_bytes'], file['folder_ends'])
                states = file['states']
                if states.dtype != np.int64 or states.shape != (len(folders), 3):
                    return None
                for folder, state in zip(folders, states.tolist(), strict=True):
                    if _state(os.stat(f'{self.root}/{folder}')) != tuple(state):  # noqa: PTH116 - of many folders
                        return None
                names = Names.of_arrays(file['name_bytes'], file['name_ends'])
            self.left_out, self.masks = Counter(card['left_out']), int(card['masks'])
            return names
        except _DAMAGE:
            return None

    def _have_settled(self, folders: Mapping[str, os.stat_result], started: float) -> bool:
        newest = max(max(status.st_mtime, status.st_ctime) for status in folders.values())
        devices = {status.st_dev: folder for folder, status in folders.items()}
        return started - newest >= self._settled and _are_trusted(f'{self.root}/{each}' for each in devices.values())

    def _keep(self, names: Names, folders: Mapping[str, os.stat_result]) -> None:
        arrays = dict(zip(('name_bytes', 'name_ends'), names.arrays(), strict=True))
        arrays |= zip(('folder_bytes', 'folder_ends'), Names(folders).arrays(), strict=True)
        arrays['states'] = np.array([_state(status) for status in folders.values()], np.int64)
        card = json.dumps(dict(root=str(self.root), left_out=dict(self.left_out), masks=self.masks))
        try:
            with replacing(self._file()) as temporary, temporary.open('wb') as file:
                np.savez(file, card=np.frombuffer(card.encode(), np.uint8), **arrays)
        except (WriteError, OSError):
            pass  # a folder is listed again where its index cannot be kept


def _state(status: os.stat_result) -> tuple[int, int, int]:
    """Return what differs after a change of a folder's entries; without the device, whose number a reboot changes."""
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _are_trusted(folders: Iterable[str]) -> bool:
    """Return whether all folders are on file systems that keep the times of folders; only Linux says."""
    try:
        lines = _MOUNTS.read_text(errors='surrogateescape').splitlines()
    except OSError:
        return False
    # '36 35 98:0 /root /mount\040point rw,noatime - ext4 /dev/sda1 rw'; of two mounts at a place the last is seen
    mounts = {}
    for line in lines:
        before, _, after = line.partition(' - ')
        mounts[_OCTAL.sub(lambda found: chr(int(found[1], 8)), before.split()[4])] = after.split()[0]
    return all(mounts.get(_mount_of(os.path.realpath(folder), mounts)) in _TRUSTED for folder in folders)


def _mount_of(path: str, mounts: Mapping[str, str]) -> str:
    return next((str(each) for each in (Path(path), *Path(path).parents) if str(each) in mounts), '/')
