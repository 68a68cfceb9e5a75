"""Whether the images of a run are still those that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from advntk_dist.config import RunConfig
from advntk_dist.data import Dataset, load_dataset
from advntk_dist.errors import ImagesChangedError, StoreDamagedError, StoreMismatchError
from advntk_dist.pipeline.rundir import RunDirectory
from advntk_dist.storage.paths import Location


def load_images(config: RunConfig) -> Dataset:
    """The dataset that a configuration names; errors as :func:`advntk_dist.data.load_dataset`."""
    d = config.data
    drop = d.duplicates == "drop"
    return load_dataset(d.name, d.path, resize=d.resize, class_subset=d.class_subset, drop_duplicates=drop)


def require_same_images(folder: RunDirectory, dataset: Dataset) -> None:
    """Raise ImagesChangedError if a run has solved with other images than these; fine where it has solved nothing."""
    from advntk_dist.storage.records import read_group

    if (folder.coefficients / "zarr.json").exists():
        try:
            stored = read_group(folder.coefficients)[1].get("data")
        except StoreDamagedError:
            return  # it is written anew, and solutions of other images do not count then
        if stored is not None and stored != dataset.fingerprint:
            raise ImagesChangedError(folder.root, dataset.name, stored, dataset.fingerprint)


@contextmanager
def changed_images_named(root: Location, name: str) -> Iterator[None]:
    """Raise ImagesChangedError, which names the dataset, for a Gram store that has other images."""
    try:
        yield
    except StoreMismatchError as error:
        if error.field != "images":
            raise
        raise ImagesChangedError(root, name, error.stored, error.requested) from error


def finished_results(folder: RunDirectory, config: RunConfig) -> dict[str, Any] | None:
    """The results of a finished run of these images, found without loading JAX or Ray; None where it is not finished.

    Raises
    ------
    StoreError
        If stored data are damaged, or belong to another configuration or to other images.
    DatasetError
        If the images are not there any more.
    """
    if not folder.config.exists():
        return None
    from advntk_dist.pipeline.outcomes import finished_run

    with folder.claimed(config, reading=True):
        results = finished_run(folder, config)
        if results is not None:
            require_same_images(folder, load_images(config))
        return results
