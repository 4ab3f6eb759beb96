"""What the classes of known datasets are called, in the order of their labels, as their authors call them."""

from __future__ import annotations

_DIGITS = tuple("0123456789")

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "digits": _DIGITS,
    "mnist": _DIGITS,
    "fashion_mnist": (
        *("t-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": (
        *("apple", "aquarium fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle"),
        *("bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle"),
        *("chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup"),
        *("dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house"),
        *("kangaroo", "keyboard", "lamp", "lawn mower", "leopard", "lion", "lizard", "lobster", "man"),
        *("maple tree", "motorcycle", "mountain", "mouse", "mushroom", "oak tree", "orange", "orchid"),
        *("otter", "palm tree", "pear", "pickup truck", "pine tree", "plain", "plate", "poppy"),
        *("porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal"),
        *("shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar"),
        *("sunflower", "sweet pepper", "table", "tank", "telephone", "television", "tiger", "tractor"),
        *("train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow tree", "wolf", "woman", "worm"),
    ),
}
"""Sources: Xiao, Rasul and Vollgraf (2017) for Fashion-MNIST, Krizhevsky (2009) for CIFAR."""
