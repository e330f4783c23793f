"""Images, batch by batch, from their files or from the packed one."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, get_worker_info

from project.datamodules.augment import is_fixed
from project.datamodules.decode import decode_image, to_square
from project.datamodules.index import ImageIndex
from project.datamodules.lending import LentMemory, shared_memory
from project.datamodules.sampler import EpochBatches, Request, seed_draws
from project.errors import UserError
from project.images import Pixels, UnreadableImageError, read_bytes
from project.interface import Batch


class Images(Dataset[Batch]):
    """Images of some rows of an index; asked for a list of positions, it returns a whole batch.

    Args:
        index: The images.
        rows: The rows of the index that this data set holds, in order.
        image_size: Height and width of what it returns, in pixels.
        transforms: Item transforms; what they draw is a function of (seed, epoch, row).
        seed: Seed of the item transforms.
        pixels: The packed images, uint8 (N, image_size, image_size, 3), a row of the index each; where given, nothing
            else is read. As a tensor they may lie on another device, and the batches' images then do too.
        read: Gives the encoded image at a row; by default its file.
    """

    def __init__(
        self,
        index: ImageIndex,
        rows: NDArray[np.int64],
        image_size: int,
        transforms: Sequence[nn.Module] = (),
        seed: int = 0,
        pixels: Pixels | Tensor | None = None,
        read: Callable[[int], bytes] | None = None,
    ) -> None:
        self.index, self.rows, self.image_size = index, rows, image_size
        self.transforms, self.seed, self.pixels = transforms, seed, pixels
        self.read = read or self._read_file
        self.places: Sequence[Tensor] = ()
        # Seeding where nothing is drawn would change what this process draws next, such as the weights of the net.
        self._draws = not all(map(is_fixed, transforms))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, request: Request) -> Batch:
        rows = self.rows[request.positions]
        if isinstance(self.pixels, Tensor):
            image = self.pixels[torch.from_numpy(rows).to(self.pixels.device, non_blocking=True)]
        elif self.pixels is not None:
            image = torch.from_numpy(self.pixels[rows])  # one read for the whole batch
        else:
            image = self._place(request)
            for place, row in enumerate(rows.tolist()):
                image[place] = self._decode(row, request.epoch).permute(1, 2, 0)
        labels = torch.from_numpy(self.index.labels[rows])
        # NCHW to the eye, NHWC in memory: channels last.
        return Batch(image.permute(0, 3, 1, 2), labels, torch.from_numpy(rows))

    def even(self, count: int) -> list[int]:
        """Positions of up to `count` images, evenly spaced."""
        positions: list[int] = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int).tolist()
        return positions

    def _place(self, request: Request) -> Tensor:
        """uint8 (N, image_size, image_size, 3), not yet filled."""
        count = len(request.positions)
        if request.place is not None and count <= len(self.places[request.place]):
            return self.places[request.place][:count]
        if get_worker_info() is not None:
            return shared_memory(count, self.image_size)
        return torch.empty(count, self.image_size, self.image_size, 3, dtype=torch.uint8)

    def _read_file(self, row: int) -> bytes:
        return read_bytes(self.index.root / self.index.paths[row])

    def _name(self, row: int) -> str:
        path = self.index.paths[row]
        if self.read == self._read_file:
            return f"{self.index.root / path} (damaged, or gone since the images were found)"
        return f"{path} from the shards (damaged: write them anew)"

    def _decode(self, row: int, epoch: int) -> Tensor:
        try:
            image = self.index.hide(decode_image(self.read(row)), row)
        except UnreadableImageError as error:
            raise UserError(f"cannot read image {self._name(row)}: {error}") from error
        if self._draws:
            seed_draws(self.seed, epoch, row)
        for transform in self.transforms:
            image = transform(image)
        return to_square(image, self.image_size)


class Loader:
    """A data loader that Lightning leaves as it is: sharing out over processes is the batches' own work.

    Args:
        dataset: Returns a batch for a request.
        batches: The requests, an epoch at a time.
        num_workers: Processes that read ahead; 0 reads in this one.
        pin_memory: Put batches where a GPU can fetch them while it computes.
        position: Says how many batches of the epoch are done already; asked when the first one is wanted.
    """

    def __init__(
        self,
        dataset: Images,
        batches: EpochBatches,
        num_workers: int,
        pin_memory: bool,
        position: Callable[[], int] = lambda: 0,
    ) -> None:
        self.batch_sampler, self._position = batches, position
        # Two batches a worker are under way, one is in use and one may be about to be.
        self._lent = LentMemory(batches, dataset.image_size, 2 * num_workers + 2 if num_workers else 0)
        dataset.places = self._lent.places
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            sampler=self._lent,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=_leave_signals,
        )

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        # Lightning asks for the iterator before it sets the epoch; workers would then read ahead in the wrong one.
        self.batch_sampler.start = self._position()
        with _deaf():
            batches = iter(self._loader)
        yield from map(self._lent.handed_over, batches)


@contextmanager
def _deaf() -> Iterator[None]:
    """Hold signals back, so that workers started meanwhile begin with them blocked; this process gets them after."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals(worker: int) -> None:
    """Ctrl-C and schedulers signal all processes; workers must last until the main one has ended its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_by_parent, daemon=True).start()


def _end_by_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
