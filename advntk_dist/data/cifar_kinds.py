"""CIFAR-10 and CIFAR-100 as published: file names, record layouts, class names.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """What tells one CIFAR dataset from the other.

    Parameters
    ----------
    name, title
        Its name here and in messages.
    train, test
        File names without suffix, training files in order; ``.bin`` follows in the binary layout.
    label_limits
        Numbers of labels that the bytes before the pixels of a binary record count in; the last one is the class.
    label_key
        Key of the labels in the python layout.
    classes
        Class names; the label is the position.
    folders, archives
        What the files lie in as published: binary layout, python layout.
    """

    name: str
    title: str
    train: tuple[str, ...]
    test: str
    label_limits: tuple[int, ...]
    label_key: str
    classes: tuple[str, ...]
    folders: tuple[str, str]
    archives: tuple[str, str]

    @property
    def batches(self) -> tuple[str, ...]:
        """All files without suffix, in the order of the rows."""
        return (*self.train, self.test)

    @property
    def what(self) -> str:
        """What to give, for messages."""
        return (
            f"the folder {' or '.join(self.folders)}, the folder around it, or {' or '.join(self.archives)} "
            f"(advntk data fetch {self.name})"
        )


CIFAR10 = Kind(
    name="cifar10",
    title="CIFAR-10",
    train=tuple(f"data_batch_{k}" for k in range(1, 6)),
    test="test_batch",
    label_limits=(10,),
    label_key="labels",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    folders=("cifar-10-batches-bin", "cifar-10-batches-py"),
    archives=("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
)

_CLASSES_100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""

CIFAR100 = Kind(
    name="cifar100",
    title="CIFAR-100",
    train=("train",),
    test="test",
    label_limits=(20, 100),
    label_key="fine_labels",
    classes=tuple(_CLASSES_100.split()),
    folders=("cifar-100-binary", "cifar-100-python"),
    archives=("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
)
